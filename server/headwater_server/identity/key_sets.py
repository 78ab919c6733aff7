"""A provider's public keys, from a JSON Web Key Set, and whether one of them signed a token.

Pure. A key is used for what its type is made for and nothing else, whatever a token says: that is
what keeps a public key from being taken for a shared secret. The signatures themselves are checked by PyJWT, which
is imported with the first key: what it needs takes megabytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from headwater.refusals import invalid_bundle

from headwater_server.identity.refusal import RefusedTokenError, shown
from headwater_server.identity.tokens import decode_base64url, parse_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headwater_protocol.manifest import ProviderManifest
    from jwt.algorithms import Algorithm

    from headwater_server.identity.tokens import SignedToken

RSA_BITS_MIN = 2048
RSA_BITS_MAX = 8192
KEYS_MAX = 64

_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_FITTING = {
    ("RSA", None): _RSA,
    ("EC", "P-256"): frozenset({"ES256"}),
    ("EC", "P-384"): frozenset({"ES384"}),
    ("EC", "P-521"): frozenset({"ES512"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA"}),
    ("OKP", "Ed448"): frozenset({"EdDSA"}),
}
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_NUMBERS = {"RSA": ("n", "e"), "EC": ("x", "y"), "OKP": ("x",)}
_KEY_BYTES_MAX = RSA_BITS_MAX // 8


@dataclass(frozen=True, slots=True)
class PublicKey:
    """One key.

    Attributes:
        key_id: Its name; None if it has none.
        algorithms: What it may be used with.
        key: For PyJWT.
    """

    key_id: str | None
    algorithms: frozenset[str]
    key: Any


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys of one provider.

    Attributes:
        keys: Those that can be used.
        unusable: Why others cannot, for the developer.
    """

    keys: tuple[PublicKey, ...]
    unusable: tuple[str, ...] = ()

    def fitting(self, token: SignedToken) -> list[PublicKey]:
        """Return the keys that may have signed a token: of its key's name, and for its algorithm.

        A token that names no key is only matched with the one key there is for its algorithm, so that nobody
        makes us try them all.
        """
        for_algorithm = [key for key in self.keys if token.algorithm in key.algorithms]
        if token.key_id is None:
            return for_algorithm if len(for_algorithm) == 1 else []
        return [key for key in for_algorithm if key.key_id == token.key_id]

    def check_signature(self, token: SignedToken) -> None:
        """Return if one of the keys signed the token.

        Raises:
            RefusedTokenError: None did.
        """
        fitting = self.fitting(token)
        if not fitting:
            raise RefusedTokenError(self._why_none_fits(token))
        algorithm = _algorithms()[token.algorithm]
        if not any(algorithm.verify(token.signed, key.key, token.signature) for key in fitting):
            raise RefusedTokenError(f"its signature is not that of the key {_name(fitting[0].key_id)}")

    def _why_none_fits(self, token: SignedToken) -> str:
        skipped = f"; not used: {'; '.join(self.unusable)}" if self.unusable else ""
        if token.key_id is None:
            return f"header: it names no key (kid), and the provider has not exactly one for {token.algorithm}{skipped}"
        named = [key for key in self.keys if key.key_id == token.key_id]
        if named:
            return f"header: alg: the key {_name(token.key_id)} is none for {token.algorithm}"
        known = ", ".join(_name(key.key_id) for key in self.keys[:8])
        return (
            f"header: kid: the provider has no key {_name(token.key_id)}; it has {known or 'none'}{skipped}"
        )


def parse_key_set(data: bytes) -> KeySet:
    """Return the keys of a JSON Web Key Set that can be used.

    Raises:
        ValueError: It is no such set, or has too many keys.
    """
    parsed = parse_json(data)
    listed = parsed.get("keys") if isinstance(parsed, dict) else None
    if not isinstance(listed, list):
        raise ValueError('it is no key set: expected {"keys": [...]}')
    if len(listed) > KEYS_MAX:
        raise ValueError(f"it has {len(listed)} keys; at most {KEYS_MAX} are taken")
    keys, unusable = list[PublicKey](), list[str]()
    for place, item in enumerate(listed):
        try:
            keys.append(_parse_key(item))
        except ValueError as error:
            key_id = item.get("kid") if isinstance(item, dict) else None
            unusable.append(f"key {_name(key_id) if isinstance(key_id, str) else place}: {error}")
    return KeySet(tuple(keys), tuple(unusable))


def check_keys(providers: Iterable[ProviderManifest]) -> None:
    """Return if of each declared key set all keys can be used, and one for an algorithm that its provider allows.

    Raises:
        RequestError: `invalid_bundle`.
    """
    for provider in providers:
        if not provider.keys.startswith("{"):
            continue
        where = f"jwt_provider(issuer={provider.issuer!r}): jwks"
        try:
            found = parse_key_set(provider.keys.encode())
        except ValueError as error:
            raise invalid_bundle(f"{where}: {error}") from None
        if found.unusable:
            raise invalid_bundle(f"{where}: {found.unusable[0]}")
        if not any(key.algorithms & set(provider.algorithms) for key in found.keys):
            raise invalid_bundle(f"{where}: no key is for {', '.join(provider.algorithms)}")


def _parse_key(item: Any) -> PublicKey:
    if not isinstance(item, dict):
        raise ValueError("it is no object")
    kind, key_id, declared = item.get("kty"), item.get("kid"), item.get("alg")
    if not isinstance(kind, str) or kind not in _NUMBERS:
        raise ValueError(f"kty {shown(kind)} is not taken")
    if _PRIVATE & item.keys():
        raise ValueError("it is a private key, and has to be taken for known to others")
    if key_id is not None and not isinstance(key_id, str):
        raise ValueError("its kid is no text")
    if item.get("use", "sig") != "sig":
        raise ValueError(f"it is for {shown(item['use'])}, not for signatures")
    operations = item.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise ValueError("its key_ops lack verify")
    curve = None if kind == "RSA" else str(item.get("crv"))
    algorithms = _FITTING.get((kind, curve), frozenset())
    if declared is not None:
        algorithms = frozenset(name for name in algorithms if name == declared)
    if not algorithms:
        raise ValueError(f"its curve or alg is not taken: {shown(item.get('crv'))}, {shown(declared)}")
    return PublicKey(key_id, algorithms, _key_of(kind, item, next(iter(algorithms))))


@cache
def _algorithms() -> dict[str, Algorithm]:
    from jwt.algorithms import get_default_algorithms

    return get_default_algorithms()


def _key_of(kind: str, item: dict[str, Any], algorithm: str) -> Any:
    for name in _NUMBERS[kind]:
        number = item.get(name)
        if not isinstance(number, str) or len(decode_base64url(number)) > _KEY_BYTES_MAX:
            raise ValueError(f"its {name} is no number of a key")
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from jwt.exceptions import PyJWTError

    try:
        key = _algorithms()[algorithm].from_jwk(
            {name: item[name] for name in ("kty", "crv", *_NUMBERS[kind]) if name in item}
        )
    except (PyJWTError, ValueError) as error:
        raise ValueError(f"it is no key: {error}") from None
    if isinstance(key, RSAPublicKey):
        if not RSA_BITS_MIN <= key.key_size <= RSA_BITS_MAX:
            raise ValueError(f"it has {key.key_size} bits; {RSA_BITS_MIN} to {RSA_BITS_MAX} are taken")
        exponent = key.public_numbers().e
        if exponent < 3 or exponent.bit_length() > 33:
            raise ValueError("its exponent is not taken")
    return key


def _name(key_id: str | None) -> str:
    return "without a name" if key_id is None else shown(key_id)
