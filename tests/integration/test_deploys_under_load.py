"""Deploys and roll backs one after the other, under load, while the daemon and its workers are killed.

Every result belongs to one version as a whole; what a session sees follows the history of deploys and never goes back
in it; a mutation that was answered is there once, and one that failed is not.
"""

from __future__ import annotations

import asyncio
import http.client
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from headwater import connect
from headwater.packing import bundle_hash, pack
from headwater_protocol.errors import HeadwaterError
from support.daemon import RunningDaemon

if TYPE_CHECKING:
    from pathlib import Path

    from headwater.client.aio import Client
    from support.runs import LongRun

CLIENTS = 3
FOR_EVER_S = 1_000.0
OPTIONS = ("--document-rewrite-delay-s", "0", "--checkpoint-interval-s", "1")
FAILURES = {"worker_died", "time_limit"}
"""A mutation that a killed worker was running fails for good."""

PARTS = "VERSION = {version}\n"
FUNCTIONS = """
from headwater import Index, MutationCtx, QueryCtx, Table, mutation, query
from .parts import VERSION as PART

VERSION = {version}

class Mark(Table, name="marks"):
    who: str
    number: int
    version: int
    by_who = Index("who", "number")
    {field}

@query.internal
def inner(ctx: QueryCtx) -> int:
    return VERSION

@query
def versions(ctx: QueryCtx) -> list[int]:
    return [VERSION, PART, ctx.run_query(inner)]

@mutation
def mark(ctx: MutationCtx, who: str, number: int) -> list[int]:
    ctx.db.insert(Mark(who=who, number=number, version=VERSION))
    return [VERSION, PART, ctx.run_query(inner)]

@query
def marks(ctx: QueryCtx, who: str) -> list[list[int]]:
    return [[mark.number, mark.version] for mark in ctx.db.query(Mark.by_who, who=who).collect()]
"""


class Bundles:
    """Bundles that differ in a version; every second has a field and an index of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.versions: dict[str, int] = {}

    def next(self) -> bytes:
        version = len(self.versions) + 1
        source = self._folder / f"v{version}" / "app"
        source.mkdir(parents=True)
        (source / "__init__.py").write_text("")
        (source / "parts.py").write_text(PARTS.format(version=version))
        more = f"kind: str = 'kind {version}'\n    by_kind = Index('kind')" if version % 2 else ""
        (source / "f.py").write_text(FUNCTIONS.format(version=version, field=more))
        archive = pack(source)
        self.versions[bundle_hash(archive)] = version
        return archive


@dataclass
class Seen:
    """What one client has seen: sequences of versions, each in the order of its arrival, and its mutations."""

    who: str
    called: list[int] = field(default_factory=list)
    shown: list[int] = field(default_factory=list)
    torn: list[Any] = field(default_factory=list)
    answered: dict[int, int] = field(default_factory=dict)
    failed: Counter[str] = field(default_factory=Counter)
    refused: list[int] = field(default_factory=list)
    number: int = 0

    def see(self, versions: list[int], into: list[int]) -> int:
        """Note a result, which one version alone has to have made."""
        if len(set(versions)) != 1:
            self.torn.append(versions)
        into.append(versions[0])
        return versions[0]

    async def call(self, client: Client, stop: asyncio.Event) -> None:
        while not stop.is_set():
            self.number += 1
            try:
                made = await client.mutation("f:mark", who=self.who, number=self.number)
                self.answered[self.number] = self.see(made, self.called)
            except HeadwaterError as error:
                self.failed[error.code] += 1
                self.refused.append(self.number)
            try:
                self.see(await client.query("f:versions"), self.called)
            except HeadwaterError as error:
                self.failed[error.code] += 1

    async def watch(self, client: Client) -> None:
        while True:
            try:
                async for versions in client.subscribe("f:versions"):
                    self.see(versions, self.shown)
            except HeadwaterError as error:
                self.failed[error.code] += 1


@dataclass
class Tally:
    """What happened."""

    deploys: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    daemon_kills: int = 0
    worker_kills: int = 0

    @property
    def lacks_a_kill(self) -> bool:
        """Whether the daemon or its workers have been spared so far."""
        return not (self.daemon_kills and self.worker_kills)


class Trial:
    """A daemon, its clients, whoever deploys, and whoever kills."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.daemon = RunningDaemon(folder / "daemon", OPTIONS)
        self.bundles = Bundles(folder)
        self.chance = random.Random(seed)
        self.tally = Tally()
        self.seen = [Seen(f"client {number}") for number in range(CLIENTS)]

    async def play(self, deploys: int, kill_every_s: float) -> list[int]:
        """Deploy so often; return the versions that became active, in order."""
        daemon = self.daemon
        await asyncio.to_thread(daemon.start)
        await asyncio.to_thread(daemon.must_deploy, self.bundles.next())
        stop = asyncio.Event()
        clients = [connect(daemon.tcp_url) for _ in self.seen]
        for client in clients:
            await client.__aenter__()
        calling = [
            asyncio.create_task(one.call(client, stop))
            for one, client in zip(self.seen, clients, strict=True)
        ]
        watching = [
            asyncio.create_task(one.watch(client)) for one, client in zip(self.seen, clients, strict=True)
        ]
        killing = asyncio.create_task(self._kill(kill_every_s))
        try:
            while self.tally.deploys < deploys or (kill_every_s < FOR_EVER_S and self.tally.lacks_a_kill):
                await self._deploy()
            killing.cancel()
            await asyncio.gather(killing, return_exceptions=True)
            if daemon.process is None:
                await asyncio.to_thread(daemon.start)
            stop.set()
            async with asyncio.timeout(60):
                await asyncio.gather(*calling)
            history = await asyncio.to_thread(self._history)
            await self._settled(history[-1])
            return history
        finally:
            for task in (*calling, *watching, killing):
                task.cancel()
            await asyncio.gather(*calling, *watching, killing, return_exceptions=True)
            for client in clients:
                await client.close()

    async def _settled(self, version: int) -> None:
        """Wait until every client is shown the active version, or for some seconds: then `check` tells."""
        for _ in range(100):
            if all(one.shown and one.shown[-1] == version for one in self.seen):
                return
            await asyncio.sleep(0.1)

    async def _deploy(self) -> None:
        goes_back = self.tally.deploys % 4 == 3
        archive = b"" if goes_back else self.bundles.next()
        key = {"Authorization": f"Headwater {self.daemon.key}"}
        path = "/api/admin/rollback" if goes_back else "/api/admin/deploy"
        try:
            answer = await asyncio.to_thread(self.daemon.post, path, archive, **key)
        except (OSError, http.client.HTTPException):
            self.tally.refused["cut off"] += 1
            while not await asyncio.to_thread(self.daemon.is_ready):
                await asyncio.sleep(0.05)
            return
        if answer.status == 200:
            self.tally.deploys += 1
        else:
            self.tally.refused[answer.json["code"]] += 1
            await asyncio.sleep(0.1)

    async def _kill(self, every_s: float) -> None:
        while True:
            await asyncio.sleep(self.chance.uniform(0.2, 2) * every_s)
            if self.chance.random() < 0.7:
                self.tally.worker_kills += await asyncio.to_thread(self.daemon.kill_worker, self.chance)
            else:
                self.tally.daemon_kills += 1
                await asyncio.to_thread(self.daemon.kill)
                await asyncio.shield(asyncio.to_thread(self.daemon.start))

    def _history(self) -> list[int]:
        answer = self.daemon.get("/api/admin/deploys", Authorization=f"Headwater {self.daemon.key}")
        return [self.bundles.versions[one["bundle"]] for one in reversed(answer.json["deploys"])]

    def check(self, history: list[int]) -> None:
        daemon = self.daemon
        for one in self.seen:
            assert not one.torn, f"results of two versions: {one.torn[:3]}"
            assert follows(one.called, history) is None, (
                f"calls of {one.who} go back: {follows(one.called, history)}"
            )
            assert follows(one.shown, history) is None, (
                f"{one.who} is shown the past: {follows(one.shown, history)}"
            )
            assert one.shown[-1] == history[-1], f"{one.who} is left with version {one.shown[-1]}"
            assert set(one.failed) <= FAILURES, one.failed
            there = daemon.call("query", "f:marks", who=one.who)
            assert [number for number, _ in there] == sorted({number for number, _ in there}), "twice"
            assert dict(there) == one.answered, "what was answered is not what is there"
        assert daemon.terminate() == 0
        assert daemon.doctor() == []


def follows(seen: list[int], history: list[int]) -> tuple[int, int] | None:
    """Return where a sequence of versions leaves the order of the deploys: its place and the version; None if nowhere."""
    at = 0
    for place, version in enumerate(seen):
        try:
            at = history.index(version, at)
        except ValueError:
            return place, version
    return None


def test_following_a_history() -> None:
    assert follows([1, 1, 2, 1, 3], [1, 2, 1, 3]) is None
    assert follows([2, 3], [1, 2, 1, 3]) is None
    assert follows([1, 2, 1, 2], [1, 2, 1, 3]) == (3, 2)


def deploys_trial(folder: Path, seed: int, deploys: int, kill_every_s: float, broken: str = "") -> Trial:
    trial = Trial(folder, seed)
    try:
        if broken:
            trial.daemon.break_rule(broken)
        history = asyncio.run(trial.play(deploys, kill_every_s))
        trial.check(history)
        return trial
    finally:
        trial.daemon.end()


def test_deploys_under_load_with_kills(tmp_path: Path) -> None:
    deploys_trial(tmp_path, 5, 8, 0.7)


def test_workers_of_an_old_bundle_that_go_on_are_found(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"go back|shown the past|is left with|two versions"):
        deploys_trial(tmp_path, 5, 6, FOR_EVER_S, broken="old_bundle")


@pytest.mark.slow
def test_deploys_at_length(long_run: LongRun, tmp_path: Path) -> None:
    """A hundred deploys and roll backs for each seed."""
    for seed in long_run.seeds():
        trial = deploys_trial(tmp_path / str(seed), seed, 100, 2.5)
        tally = trial.tally
        long_run.record(
            "deploys",
            seed,
            deploys=tally.deploys,
            cut_off=sum(tally.refused.values()),
            daemon_kills=tally.daemon_kills,
            worker_kills=tally.worker_kills,
            mutations=sum(len(one.answered) for one in trial.seen),
            failed=sum(sum(one.failed.values()) for one in trial.seen),
            updates=sum(len(one.shown) for one in trial.seen),
        )
