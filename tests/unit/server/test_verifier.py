"""The verifier: who a token is from, by the providers that are declared now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from headwater_protocol.manifest import ProviderManifest, canonical_json
from headwater_protocol.values import unpack_value
from headwater_server.identity.refusal import RefusedTokenError
from support import tokens
from support.tokens import verifier

if TYPE_CHECKING:
    from headwater_server.identity.verifier import Verifier

ALL = tokens.ALGORITHMS


def provider(issuer: str = tokens.ISSUER, audience: str = tokens.AUDIENCE, **more: Any) -> ProviderManifest:
    """Return a provider with a key for each algorithm."""
    keys = canonical_json(tokens.key_set(*(tokens.public_jwk(name) for name in (*ALL, "Ed448"))))
    return ProviderManifest("jwt", issuer, audience, keys, **{"algorithms": ALL, **more})


async def refusal(checking: Verifier, token: str) -> str:
    with pytest.raises(RefusedTokenError) as caught:
        await checking.verify(token)
    return caught.value.reason


@pytest.mark.parametrize("algorithm", ALL)
async def test_a_good_token_says_who_it_is_from(algorithm: str) -> None:
    verified = await verifier(provider()).verify(tokens.token(algorithm))
    assert verified.token_identifier == "https://id.example|ada"
    assert verified.expires_at_s == tokens.NOW_S + 603
    assert unpack_value(verified.identity) == {
        "tokenIdentifier": "https://id.example|ada",
        "issuer": "https://id.example",
        "subject": "ada",
        "claims": {"iss": "https://id.example", "aud": "app", "sub": "ada"},
    }


async def test_a_refreshed_token_gives_the_same_bytes_and_another_claim_others() -> None:
    checking = verifier(provider())
    own = {"name": "Ada", "email": "ada@example.com", "roles": ["admin"], "org": {"id": 5, "a": None}}
    first = await checking.verify(tokens.token(**own, jti="1", auth_time=1, at_hash="x"))
    again = await checking.verify(
        tokens.token(**dict(reversed(own.items())), jti="2", exp=int(tokens.NOW_S) + 900, nbf=1, nonce="n")
    )
    assert first.identity == again.identity
    told = unpack_value(first.identity)
    assert (told["name"], told["email"]) == ("Ada", "ada@example.com")
    assert told["claims"]["roles"] == ["admin"]
    other = await checking.verify(tokens.token(**{**own, "roles": []}))
    assert other.identity != first.identity
    assert other.token_identifier == first.token_identifier


async def test_claims_cannot_pose_as_what_we_say() -> None:
    forged = tokens.token(tokenIdentifier="https://id.example|eve", subject="eve", issuer="x", name=["n"])
    told = unpack_value((await verifier(provider()).verify(forged)).identity)
    assert (told["tokenIdentifier"], told["subject"], told["issuer"]) == (
        "https://id.example|ada",
        "ada",
        "https://id.example",
    )
    assert "name" not in told


async def test_the_provider_is_chosen_by_issuer_and_audience() -> None:
    checking = verifier(
        provider(audience="a"), provider(audience="b", algorithms=("RS256",)), provider("other", "")
    )
    assert await checking.verify(tokens.token(aud=["x", "a"]))
    assert (await checking.verify(tokens.token(iss="other", aud=None))).token_identifier == "other|ada"
    assert "aud: expected 'a' or 'b', got 'c'" in await refusal(checking, tokens.token(aud="c"))
    assert "alg: 'ES256' is none of" in await refusal(checking, tokens.token(aud="b"))


async def test_other_providers_count_from_the_moment_they_are_used() -> None:
    checking = verifier()
    assert "declares no provider" in await refusal(checking, tokens.token())
    checking.use([provider()])
    assert await checking.verify(tokens.token())
    checking.use([provider("other")])
    assert "is the issuer of no provider" in await refusal(checking, tokens.token())
