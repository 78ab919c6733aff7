"""The deployment as an issuer of tokens: its signing keys, and what it signs for its bundle's accounts.

The private halves never leave the daemon: functions hand over what a token is to claim and get the token. They
are stored sealed, as secret environment variables are, and made when something is first signed, as is the library
imported that signs.
"""

from __future__ import annotations

import base64
import json
import logging
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import urlsplit

import msgspec
from headwater_protocol.errors import RequestError
from headwater_protocol.manifest import ProviderManifest
from headwater_storage.catalog import DEPLOYMENT, SIGNING_KEYS_SUFFIX, read_row

from headwater_server.identity.key_sets import KeySet, parse_key_set

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from cryptography.hazmat.primitives.asymmetric import ec
    from headwater_storage.proposal import CommitTs
    from headwater_storage.transaction import Transaction


logger = logging.getLogger("headwater.identity")

_T = TypeVar("_T")

_KEYS_MAX = 8
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256
_SCALAR_BYTES = 40  # 64 bits more than the order has, so that no number is likelier than another
_COORDINATE_BYTES = 32
_RESERVED = frozenset({"iss", "aud", "iat", "nbf", "exp", "jti"})


class Database(Protocol):
    """What this needs of the engine."""

    def begin(self, *, writable: bool = True) -> AbstractContextManager[Transaction]:
        """Open a transaction over the newest state; it is only read from."""

    async def transact(self, function: Callable[[Transaction], _T]) -> tuple[_T, CommitTs]:
        """Run a function in a transaction and commit it, again after a conflict."""


class Sealer(Protocol):
    """Seals what must not be read by whoever has the files; see `SealKey`."""

    def seal(self, name: str, text: str, random_bytes: Callable[[int], bytes]) -> bytes:
        """Return a text sealed."""

    def unseal(self, name: str, sealed: bytes) -> str:
        """Return what was sealed."""


class SigningKey(msgspec.Struct, frozen=True):
    """One key, as stored.

    Attributes:
        key_id: Its name, the thumbprint of RFC 7638.
        x: Of the public half, base64url.
        y: Likewise.
        sealed: The private half.
        made_us: When it was made, µs since 1970.
        until_us: Until then tokens that it has signed may go on; None for the one that signs.
    """

    key_id: str
    x: str
    y: str
    sealed: bytes
    made_us: int
    until_us: int | None = None

    @property
    def jwk(self) -> dict[str, str]:
        """The public half as others are shown it."""
        return {
            "kty": "EC",
            "crv": "P-256",
            "x": self.x,
            "y": self.y,
            "kid": self.key_id,
            "alg": "ES256",
            "use": "sig",
        }


class SigningKeys(msgspec.Struct, frozen=True):
    """All of them, as stored in one row.

    Attributes:
        generation: Rises when keys are taken back, so that nobody is known any more by what they have signed.
        keys: The newest first, which signs.
    """

    generation: int = 0
    keys: list[SigningKey] = []


@dataclass(frozen=True, slots=True)
class IssuerOptions:
    """Who signs, and how much.

    Attributes:
        issuer: Address of the deployment, which its tokens have as `iss` and `aud`.
        lifetime_max_s: A token lives no longer.
        leeway_s: By so much longer it is accepted.
        token_bytes_max: Longer ones would not be accepted.
    """

    issuer: str
    lifetime_max_s: int
    leeway_s: float
    token_bytes_max: int


def checked_issuer(url: str) -> str:
    """Return the address that tokens have as `iss`, without a slash at its end.

    Raises:
        RequestError: It is none.
    """
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("https", "http") and parts.hostname and not parts.username
    except ValueError:
        fits = False
    if not fits or not url.isascii() or any(mark in url for mark in "|?# \\"):
        raise RequestError(
            f"public_url is the address of this server, such as https://data.example.com, not {url[:100]!r}"
        )
    return url.rstrip("/")


class OwnIssuer:
    """Signs tokens, and says with which keys they are verified.

    Args:
        database: Keeps the keys.
        sealer: Seals their private halves.
        options: Name and bounds.
        wall_us: Wall clock, µs since 1970.
        random_bytes: Unpredictable bytes.

    Attributes:
        enabled: Whether the active bundle has accounts; nothing is signed or shown otherwise.
        changed: Called when keys were taken back, once that is published.
    """

    def __init__(
        self,
        database: Database,
        sealer: Sealer,
        options: IssuerOptions,
        wall_us: Callable[[], int],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self.enabled = False
        self.changed: Callable[[], None] = lambda: None
        self.issuer = options.issuer
        self._database = database
        self._sealer = sealer
        self._options = options
        self._wall_us = wall_us
        self._random_bytes = random_bytes
        self._stored = SigningKeys()
        self._private: dict[str, ec.EllipticCurvePrivateKey] = {}
        self._verifying: tuple[list[str], KeySet] = ([], KeySet(()))

    def load(self) -> None:
        """Read the keys that are stored."""
        with self._database.begin(writable=False) as transaction:
            self._stored = _read(transaction)

    @property
    def provider(self) -> ProviderManifest:
        """Itself, as one of those whose tokens are taken."""
        generation = f"generation {self._stored.generation}"
        return ProviderManifest("deployment", self.issuer, self.issuer, generation, ("ES256",))

    def jwks(self) -> dict[str, Any]:
        """Return the public keys that tokens of now may be signed with."""
        return {"keys": [key.jwk for key in self._current()]}

    def key_set(self) -> KeySet:
        """Return the same, ready for use."""
        names = [key.key_id for key in self._current()]
        if names != self._verifying[0]:
            self._verifying = (names, parse_key_set(json.dumps(self.jwks()).encode()))
        return self._verifying[1]

    async def sign(self, claims: Mapping[str, Any], lifetime_s: int) -> str:
        """Return a token.

        Args:
            claims: What it is to say beside issuer, audience and times.
            lifetime_s: Until it ends, from now on.

        Raises:
            RequestError: The bundle has no accounts, or asks for what may not be.
            InternalError: The private key cannot be opened.
        """
        if not self.enabled:
            raise RequestError("the active bundle has no accounts, so nothing is signed for it")
        if _RESERVED & claims.keys():
            raise RequestError(
                f"a token's {', '.join(sorted(_RESERVED & claims.keys()))} are the server's to say"
            )
        if not 1 <= lifetime_s <= self._options.lifetime_max_s:
            raise RequestError(
                f"a token lives from 1 to {self._options.lifetime_max_s} s (signed_token_limit_s), not {lifetime_s}"
            )
        key = await self._signing_key()
        now_s = self._wall_us() // 1_000_000
        told = {
            **claims,
            "iss": self.issuer,
            "aud": self.issuer,
            "iat": now_s,
            "exp": now_s + lifetime_s,
            "jti": _base64url(self._random_bytes(16)),
        }
        token = _signed({"alg": "ES256", "typ": "at+jwt", "kid": key.key_id}, told, self._opened(key))
        if len(token) > self._options.token_bytes_max:
            raise RequestError(
                f"the token would have {len(token)} bytes; at most {self._options.token_bytes_max} are taken"
                " (token_limit_bytes)"
            )
        return token

    async def rotate(self, *, revoke: bool) -> str:
        """Sign with a new key from now on, and return its name.

        Args:
            revoke: Take the old ones back: what they have signed counts no more, and who is known by it is asked for
                another token within 5 s. Otherwise it counts until it ends.

        Raises:
            RequestError: There are too many that still count, or the new one cannot be sealed.
        """
        new, now_us = self._made(), self._wall_us()
        until_us = now_us + round((self._options.lifetime_max_s + self._options.leeway_s) * 1e6)

        def put(transaction: Transaction) -> SigningKeys:
            stored = _read(transaction)
            old = [] if revoke else [_ending(key, until_us) for key in stored.keys]
            kept = [key for key in old if key.until_us is None or key.until_us > now_us]
            if len(kept) >= _KEYS_MAX:
                raise RequestError(
                    f"there are {len(kept)} keys whose tokens may still go on; wait for an hour, or take them back"
                )
            return _write(transaction, SigningKeys(stored.generation + revoke, [new, *kept]))

        self._stored, _ = await self._database.transact(put)
        self._private = {}
        logger.info("signing_key_rotated", extra={"fields": {"key_id": new.key_id, "revoked": revoke}})
        if revoke:
            self.changed()
        return new.key_id

    # ------------------------------------------------------------------ keys

    def _current(self) -> list[SigningKey]:
        now_us = self._wall_us()
        return [key for key in self._stored.keys if key.until_us is None or key.until_us > now_us]

    async def _signing_key(self) -> SigningKey:
        if not self._stored.keys:
            new = self._made()

            def put(transaction: Transaction) -> SigningKeys:
                stored = _read(transaction)
                if stored.keys:  # somebody else was first
                    return stored
                return _write(transaction, SigningKeys(stored.generation, [new]))

            self._stored, _ = await self._database.transact(put)
            logger.info("signing_key_made", extra={"fields": {"key_id": self._stored.keys[0].key_id}})
        return self._stored.keys[0]

    def _made(self) -> SigningKey:
        """Return a new key, its private half sealed."""
        from cryptography.hazmat.primitives.asymmetric import ec

        scalar = int.from_bytes(self._random_bytes(_SCALAR_BYTES)) % (_ORDER - 1) + 1
        public = ec.derive_private_key(scalar, ec.SECP256R1()).public_key().public_numbers()
        x, y = (_base64url(number.to_bytes(_COORDINATE_BYTES)) for number in (public.x, public.y))
        key_id = _base64url(sha256(_json({"crv": "P-256", "kty": "EC", "x": x, "y": y})).digest())
        sealed = self._sealer.seal(_sealed_name(key_id), f"{scalar:064x}", self._random_bytes)
        return SigningKey(key_id, x, y, sealed, self._wall_us())

    def _opened(self, key: SigningKey) -> ec.EllipticCurvePrivateKey:
        from cryptography.hazmat.primitives.asymmetric import ec

        private = self._private.get(key.key_id)
        if private is None:
            scalar = int(self._sealer.unseal(_sealed_name(key.key_id), key.sealed), 16)
            private = self._private[key.key_id] = ec.derive_private_key(scalar, ec.SECP256R1())
        return private


def _read(transaction: Transaction) -> SigningKeys:
    return read_row(transaction, DEPLOYMENT, SIGNING_KEYS_SUFFIX, SigningKeys) or SigningKeys()


def _write(transaction: Transaction, keys: SigningKeys) -> SigningKeys:
    transaction.put_row(DEPLOYMENT, SIGNING_KEYS_SUFFIX, msgspec.msgpack.encode(keys))
    return keys


def _ending(key: SigningKey, until_us: int) -> SigningKey:
    return key if key.until_us is not None else msgspec.structs.replace(key, until_us=until_us)


def _sealed_name(key_id: str) -> str:
    """Return what a private half is bound to; no environment variable has such a name."""
    return f"signing-key:{key_id}"


def _signed(header: dict[str, str], claims: dict[str, Any], key: ec.EllipticCurvePrivateKey) -> str:
    """Return a JWT; the signature follows from key and content (RFC 6979), so no bad chance gives the key away."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
    from cryptography.hazmat.primitives.hashes import SHA256

    message = f"{_base64url(_json(header))}.{_base64url(_json(claims))}"
    encoded = key.sign(message.encode(), ec.ECDSA(SHA256(), deterministic_signing=True))
    signature = b"".join(number.to_bytes(_COORDINATE_BYTES) for number in decode_dss_signature(encoded))
    return f"{message}.{_base64url(signature)}"


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
