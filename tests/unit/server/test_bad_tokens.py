"""Bad tokens: each is refused, and the developer is told what it is refused for.

The provider takes every algorithm there is, so that nothing is refused for its algorithm alone unless
that is what is tried.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from headwater_protocol.manifest import ProviderManifest, canonical_json
from headwater_server.identity.refusal import RefusedTokenError
from headwater_server.identity.tokens import decode_base64url
from support.tokens import (
    ALGORITHMS as ALL,
)
from support.tokens import (
    AUDIENCE,
    ISSUER,
    NOW_S,
    OPTIONS,
    base64url,
    claims,
    header,
    key_set,
    private_key,
    public_jwk,
    signed,
    token,
    verifier,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater_server.identity.verifier import Verifier

LEEWAY_S = 3
SIZE_MAX = OPTIONS.token_bytes_max


def provider_keys() -> dict[str, Any]:
    """Return the keys of the provider: good ones, and ones that no token may be signed with."""
    return key_set(
        *(public_jwk(name) for name in ALL),
        public_jwk("RS256", 7, alg="RS256"),
        public_jwk("ES256", 7, use="sig", key_ops=["verify"]),
        public_jwk("RS256", 1, kid="encrypts", use="enc"),
        public_jwk("ES256", 1, kid="signs", key_ops=["sign"]),
        public_jwk("RS1024", kid="short"),
        {"kty": "oct", "kid": "secret", "k": base64url(b"s" * 32)},
        {**public_jwk("ES256", 1), "kid": "leaked", "d": base64url(b"d" * 32)},
        {**public_jwk("EdDSA", 1), "kid": "declared", "alg": "ES256"},
    )


def pem(algorithm: str) -> bytes:
    """Return a public key as text, the usual secret of a token that confuses algorithms."""
    return (
        private_key(algorithm)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )  # type: ignore[no-any-return]


def hmac(secret: bytes, algorithm: str = "HS256", **head: Any) -> str:
    """Return a token signed with a secret."""
    message = f"{base64url(json.dumps(header(algorithm, **head)).encode())}.{base64url(json.dumps(claims()).encode())}"
    hashed = jwt.algorithms.HMACAlgorithm(
        getattr(jwt.algorithms.HMACAlgorithm, algorithm.replace("HS", "SHA"))
    )
    return f"{message}.{base64url(hashed.sign(message.encode(), secret))}"


def resigned(good: str, signature: bytes) -> str:
    """Return a token with another signature."""
    return f"{good.rpartition('.')[0]}.{base64url(signature)}"


def signature_of(good: str) -> bytes:
    return decode_base64url(good.rpartition(".")[2])


def flipped(good: str, place: int) -> str:
    raw = bytearray(signature_of(good))
    raw[place] ^= 1
    return resigned(good, bytes(raw))


def der(good: str) -> str:
    raw = signature_of(good)
    half = len(raw) // 2
    return resigned(good, encode_dss_signature(int.from_bytes(raw[:half]), int.from_bytes(raw[half:])))


def with_payload(payload: str | bytes) -> str:
    """Return a token whose payload is any bytes, rightly signed."""
    return signed(json.dumps(header("ES256")), payload, "ES256", private_key("ES256"))


def with_header(text: str | bytes) -> str:
    """Return a token whose header is any bytes, rightly signed."""
    return signed(text, json.dumps(claims()), "ES256", private_key("ES256"))


def claiming(fragment: str) -> str:
    """Return a token whose claims are good, with a piece of JSON behind them."""
    return with_payload(json.dumps(claims())[:-1] + f", {fragment}}}")


def heading(fragment: str) -> str:
    """Return a token whose header is good, with a piece of JSON behind it."""
    return with_header(json.dumps(header("ES256"))[:-1] + f", {fragment}}}")


def replaced(good: str, number: int, change: Callable[[str], str]) -> str:
    """Return a token of which one part is changed after it was signed."""
    parts = good.split(".")
    parts[number] = change(parts[number])
    return ".".join(parts)


def unsigned(alg: str, signature: str = "") -> str:
    parts = (json.dumps({"alg": alg, "typ": "JWT"}), json.dumps(claims()))
    return ".".join(base64url(part.encode()) for part in parts) + f".{signature}"


def under(kid: str, algorithm: str, number: int = 0, key: str = "") -> str:
    """Return a token that names a key, signed with one of that or another kind."""
    head = json.dumps(header(algorithm, kid=kid))
    return signed(head, json.dumps(claims()), algorithm, private_key(key or algorithm, number))


def psychic(size: int) -> str:
    return resigned(token("ES256"), bytes(size))


def as_other(name: str, key: str, signs: str) -> str:
    """Return a token that says it was signed one way, and was another."""
    message = token(name, head={"kid": f"{key}-0"}).rpartition(".")[0]
    return f"{message}.{base64url(jwt.algorithms.get_default_algorithms()[signs].sign(message.encode(), private_key(key)))}"


NOT_SIGNATURE = "its signature is not that of the key"
ALG = "header: alg: .* is none of those of the provider"
KID = "header: kid: the provider has no key"


@dataclass
class Bad:
    """A way for a token to be bad.

    Attributes:
        make: Makes the token.
        reason: What the developer is told, a pattern for its beginning.
        options: Of the provider.
    """

    make: Callable[[], str]
    reason: str
    options: dict[str, Any] = field(default_factory=dict)


def alg(name: Any) -> Callable[[], str]:
    return lambda: with_header(json.dumps({**header("ES256"), "alg": name}))


def head(**more: Any) -> Callable[[], str]:
    return lambda: token(head=more)


def says(**more: Any) -> Callable[[], str]:
    return lambda: token(**more)


FORM = {
    "empty": Bad(lambda: "", "it is empty"),
    "a word": Bad(lambda: "token", "it is no signed JWT: expected three parts .*, got 1"),
    "two parts": Bad(lambda: token().rpartition(".")[0], "it is no signed JWT: .*, got 2"),
    "four parts": Bad(lambda: token() + ".x", "it is no signed JWT: .*, got 4"),
    "five parts": Bad(lambda: token() + ".x.y", "it is encrypted"),
    "six parts": Bad(lambda: token() + ".x.y.z", "it is no signed JWT: .*, got 6"),
    "only dots": Bad(lambda: "..", "header: it is not JSON"),
    "many dots": Bad(lambda: "." * 9000, "it is no signed JWT"),
    "a bearer scheme": Bad(lambda: "Bearer " + token(), "header: it has other characters"),
    "space before": Bad(lambda: " " + token(), "header: it has other characters"),
    "line end behind": Bad(lambda: token() + "\n", "signature: it has other characters"),
    "line end inside": Bad(lambda: token().replace(".", "\n."), "header: it has other characters"),
    "zero byte behind": Bad(lambda: token() + "\0", "signature: it has other characters"),
    "letters of another script": Bad(lambda: "ａ" + token(), "header: it has other characters"),
    "a lone surrogate": Bad(lambda: "\ud800" + token(), "header: it has other characters"),
    "JSON serialization": Bad(
        lambda: json.dumps({"payload": "e30", "signatures": [{"protected": "e30", "signature": ""}]}),
        "it is no signed JWT",
    ),
    "padding in the header": Bad(lambda: replaced(token(), 0, lambda part: part + "="), "header: it has other"),
    "padding in the payload": Bad(lambda: replaced(token(), 1, lambda part: part + "=="), "payload: it has other"),
    "padding in the signature": Bad(lambda: token() + "==", "signature: it has other"),
    "the other base64": Bad(lambda: replaced(token(), 2, lambda part: "+" + part[1:]), "signature: it has other"),
    "a slash": Bad(lambda: replaced(token(), 2, lambda part: "/" + part[1:]), "signature: it has other"),
    "a letter too many": Bad(lambda: token("EdDSA") + "AAA", "signature: its length is none|signature: its last"),
    "bits of nothing": Bad(
        lambda: replaced(token(), 2, lambda part: part[:-1] + chr(ord(part[-1]) + 1)), "signature: its last"
    ),
    "too long": Bad(lambda: token(more="x" * SIZE_MAX), "it is longer than 16384 bytes"),
    "far too long": Bad(lambda: "a" * 50_000_000, "it is longer than 16384 bytes"),
}  # fmt: skip

HEADER = {
    "header is no JSON": Bad(lambda: with_header("alg=ES256"), "header: it is not JSON"),
    "header is nothing": Bad(lambda: with_header(""), "header: it is not JSON"),
    "header is a list": Bad(lambda: with_header('["ES256"]'), "header: expected a JSON object"),
    "header is text": Bad(lambda: with_header('"ES256"'), "header: expected a JSON object"),
    "header is null": Bad(lambda: with_header("null"), "header: expected a JSON object"),
    "header with more behind": Bad(lambda: with_header(json.dumps(header("ES256")) + "{}"), "header: it is not JSON"),
    "header is no UTF-8": Bad(lambda: with_header(b'{"alg":"ES256\xff"}'), "header: it is not UTF-8"),
    "header in UTF-16": Bad(lambda: with_header(json.dumps(header("ES256")).encode("utf-16")), "header: it is not UTF"),
    "header with a byte order mark": Bad(
        lambda: with_header(b"\xef\xbb\xbf" + json.dumps(header("ES256")).encode()), "header: it is not JSON"
    ),
    "alg twice": Bad(lambda: heading('"alg": "none"'), "header: it has 'alg' twice"),
    "alg twice, once escaped": Bad(lambda: heading('"\\u0061lg": "none"'), "header: it has 'alg' twice"),
    "kid twice": Bad(lambda: heading('"kid": "x"'), "header: it has 'kid' twice"),
    "header too deep": Bad(lambda: heading('"x": ' + "[" * 20 + "]" * 20), "header: it has more than 16 lists"),
    "header far too deep": Bad(lambda: heading('"x": ' + "[" * 5000 + "]" * 5000), "header: it has more than 16"),
    "NaN in the header": Bad(lambda: heading('"x": NaN'), "header: NaN is no number"),
    "large integer in the header": Bad(lambda: heading('"x": 9223372036854775808'), "header: the number .* 64 bits"),
    "alg missing": Bad(lambda: with_header('{"typ": "JWT"}'), "header: alg: expected text, got None"),
    "alg null": Bad(alg(None), "header: alg: expected text, got None"),
    "alg a number": Bad(alg(256), "header: alg: expected text, got 256"),
    "alg a list": Bad(alg(["ES256"]), "header: alg: expected text"),
    "alg empty": Bad(alg(""), ALG),
    "alg in small letters": Bad(alg("es256"), ALG),
    "alg with a space": Bad(alg("ES256 "), ALG),
    "alg with a zero byte": Bad(alg("ES256\0"), ALG),
    "alg ES256K": Bad(alg("ES256K"), ALG),
    "alg ES521": Bad(alg("ES521"), ALG),
    "alg RSA-OAEP": Bad(alg("RSA-OAEP"), ALG),
    "alg dir": Bad(alg("dir"), ALG),
    "alg that is long": Bad(alg("x" * 5000), r"header: alg: 'x+\.\.\. is none"),
    "none": Bad(lambda: unsigned("none"), "it is not signed"),
    "None": Bad(lambda: unsigned("None"), "it is not signed"),
    "NONE": Bad(lambda: unsigned("NONE"), "it is not signed"),
    "none with a signature": Bad(lambda: unsigned("none", "AAAA"), ALG),
    "nOnE with a signature": Bad(lambda: unsigned("nOnE", "AAAA"), ALG),
    "none with the signature of another": Bad(
        lambda: unsigned("none", token().rpartition(".")[2]), ALG
    ),
    "no signature": Bad(lambda: token().rpartition(".")[0] + ".", "it is not signed"),
    "HS256 by an RSA key": Bad(lambda: hmac(pem("RS256"), kid="RS256-0"), ALG),
    "HS384 by an RSA key": Bad(lambda: hmac(pem("RS256"), "HS384", kid="RS256-0"), ALG),
    "HS512 by an RSA key": Bad(lambda: hmac(pem("RS256"), "HS512", kid="RS256-0"), ALG),
    "HS256 by an EC key": Bad(lambda: hmac(pem("ES256"), kid="ES256-0"), ALG),
    "HS256 by an Ed25519 key": Bad(lambda: hmac(pem("EdDSA"), kid="EdDSA-0"), ALG),
    "HS256 by a key without line end": Bad(lambda: hmac(pem("RS256").rstrip(), kid="RS256-0"), ALG),
    "HS256 by a JWK": Bad(lambda: hmac(json.dumps(public_jwk("RS256")).encode(), kid="RS256-0"), ALG),
    "HS256 by nothing": Bad(lambda: hmac(b""), ALG),
    "HS256 by a secret in the key set": Bad(lambda: hmac(b"s" * 32, kid="secret"), ALG),
    "an allowed algorithm of another provider": Bad(
        lambda: token("RS256"), ALG, {"algorithms": ("ES256", "EdDSA")}
    ),
    "jwk": Bad(
        lambda: token("ES256", 5, head={"jwk": public_jwk("ES256", 5)}), "header: jwk: it brings its own key"
    ),
    "jwk beside a known kid": Bad(head(jwk=public_jwk("ES256")), "header: jwk: it brings its own key"),
    "jku": Bad(head(jku="https://evil.example/keys"), "header: jku: it brings its own key"),
    "jku of the provider": Bad(head(jku=f"{ISSUER}/keys"), "header: jku: it brings its own key"),
    "x5u": Bad(head(x5u="https://evil.example/cert"), "header: x5u: it brings its own key"),
    "x5c": Bad(head(x5c=["MIIB"]), "header: x5c: it brings its own key"),
    "x5c empty": Bad(head(x5c=[]), "header: x5c: it brings its own key"),
    "crit": Bad(head(crit=["exp"], exp=1), "header: crit: it asks for extensions"),
    "crit empty": Bad(head(crit=[]), "header: crit: it asks for extensions"),
    "crit null": Bad(lambda: heading('"crit": null'), "header: crit: it asks for extensions"),
    "crit b64": Bad(head(crit=["b64"], b64=False), "header: crit: it asks for extensions"),
    "b64 false": Bad(head(b64=False), "header: b64"),
    "b64 true": Bad(head(b64=True), "header: b64"),
    "zip": Bad(head(zip="DEF"), "header: zip"),
    "enc": Bad(head(enc="A128GCM"), "header: enc"),
    "typ of a sign-out": Bad(head(typ="logout+jwt"), "header: typ: expected JWT or at.jwt"),
    "typ of a proof": Bad(head(typ="dpop+jwt"), "header: typ: expected JWT or at.jwt"),
    "typ of an event": Bad(head(typ="secevent+jwt"), "header: typ: expected JWT or at.jwt"),
    "typ JWE": Bad(head(typ="JWE"), "header: typ: expected JWT or at.jwt"),
    "typ a number": Bad(head(typ=1), "header: typ: expected JWT or at.jwt"),
    "typ null": Bad(
        lambda: with_header('{"alg": "ES256", "kid": "ES256-0", "typ": null}'), "header: typ: expected JWT"
    ),
    "kid a number": Bad(head(kid=5), "header: kid: expected text"),
    "kid null": Bad(lambda: with_header('{"alg": "ES256", "kid": null}'), "header: kid: expected text"),
    "kid empty": Bad(head(kid=""), "header: kid: expected text"),
    "kid a list": Bad(head(kid=["ES256-0"]), "header: kid: expected text"),
    "kid an object": Bad(head(kid={"$ne": None}), "header: kid: expected text"),
    "kid too long": Bad(head(kid="k" * 257), "header: kid: expected text"),
    "kid a file": Bad(lambda: hmac(b"", kid="/dev/null"), ALG),
    "kid a file, signed": Bad(lambda: under("../../../../dev/null", "ES256"), KID),
    "kid a query": Bad(lambda: under("x' UNION SELECT 'key", "ES256"), KID),
    "kid an address": Bad(lambda: under("https://evil.example/key", "ES256"), KID),
    "kid with a zero byte": Bad(lambda: under("ES256-0\0", "ES256"), KID),
    "kid with a space": Bad(lambda: under("ES256-0 ", "ES256"), KID),
    "kid in small letters": Bad(lambda: under("es256-0", "ES256"), KID),
    "kid with a lone surrogate": Bad(lambda: under("\ud800", "ES256"), KID),
    "kid of nobody": Bad(lambda: under("nobody", "ES256"), f"{KID} 'nobody'; it has 'RS256-0'"),
    "no kid where there are several": Bad(
        lambda: token("ES256", head={"kid": None}), r"header: it names no key \(kid\), and .* not exactly one for ES256"
    ),
}  # fmt: skip

SIGNATURE = {
    **{f"{name} by another key": Bad(lambda name=name: under(f"{name}-0", name, 9), NOT_SIGNATURE) for name in ALL},  # type: ignore[misc]
    **{f"{name}, last bit": Bad(lambda name=name: flipped(token(name), -1), NOT_SIGNATURE) for name in ALL},  # type: ignore[misc]
    "first bit": Bad(lambda: flipped(token(), 0), NOT_SIGNATURE),
    "a byte too few": Bad(lambda: resigned(token(), signature_of(token())[:-1]), NOT_SIGNATURE),
    "a byte too many": Bad(lambda: resigned(token(), signature_of(token()) + b"\0"), NOT_SIGNATURE),
    "RS256, a byte too many": Bad(lambda: resigned(token("RS256"), bytes(257)), NOT_SIGNATURE),
    "EdDSA, a byte too few": Bad(lambda: resigned(token("EdDSA"), bytes(63)), NOT_SIGNATURE),
    "as ASN.1": Bad(lambda: der(token()), NOT_SIGNATURE),
    "zeros": Bad(lambda: psychic(64), NOT_SIGNATURE),
    "one zero": Bad(lambda: psychic(1), NOT_SIGNATURE),
    "ones": Bad(lambda: resigned(token(), b"\xff" * 64), NOT_SIGNATURE),
    "zeros under RS256": Bad(lambda: resigned(token("RS256"), bytes(256)), NOT_SIGNATURE),
    "zeros under EdDSA": Bad(lambda: resigned(token("EdDSA"), bytes(64)), NOT_SIGNATURE),
    "of another token": Bad(lambda: resigned(token(), signature_of(token(sub="eve"))), NOT_SIGNATURE),
    "other claims": Bad(
        lambda: replaced(token(), 1, lambda _: base64url(json.dumps(claims(sub="root")).encode())), NOT_SIGNATURE
    ),
    "another header": Bad(
        lambda: replaced(token(), 0, lambda _: base64url(json.dumps(header("ES256", cty="x")).encode())),
        NOT_SIGNATURE,
    ),
    "RS512 that says RS256": Bad(lambda: as_other("RS256", "RS256", "RS512"), NOT_SIGNATURE),
    "RS256 that says PS256": Bad(lambda: as_other("PS256", "RS256", "RS256"), NOT_SIGNATURE),
    "PS256 that says RS256": Bad(lambda: as_other("RS256", "RS256", "PS256"), NOT_SIGNATURE),
    "ES256 with an RSA key's name": Bad(lambda: under("RS256-0", "ES256"), "header: alg: the key 'RS256-0' is none for"),
    "RS256 with an EC key's name": Bad(lambda: under("ES256-0", "RS256"), "header: alg: the key 'ES256-0' is none for"),
    "ES384 with a P-256 key's name": Bad(lambda: under("ES256-0", "ES384"), "header: alg: the key 'ES256-0' is none"),
    "ES256 with a P-521 key's name": Bad(lambda: under("ES512-0", "ES256"), "header: alg: the key 'ES512-0' is none"),
    "EdDSA with an EC key's name": Bad(lambda: under("ES256-0", "EdDSA"), "header: alg: the key 'ES256-0' is none"),
    "PS256 with a key for RS256": Bad(lambda: under("RS256-7", "PS256", 7), "header: alg: the key 'RS256-7' is none"),
    "a key that encrypts": Bad(lambda: under("encrypts", "RS256", 1), f"{KID} 'encrypts'.*it is for 'enc'"),
    "a key that only signs": Bad(lambda: under("signs", "ES256", 1), f"{KID} 'signs'.*key_ops lack verify"),
    "a short key": Bad(lambda: under("short", "RS256", key="RS1024"), f"{KID} 'short'.*it has 1024 bits"),
    "a private key": Bad(lambda: under("leaked", "ES256", 1), f"{KID} 'leaked'.*it is a private key"),
    "a key of another algorithm": Bad(lambda: under("declared", "EdDSA", 1), f"{KID} 'declared'.*alg is not taken"),
    "a secret's name": Bad(lambda: under("secret", "ES256"), f"{KID} 'secret'.*kty 'oct' is not taken"),
}  # fmt: skip

PAYLOAD = {
    "payload is nothing": Bad(lambda: with_payload(""), "payload: it is not JSON"),
    "payload is text": Bad(lambda: with_payload("ada"), "payload: it is not JSON"),
    "payload is a list": Bad(lambda: with_payload("[1]"), "payload: expected a JSON object"),
    "payload is null": Bad(lambda: with_payload("null"), "payload: expected a JSON object"),
    "payload is another token": Bad(lambda: with_payload(token()), "payload: it is not JSON"),
    "payload with more behind": Bad(lambda: with_payload(json.dumps(claims()) + "1"), "payload: it is not JSON"),
    "payload is no UTF-8": Bad(lambda: with_payload(b'{"sub": "\xc3\x28"}'), "payload: it is not UTF-8"),
    "payload with overlong UTF-8": Bad(lambda: with_payload(b'{"sub": "\xc0\xaf"}'), "payload: it is not UTF-8"),
    "sub twice": Bad(lambda: claiming('"sub": "eve"'), "payload: it has 'sub' twice"),
    "exp twice": Bad(lambda: claiming('"exp": 9999999999'), "payload: it has 'exp' twice"),
    "a claim twice, inside": Bad(lambda: claiming('"org": {"a": 1, "a": 2}'), "payload: it has 'a' twice"),
    "NaN": Bad(lambda: claiming('"x": NaN'), "payload: NaN is no number"),
    "Infinity": Bad(lambda: claiming('"x": Infinity'), "payload: Infinity is no number"),
    "minus Infinity": Bad(lambda: claiming('"x": -Infinity'), "payload: -Infinity is no number"),
    "a number beyond doubles": Bad(lambda: claiming('"x": 1e999'), "payload: the number '1e999' is too large"),
    "an integer beyond 64 bits": Bad(lambda: claiming('"x": 9223372036854775808'), "payload: the number .* 64 bits"),
    "a negative one": Bad(lambda: claiming('"x": -9223372036854775809'), "payload: the number .* 64 bits"),
    "an integer of 9000 digits": Bad(lambda: claiming(f'"x": {"9" * 9000}'), "payload: the number .* 64 bits"),
    "claims too deep": Bad(lambda: claiming('"x": ' + '{"a":' * 20 + "1" + "}" * 20), "payload: it has more than 16"),
    "claims far too deep": Bad(lambda: claiming('"x": ' + "[" * 5500 + "]" * 5500), "payload: it has more than 16"),
    "a lone surrogate in sub": Bad(lambda: token(sub="\ud800"), "payload: expected valid Unicode"),
    "a lone surrogate in a claim's name": Bad(lambda: claiming('"\\udfff": 1'), "payload: expected valid Unicode"),
    "a control character": Bad(lambda: with_payload('{"sub": "a\nb"}'), "payload: it is not JSON"),
}  # fmt: skip

CLAIMS = {
    "iss missing": Bad(says(iss=None), "iss: expected text, got None"),
    "iss a number": Bad(says(iss=1), "iss: expected text, got 1"),
    "iss a list": Bad(says(iss=[ISSUER]), "iss: expected text"),
    "iss of a stranger": Bad(says(iss="https://evil.example"), "iss: 'https://evil.example' is the issuer of no"),
    "iss with a slash": Bad(says(iss=ISSUER + "/"), "iss: .* is the issuer of no provider"),
    "iss over http": Bad(says(iss=ISSUER.replace("https", "http")), "iss: .* is the issuer of no provider"),
    "iss in capitals": Bad(says(iss=ISSUER.upper()), "iss: .* is the issuer of no provider"),
    "iss with more before": Bad(says(iss="x" + ISSUER), "iss: .* is the issuer of no provider"),
    "iss with a space": Bad(says(iss=ISSUER + " "), "iss: .* is the issuer of no provider"),
    "iss with a bar": Bad(says(iss=ISSUER + "|ada"), "iss: .* is the issuer of no provider"),
    "aud missing": Bad(says(aud=None), "aud: expected 'app', got None"),
    "aud null": Bad(lambda: with_payload(json.dumps({**claims(), "aud": None})), "aud: expected text or a list"),
    "aud of another": Bad(says(aud="other"), "aud: expected 'app', got 'other'"),
    "aud longer": Bad(says(aud=AUDIENCE + "s"), "aud: expected 'app', got 'apps'"),
    "aud shorter": Bad(says(aud=AUDIENCE[:-1]), "aud: expected 'app', got 'ap'"),
    "aud in capitals": Bad(says(aud=AUDIENCE.upper()), "aud: expected 'app', got 'APP'"),
    "aud of others": Bad(says(aud=["a", "b"]), r"aud: expected 'app', got \['a', 'b'\]"),
    "aud of nobody": Bad(says(aud=[]), "aud: expected 'app', got"),
    "aud in a list in a list": Bad(says(aud=[[AUDIENCE]]), "aud: expected text or a list of texts"),
    "aud with a number": Bad(says(aud=[AUDIENCE, 5]), "aud: expected text or a list of texts"),
    "aud an object": Bad(says(aud={AUDIENCE: True}), "aud: expected text or a list of texts"),
    "aud true": Bad(says(aud=True), "aud: expected text or a list of texts"),
    "aud of all": Bad(says(aud="*"), r"aud: expected 'app', got '\*'"),
    "exp missing": Bad(says(exp=None), "exp: it has no end"),
    "exp null": Bad(lambda: with_payload(json.dumps({**claims(), "exp": None})), "exp: expected seconds"),
    "exp text": Bad(says(exp=str(int(NOW_S) + 600)), "exp: expected seconds since 1970"),
    "exp true": Bad(says(exp=True), "exp: expected seconds since 1970"),
    "exp a list": Bad(says(exp=[NOW_S + 600]), "exp: expected seconds since 1970"),
    "exp negative": Bad(says(exp=-1), "exp: expected seconds since 1970"),
    "exp beyond all time": Bad(says(exp=1e300), "exp: expected seconds since 1970"),
    "exp in milliseconds": Bad(says(exp=int(NOW_S) * 1000), "exp: expected seconds since 1970"),
    "exp over": Bad(says(exp=int(NOW_S) - 60), "exp: it has ended 60 s ago"),
    "exp over, by the leeway": Bad(says(exp=int(NOW_S) - LEEWAY_S), "exp: it has ended 3 s ago"),
    "exp zero": Bad(says(exp=0), "exp: it has ended"),
    "nbf to come": Bad(says(nbf=int(NOW_S) + 60), "nbf: it holds only in 60 s"),
    "nbf just beyond the leeway": Bad(says(nbf=NOW_S + LEEWAY_S + 0.5), "nbf: it holds only in"),
    "nbf text": Bad(says(nbf="0"), "nbf: expected seconds"),
    "nbf false": Bad(says(nbf=False), "nbf: expected seconds"),
    "nbf null": Bad(lambda: with_payload(json.dumps({**claims(), "nbf": None})), "nbf: expected seconds"),
    "iat to come": Bad(says(iat=int(NOW_S) + 60), "iat: it was made in the future, in 60 s"),
    "iat text": Bad(says(iat="now"), "iat: expected seconds"),
    "iat an object": Bad(says(iat={}), "iat: expected seconds"),
    "sub missing": Bad(says(sub=None), "sub: expected text of 1 to 255 characters, got None"),
    "sub empty": Bad(says(sub=""), "sub: expected text of 1 to 255 characters, got ''"),
    "sub a number": Bad(says(sub=5), "sub: expected text of 1 to 255 characters, got 5"),
    "sub a list": Bad(says(sub=["ada"]), "sub: expected text"),
    "sub true": Bad(says(sub=True), "sub: expected text"),
    "sub too long": Bad(says(sub="a" * 256), "sub: expected text of 1 to 255 characters"),
    "azp a number": Bad(says(azp=5), "azp: expected text, got 5"),
    "azp a list": Bad(says(azp=["web"]), "azp: expected text"),
    "azp of another": Bad(says(azp="evil"), "azp: expected 'a' or 'b', got 'evil'", {"authorized_parties": ("a", "b")}),
    "azp missing": Bad(says(), "azp: expected 'a', got None", {"authorized_parties": ("a",)}),
    "for the holder of a key": Bad(says(cnf={"jkt": "x"}), "cnf: it is for the holder of a key"),
    "of a sign-out": Bad(
        says(events={"http://schemas.openid.net/event/backchannel-logout": {}}), "events: it tells of a sign-out"
    ),
}  # fmt: skip

BAD = {**FORM, **HEADER, **SIGNATURE, **PAYLOAD, **CLAIMS}


def refusing(**more: Any) -> Verifier:
    provider = ProviderManifest(
        "jwt", ISSUER, AUDIENCE, canonical_json(provider_keys()), **{"algorithms": ALL, **more}
    )
    return verifier(provider)


def test_they_are_many() -> None:
    assert len(BAD) == sum(map(len, (FORM, HEADER, SIGNATURE, PAYLOAD, CLAIMS)))
    assert len(BAD) >= 150


@pytest.mark.parametrize("name", BAD)
async def test_it_is_refused_for_what_is_bad_about_it(name: str) -> None:
    bad = BAD[name]
    with pytest.raises(RefusedTokenError, match=f"^{bad.reason}") as caught:
        await refusing(**bad.options).verify(bad.make())
    assert not caught.value.may_pass_later
    assert len(caught.value.reason) < 700
    assert caught.value.reason.isprintable()
    assert caught.value.reason.isascii()


GOOD: dict[str, Callable[[], str]] = {
    **{name: lambda name=name: token(name) for name in ALL},  # type: ignore[misc]
    "of a key that says its algorithm": lambda: under("RS256-7", "RS256", 7),
    "of a key that says its use": lambda: under("ES256-7", "ES256", 7),
    "without typ": head(typ=None),
    "an access token": head(typ="at+jwt"),
    "an access token, written out": head(typ="application/at+JWT"),
    "with a thumbprint and names that nobody knows": head(x5t="AAAA", cat="cl_x", cty="x"),
    "without a kid, where one key fits": lambda: token("ES384", head={"kid": None}),
    "aud in a list": says(aud=["other", AUDIENCE]),
    "azp of the client that got it": says(azp="some-client", aud=[AUDIENCE, "other"]),
    "without iat": says(iat=None),
    "with fractions of a second": says(exp=NOW_S + 0.5, nbf=NOW_S - 0.5, iat=NOW_S - 0.5),
    "just over, within the leeway": says(exp=int(NOW_S) - LEEWAY_S + 1),
    "a clock that is ahead, within the leeway": says(iat=int(NOW_S) + LEEWAY_S, nbf=int(NOW_S) + LEEWAY_S),
    "a subject with bars": says(sub="auth0|5|6"),
    "a subject of 255 letters": says(sub="ä" * 255),
    "the largest and smallest integers": says(a=2**63 - 1, b=-(2**63)),
    "as deep as may be": lambda: claiming('"x": ' + "[" * 15 + "]" * 15),
    "spaces around": lambda: with_payload(f"  {json.dumps(claims(), indent=2)}\n"),
}


@pytest.mark.parametrize("name", GOOD)
async def test_good_ones_are_taken(name: str) -> None:
    assert (await refusing().verify(GOOD[name]())).token_identifier.startswith("https://id.example|")
