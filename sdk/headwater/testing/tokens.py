"""Tokens of accounts in a test: signed and checked by what does it in the daemon, with a key in memory."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from headwater_protocol.errors import RequestError
from headwater_server.identity.claims import check_claims, identity_without_token, provider_of
from headwater_server.identity.own_issuer import IssuerOptions, OwnIssuer
from headwater_server.identity.refusal import RefusedTokenError
from headwater_server.identity.tokens import take_apart
from headwater_storage.proposal import CommitTs

from headwater.identity import Identity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from headwater_protocol.manifest import ProviderManifest
    from headwater_storage.memory_engine import MemoryEngine
    from headwater_storage.transaction import Transaction

_T = TypeVar("_T")

_OPTIONS = IssuerOptions(
    issuer="http://localhost:4510", lifetime_max_s=86_400, leeway_s=0, token_bytes_max=16 * 1024
)


class _Unsealed:
    """Seals nothing: what is kept in memory is in no file."""

    def seal(self, name: str, text: str, random_bytes: Callable[[int], bytes]) -> bytes:
        return text.encode()

    def unseal(self, name: str, sealed: bytes) -> str:
        return sealed.decode()


class _Database:
    """The database of a test, as the issuer needs it."""

    def __init__(self, engine: MemoryEngine, published: Callable[[], None]) -> None:
        self._engine = engine
        self._published = published

    @contextmanager
    def begin(self, *, writable: bool = True) -> Iterator[Transaction]:
        with self._engine.begin(writable=writable) as transaction:
            yield transaction

    async def transact(self, function: Callable[[Transaction], _T]) -> tuple[_T, CommitTs]:
        with self._engine.begin() as transaction:
            result = function(transaction)
            proposal = transaction.proposal()
        self._engine.commit(proposal)
        self._published()
        return result, CommitTs(0)


class MemoryIssuer:
    """Signs tokens, and says whose they are.

    Args:
        engine: The database.
        published: Called after a commit.
        random_bytes: The source of all chance.
        providers: Of the bundle.
    """

    def __init__(
        self,
        engine: MemoryEngine,
        published: Callable[[], None],
        random_bytes: Callable[[int], bytes],
        providers: Sequence[ProviderManifest],
    ) -> None:
        self._now_us = engine.next_us
        self._issuer = OwnIssuer(
            _Database(engine, published), _Unsealed(), _OPTIONS, engine.next_us, random_bytes
        )
        self._issuer.enabled = any(provider.kind == "deployment" for provider in providers)

    async def sign(self, claims: Mapping[str, Any], lifetime_s: int) -> str:
        """Return a token."""
        return await self._issuer.sign(claims, lifetime_s)

    def identity_without_session(self, subject: str) -> Identity:
        """Return who has an account, as the holder of a key who acts as them."""
        encoded, _ = identity_without_token({"sub": subject}, [self._issuer.provider])
        return msgspec.msgpack.decode(encoded, type=Identity)

    def identity_of(self, token: str) -> Identity:
        """Return who a token is from.

        Raises:
            RequestError: `unauthenticated`.
        """
        try:
            signed = take_apart(token, _OPTIONS.token_bytes_max)
            provider = provider_of(signed.claims, [self._issuer.provider])
            verified = check_claims(signed.claims, provider, self._now_us() / 1e6, 0)
            self._issuer.key_set().check_signature(signed)
        except RefusedTokenError as refusal:
            raise RequestError(f"the token was refused: {refusal.reason}", code="unauthenticated") from None
        return msgspec.msgpack.decode(verified.identity, type=Identity)
