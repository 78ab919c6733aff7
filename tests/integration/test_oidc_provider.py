"""Tokens of a real OpenID Connect provider, in sickness and in health: discovery, rotation, outage, odd answers."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from headwater_protocol.manifest import ProviderManifest
from headwater_protocol.values import unpack_value
from headwater_server.identity.fetcher import Fetcher, FetchOptions
from headwater_server.identity.refusal import RefusedTokenError
from headwater_server.identity.verifier import Clocks, Verifier
from headwater_server.observe.metrics import Metrics
from support.oidc.running import RESOURCE, Provider, node_for_provider
from support.tokens import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.xdist_group("oidc")
FETCHES = FetchOptions(limit_s=20, bytes_max=100_000, private_allowed=True)


@pytest.fixture(scope="module")
def node() -> Any:
    return node_for_provider()


@pytest.fixture
def provider(node: Any) -> Iterator[Provider]:
    with Provider(node) as running:
        yield running


class Deployment:
    """A verifier over the real network, whose monotonic clock can be put forward."""

    def __init__(self, provider: Provider, *audiences: str, fetches: FetchOptions = FETCHES) -> None:
        self.ahead_s = 0.0
        clocks = Clocks(time.time, lambda: time.monotonic() + self.ahead_s)
        self.verifier = Verifier(OPTIONS, clocks, Fetcher(fetches).get, Metrics())
        self.verifier.use(
            [
                ProviderManifest("oidc", provider.issuer, audience, "", ("RS256", "ES256"))
                for audience in audiences or (RESOURCE, "web", "phone")
            ]
        )

    async def who(self, token: str) -> str:
        return (await self.verifier.verify(token)).token_identifier

    async def refusal(self, token: str) -> RefusedTokenError:
        with pytest.raises(RefusedTokenError) as caught:
            await self.verifier.verify(token)
        return caught.value


async def test_machines_and_people_are_known_by_all_their_tokens(provider: Provider) -> None:
    deployment = Deployment(provider)
    assert await deployment.who(await provider.machine()) == f"{provider.issuer}|job"
    for client in ("web", "phone"):
        told = await provider.person("ada", client)
        for name in ("id_token", "access_token"):
            assert await deployment.who(told[name]) == f"{provider.issuer}|ada"
    identity = unpack_value((await deployment.verifier.verify(told["id_token"])).identity)
    assert (identity["name"], identity["email"]) == ("Name of ada", "ada@example.com")
    assert identity["claims"]["email_verified"] is True


async def test_refreshed_tokens_of_a_person_give_the_same_identity(provider: Provider) -> None:
    deployment = Deployment(provider)
    first = await provider.person("ada")
    again = await provider.refreshed(first["refresh_token"])
    assert first["access_token"] != again["access_token"]
    for name in ("id_token", "access_token"):
        one, other = [await deployment.verifier.verify(told[name]) for told in (first, again)]
        assert one.identity == other.identity


async def test_tokens_for_others_are_refused(provider: Provider) -> None:
    told = await provider.person("ada")
    assert "aud: expected 'other'" in (await Deployment(provider, "other").refusal(told["id_token"])).reason
    opaque = (await Deployment(provider).refusal(told["refresh_token"])).reason
    assert "it is no signed JWT" in opaque
    message, _, signature = told["id_token"].rpartition(".")
    forged = f"{message}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"
    assert (
        "its signature is not that of the key 'a-RS256'"
        in (await Deployment(provider).refusal(forged)).reason
    )


async def test_keys_are_rotated_under_running_sign_ins(provider: Provider) -> None:
    deployment = Deployment(provider)
    old = await provider.machine()
    assert await deployment.who(old)
    provider.tell(keys=["b", "a"])
    new = await provider.machine()
    assert "no key 'b-ES256'" in (await deployment.refusal(new)).reason  # a moment after the last fetch
    deployment.ahead_s = 61
    assert await deployment.who(new) == await deployment.who(old)
    provider.tell(keys=["b"])
    deployment.ahead_s += 3601
    assert await deployment.who(new)
    for _ in range(500):  # fetched beside that, for whoever comes next
        if (refused := await _refused(deployment, old)) is not None:
            break
        await asyncio.sleep(0.01)
    assert refused is not None
    assert "no key 'a-ES256'" in refused.reason


async def _refused(deployment: Deployment, token: str) -> RefusedTokenError | None:
    try:
        await deployment.who(token)
    except RefusedTokenError as refusal:
        return refusal
    return None


async def test_an_outage_keeps_those_signed_in_and_ends(provider: Provider) -> None:
    deployment, newcomer = Deployment(provider), Deployment(provider)
    token = await provider.machine()
    assert await deployment.who(token)
    provider.tell(fault="down")
    deployment.ahead_s = 23 * 3600
    assert await deployment.who(token)
    refused = await newcomer.refusal(token)
    assert refused.may_pass_later
    assert "the provider's keys cannot be had" in refused.reason
    provider.tell(fault=None)
    newcomer.ahead_s = 5
    assert await newcomer.who(token)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("redirect", "it redirects, which is not followed"),
        ("slow", "no whole answer within 0.5 s"),
        ("huge", "it has more than 100000 bytes"),
        ("stranger", "it is that of the issuer 'https://evil.example'"),
        ("down", "Server disconnected"),
    ],
)
async def test_odd_answers_are_told_and_do_no_harm(provider: Provider, fault: str, reason: str) -> None:
    deployment = Deployment(provider, fetches=replace(FETCHES, limit_s=0.5 if fault == "slow" else 20))
    token = await provider.machine()
    provider.tell(fault=fault)
    refused = await deployment.refusal(token)
    assert refused.may_pass_later
    assert reason in refused.reason
    provider.tell(fault=None)
    deployment.ahead_s = 5
    if fault != "slow":
        assert await deployment.who(token)


async def test_loopback_is_refused_unless_a_setting_allows_it(provider: Provider) -> None:
    refused = await Deployment(provider, fetches=replace(FETCHES, private_allowed=False)).refusal(
        await provider.machine()
    )
    assert "provider_private_addresses" in refused.reason
