"""Clocks and chance in queries and mutations: what the standard library tells follows from the call alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from headwater_server.functions.limits import PoolOptions
from headwater_server.worker.determinism import Determinism
from support.worker_pool import PoolWorld, decode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CALLS = """
import copy, datetime, logging, os, pickle, random, secrets, time, uuid
from datetime import date, datetime as moment
from random import choice, gauss, randbytes
from time import time as clock

from headwater import MutationCtx, QueryCtx, mutation, query

IMPORTED_MS = clock() * 1000
IMPORTED = random.random()

class Later(moment):
    pass

def clocks() -> dict[str, float]:
    utc = datetime.timezone.utc
    return {
        "time": time.time() * 1000,
        "from time": clock() * 1000,
        "time_ns": time.time_ns() / 1e6,
        "gmtime": float(time.mktime(time.localtime())) * 1000,
        "strftime": float(time.strftime("%s")) * 1000,
        "now": moment.now().timestamp() * 1000,
        "now in UTC": datetime.datetime.now(utc).timestamp() * 1000,
        "now of a subclass": Later.now(tz=utc).timestamp() * 1000,
        "utcnow": moment.utcnow().replace(tzinfo=utc).timestamp() * 1000,
        "today": moment.today().timestamp() * 1000,
    }

@query
def times(ctx: QueryCtx) -> list[dict[str, float]]:
    return [clocks(), {"ctx": ctx.now_ms, "day": float((date.today() - date(1970, 1, 1)).days)}]

@query
def imported(ctx: QueryCtx) -> list[float]:
    return [IMPORTED_MS, IMPORTED]

@query
def chance(ctx: QueryCtx, salt: int = 0) -> list[str]:
    drawn = [random.random(), choice(range(1 << 60)), gauss(0, 1), random.sample(range(99), 5), randbytes(4)]
    return [*map(repr, drawn), repr(random.getrandbits(64)), repr(ctx.random.random())]

@query
def one_gauss(ctx: QueryCtx) -> float:
    return gauss(0, 1)

@query
def seeded_anew(ctx: QueryCtx) -> float:
    random.seed()
    return random.random()

class Utc(logging.Formatter):
    converter = time.gmtime

class Watch:
    clock = time.time

@query
def ordinary(ctx: QueryCtx) -> list[str]:
    copied = copy.deepcopy(random.choice)
    return [
        Utc("%(asctime)s").format(logging.makeLogRecord({}))[:4],
        str(time.localtime(None).tm_year), str(time.gmtime(None).tm_year), time.ctime(None)[-4:],
        time.strftime("%Y", time.gmtime(0)), str(Watch().clock() == time.time()),
        str(pickle.loads(pickle.dumps(time.time)) is time.time), str(len(pickle.dumps(random.random)) > 9), str(copied([1])),
    ]

@query
def chosen(ctx: QueryCtx) -> float:
    random.seed(5)
    return random.random()

SECRETS = {
    "urandom": lambda: os.urandom(8).hex(),
    "secrets": lambda: secrets.token_hex(8),
    "uuid4": lambda: str(uuid.uuid4()),
    "SystemRandom": lambda: str(random.SystemRandom().random()),
}

@query
def secret_query(ctx: QueryCtx, how: str) -> str:
    return SECRETS[how]()

@mutation
def secret_mutation(ctx: MutationCtx, how: str) -> str:
    return SECRETS[how]()

@mutation
def chance_mutation(ctx: MutationCtx) -> float:
    return random.random()
"""
SECRETS = ["urandom", "secrets", "uuid4", "SystemRandom"]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[PoolWorld]:
    async with PoolWorld(tmp_path, PoolOptions(workers=2)) as world:
        await world.deploy(calls=CALLS)
        yield world


async def test_every_clock_tells_the_time_of_the_call(world: PoolWorld) -> None:
    for _ in range(2):
        world.now_us += 86_400_123_457
        clocks, told = await world.value("calls:times")
        now_ms = world.now_us / 1000
        assert told["ctx"] == now_ms
        assert told["day"] == world.now_us // 86_400_000_000
        for name, value in clocks.items():
            # Those of whole seconds, and floats of µs.
            assert value == pytest.approx(now_ms, abs=1000 if name in ("gmtime", "strftime") else 0.01), name


async def test_a_bundle_is_imported_at_the_real_time(world: PoolWorld) -> None:
    imported_ms, _ = await world.value("calls:imported")
    assert abs(datetime.now(UTC) - datetime.fromtimestamp(imported_ms / 1000, UTC)) < timedelta(minutes=5)


async def test_a_query_draws_the_same_wherever_it_runs(world: PoolWorld) -> None:
    first = await world.value("calls:chance")
    for _ in range(6):  # in both workers, after others
        await world.value("calls:chance", salt=1)
        assert await world.value("calls:chance") == first
    assert await world.value("calls:chance", salt=1) != first
    assert await world.value("calls:chosen") == 0.6229016948897019  # what seed 5 gives


@pytest.mark.parametrize("name", ["one_gauss", "seeded_anew"])
async def test_nothing_is_left_over_from_one_call_to_the_next(world: PoolWorld, name: str) -> None:
    assert len({await world.value(f"calls:{name}") for _ in range(6)}) == 1


async def test_what_ordinary_code_does_with_clocks_goes_on_working(world: PoolWorld) -> None:
    year = str(datetime.fromtimestamp(world.now_us / 1e6, UTC).year)
    told = await world.value("calls:ordinary")
    assert told[1:] == [year, year, year, "1970", "True", "True", "True", "1"]
    assert told[0] == str(datetime.now(UTC).year) or told[0] == year


async def test_mutations_draw_anew_each_time(world: PoolWorld) -> None:
    drawn = {decode((await world.mutate("calls:chance_mutation")).outcome) for _ in range(5)}
    assert len(drawn) == 5


@pytest.mark.parametrize("how", SECRETS)
async def test_what_nobody_can_foretell_is_for_mutations(world: PoolWorld, how: str) -> None:
    failure = await world.failure("calls:secret_query", how=how)
    assert failure.code == "not_allowed_here"
    assert "ctx.random" in failure.message
    told = {decode((await world.mutate("calls:secret_mutation", how=how)).outcome) for _ in range(3)}
    assert len(told) == 3


def test_between_calls_nothing_follows_from_their_seeds() -> None:
    determinism = Determinism()  # not installed here
    chance: Any = determinism._chance
    drawn = set()
    for _ in range(3):
        determinism.begin(1, b"seed", real_randomness=False)
        within = chance.random()
        determinism.end()
        drawn |= {within, chance.random()}
    assert len(drawn) == 4
