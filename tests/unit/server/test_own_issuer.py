"""The deployment as an issuer: its keys over time, and what can be said against it."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import jwt
import pytest
from headwater_protocol.errors import InternalError, RequestError
from headwater_server.functions.limits import WorkerLimits
from headwater_server.identity.own_issuer import IssuerOptions, OwnIssuer, checked_issuer
from headwater_server.sealing import SealKey
from headwater_storage.memory_engine import MemoryEngine
from headwater_storage.proposal import CommitTs
from support.storage_world import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from headwater_storage.transaction import Transaction

T = TypeVar("T")
URL = "https://data.example.com"
START_US = 1_750_000_000_000_000
HOUR_US = 3_600_000_000


class Database:
    """A database in memory; `writes` counts commits."""

    def __init__(self) -> None:
        self.engine = MemoryEngine(FakeClock(), os.urandom, WorkerLimits().calls)
        self.writes = 0

    @contextmanager
    def begin(self, *, writable: bool = True) -> Iterator[Transaction]:
        with self.engine.begin(writable=writable) as transaction:
            yield transaction

    async def transact(self, function: Callable[[Transaction], T]) -> tuple[T, CommitTs]:
        with self.engine.begin() as transaction:
            result = function(transaction)
            proposal = transaction.proposal()
        self.engine.commit(proposal)
        self.writes += 1
        return result, CommitTs(0)


class World:
    def __init__(self, folder: Path) -> None:
        self.now_us = START_US
        self.database = Database()
        self.file = folder / "data.key"
        self.folder = folder / "data"

    def issuer(self) -> OwnIssuer:
        """Return the issuer as a daemon finds it that starts now."""
        options = IssuerOptions(URL, 3600, 3.0, 4096)
        sealer = SealKey(self.file, self.folder)
        made = OwnIssuer(self.database, sealer, options, lambda: self.now_us, os.urandom)
        made.load()
        made.enabled = True
        return made


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def names(issuer: OwnIssuer) -> list[str]:
    return [key["kid"] for key in issuer.jwks()["keys"]]


def verified(issuer: OwnIssuer, token: str) -> dict[str, Any]:
    """Return what a token claims, as a library of others sees it, whatever its times."""
    key = jwt.PyJWKSet.from_dict(issuer.jwks())[jwt.get_unverified_header(token)["kid"]]
    options: Any = {"verify_exp": False, "verify_iat": False}
    claims: dict[str, Any] = jwt.decode(token, key.key, ["ES256"], options, audience=URL, issuer=URL)
    return claims


async def test_a_key_is_made_once_and_found_again(world: World) -> None:
    issuer = world.issuer()
    assert names(issuer) == []
    assert not world.file.exists()
    one, two = await issuer.sign({"sub": "a"}, 60), await issuer.sign({"sub": "b"}, 60)
    assert world.database.writes == 1
    again = world.issuer()
    assert names(again) == names(issuer)
    assert [verified(again, token)["sub"] for token in (one, two)] == ["a", "b"]
    assert verified(again, await again.sign({"sub": "c"}, 60))["jti"] != verified(again, one)["jti"]
    assert world.database.writes == 1


async def test_an_old_key_is_shown_as_long_as_what_it_has_signed_may_live(world: World) -> None:
    issuer = world.issuer()
    token = await issuer.sign({"sub": "a"}, 3600)
    first = names(issuer)[0]
    second = await issuer.rotate(revoke=False)
    world.now_us += HOUR_US
    assert names(issuer) == names(world.issuer()) == [second, first]
    assert verified(issuer, token)["sub"] == "a"
    world.now_us += 3_000_000  # the leeway
    assert names(issuer) == names(world.issuer()) == [second]
    assert len(issuer.key_set().keys) == 1
    third = await issuer.rotate(revoke=False)
    assert names(issuer) == [third, second]


async def test_keys_that_are_taken_back_are_another_provider(world: World) -> None:
    issuer, told = world.issuer(), []
    await issuer.sign({"sub": "a"}, 60)
    before = issuer.provider
    issuer.changed = lambda: told.append(names(issuer))
    await issuer.rotate(revoke=False)
    assert (issuer.provider, told) == (before, [])
    new = await issuer.rotate(revoke=True)
    assert issuer.provider != before
    assert told == [[new]]


async def test_a_key_that_cannot_be_opened_is_told_and_a_new_one_helps(world: World) -> None:
    await world.issuer().sign({"sub": "a"}, 60)
    world.file.unlink()
    issuer = world.issuer()
    with pytest.raises(InternalError, match="there is no key file"):
        await issuer.sign({"sub": "a"}, 60)
    await issuer.rotate(revoke=False)
    assert verified(issuer, await issuer.sign({"sub": "a"}, 60))["sub"] == "a"


async def test_without_accounts_nothing_is_signed(world: World) -> None:
    issuer = world.issuer()
    issuer.enabled = False
    with pytest.raises(RequestError, match="has no accounts"):
        await issuer.sign({"sub": "a"}, 60)
    assert world.database.writes == 0


@pytest.mark.parametrize("url", ["https://a.example/", "http://localhost:4510", "https://a.example:8443/db"])
def test_an_address_names_the_issuer(url: str) -> None:
    assert checked_issuer(url) == url.rstrip("/")


@pytest.mark.parametrize(
    "url", ["", "a.example", "https://", "https://u@a.example", "https://ä.example", "https://[x"]
)
def test_what_is_no_address_names_nobody(url: str) -> None:
    with pytest.raises(RequestError, match="public_url"):
        checked_issuer(url)
