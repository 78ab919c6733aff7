"""Providers: what a bundle declares, and what is refused when it is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from headwater.bundle import Bundle
from headwater_protocol.errors import RequestError
from headwater_protocol.manifest import Manifest, ProviderManifest
from support.bundles import imported, write_package

if TYPE_CHECKING:
    from pathlib import Path

KEY = '{"kty": "OKP", "crv": "Ed25519", "x": "AA"}'
DEFAULTS = ("RS256", "ES256", "EdDSA")


def declared(folder: Path, modules: dict[str, str]) -> tuple[ProviderManifest, ...]:
    write_package(folder, modules)
    with imported(folder, "bundle") as package:
        manifest = Bundle.load(package).manifest()
    assert Manifest.from_json(manifest.to_json()) == manifest
    return manifest.providers


def test_providers_of_all_modules_are_declared_in_order(tmp_path: Path) -> None:
    modules = {
        "b": 'oidc_provider(issuer="https://b.example/", audience="app")',
        "auth": f"""
        jwt_provider(issuer="own", jwks={{"keys": [{KEY}]}}, algorithms=["EdDSA", "ES256"])
        jwt_provider(issuer="https://c.example", jwks="https://c.example/keys?v=1", audience="x",
                     authorized_parties=["web", "app"])
        for audience in ("b", "a"):
            oidc_provider(issuer="http://localhost:9000", audience=audience)
        """,
        "nothing": "from . import auth",
    }
    local = ("oidc", "http://localhost:9000")
    keys = '{"keys":[{"crv":"Ed25519","kty":"OKP","x":"AA"}]}'
    assert declared(tmp_path, modules) == (
        ProviderManifest(*local, "a", "", DEFAULTS),
        ProviderManifest(*local, "b", "", DEFAULTS),
        ProviderManifest("oidc", "https://b.example/", "app", "", DEFAULTS),
        ProviderManifest(
            "jwt", "https://c.example", "x", "https://c.example/keys?v=1", DEFAULTS, ("app", "web")
        ),
        ProviderManifest("jwt", "own", "", keys, ("ES256", "EdDSA")),
    )


def test_a_key_set_may_be_json_text(tmp_path: Path) -> None:
    (found,) = declared(tmp_path, {"a": f"jwt_provider(issuer='own', jwks=' {{\"keys\": [{KEY}]}}')"})
    assert found.keys == '{"keys":[{"crv":"Ed25519","kty":"OKP","x":"AA"}]}'


OIDC = 'oidc_provider(issuer="https://a.example", audience="app"'
JWT = 'jwt_provider(issuer="own", jwks="https://a.example/keys"'


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (f"{OIDC}, algorithms=['HS256'])", "'HS256' is none of RS256, .*; with a shared secret, whoever can check"),
        (f"{OIDC}, algorithms=['none'])", "'none' is none of RS256"),
        (f"{OIDC}, algorithms=['RS265'])", "'RS265' is none of RS256"),
        (f"{OIDC}, algorithms=[None])", "None is none of RS256"),
        (f"{OIDC}, algorithms='RS256')", r"algorithms: expected a list such as \[\"RS256\"\], got 'RS256'"),
        (f"{OIDC}, algorithms=[])", "algorithms: expected a list"),
        (f"{OIDC}, authorized_parties='web')", "authorized_parties: expected a list of texts"),
        (f"{OIDC}, authorized_parties=[5])", "authorized_parties: expected text, got 5"),
        (f"{OIDC})\n{OIDC})", "the provider https://a.example for app is declared twice"),
        ('oidc_provider(issuer="http://a.example", audience="a")', "'http://a.example' is not https; http is for"),
        ('oidc_provider(issuer="a.example", audience="a")', "expected an https address, got 'a.example'"),
        ('oidc_provider(issuer="ftp://a.example", audience="a")', "expected an https address"),
        ('oidc_provider(issuer="https://", audience="a")', "expected an https address"),
        ('oidc_provider(issuer="https://me@a.example", audience="a")', "without user name"),
        ('oidc_provider(issuer="https://a.example#x", audience="a")', "without user name"),
        ('oidc_provider(issuer="https://a.example?x=1", audience="a")', r"issuer: there is no `\?` in an issuer"),
        ('oidc_provider(issuer="https://a.example:99999", audience="a")', "is no address"),
        ('oidc_provider(issuer="https://a.example|b", audience="a")', "there may be no `|` in it"),
        ('oidc_provider(issuer="https://a.example", audience="")', "audience: expected text, got ''"),
        ('oidc_provider(issuer="https://a.example", audience=["a"])', r"audience: expected text, got \['a'\]"),
        (f'oidc_provider(issuer="https://a.example/{"x" * 600}", audience="a")', "characters; at most 512 may be"),
        ('jwt_provider(issuer="", jwks="https://a.example")', "issuer: expected text, got ''"),
        ('jwt_provider(issuer="own", jwks="http://a.example/keys")', "is not https"),
        ('jwt_provider(issuer="own", jwks="{")', "jwks: it is no JSON"),
        ('jwt_provider(issuer="own", jwks={"keys": []})', "jwks: expected an https address or a key set"),
        ('jwt_provider(issuer="own", jwks=[])', "jwks: expected an https address or a key set"),
        ('jwt_provider(issuer="own", jwks={"keys": [b""]})', "jwks: it is no JSON"),
        ('jwt_provider(issuer="own", jwks={"keys": [{"kty": "oct", "k": "AA"}]})', "a private or secret key"),
        ('jwt_provider(issuer="own", jwks={"keys": [{"kty": "RSA", "d": "AA"}]})', "a private or secret key"),
        ('jwt_provider(issuer="own", jwks={"keys": [{"x": "a" * 70000}]})', "at most 65536 may be"),
        (f'{JWT})\n{JWT}, audience="a")', "declared with an audience and without one, which takes any"),
        (
            f'{JWT}, audience="a")\njwt_provider(issuer="own", jwks="https://b.example", audience="b")',
            "declared with different keys: an issuer has one set",
        ),
        (f"def f():\n    {OIDC})\nf()", "oidc_provider.* is called at the top level of a module"),
        (f"for n in range(33):\n    {JWT}, audience=str(n))", "33 providers are declared; at most 32 may be"),
    ],
)  # fmt: skip
def test_what_cannot_be_right_is_refused_at_import(tmp_path: Path, source: str, reason: str) -> None:
    write_package(tmp_path, {"auth": source})
    with pytest.raises(RequestError, match=reason) as caught, imported(tmp_path, "bundle") as package:
        Bundle.load(package)
    assert caught.value.code == "invalid_bundle"
