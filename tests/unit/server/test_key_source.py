"""Tokens whose keys are at an address: shared fetches, outages, rotation, deploys meanwhile; and what a provider publishes."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from headwater_protocol.manifest import ProviderManifest
from headwater_server.identity.discovery import FetchError
from headwater_server.identity.key_cache import CacheOptions
from headwater_server.identity.refusal import RefusedTokenError
from headwater_server.identity.verifier import Clocks, Verifier
from headwater_server.observe.metrics import Metrics
from support import tokens
from support.tokens import AUDIENCE, ISSUER, NOW_S, OPTIONS, key_set, public_jwk, token

DISCOVERY = f"{ISSUER}/.well-known/openid-configuration"
KEYS = f"{ISSUER}/keys"
OIDC = ProviderManifest("oidc", ISSUER, AUDIENCE, "", ("ES256", "RS256"))
JWT = ProviderManifest("jwt", ISSUER, AUDIENCE, KEYS, ("ES256",))


@dataclass
class Web:
    """The network: what stands at addresses, and who asked.

    Attributes:
        pages: Bytes, or JSON, or why there is nothing.
        asked: Addresses in the order in which they were asked for.
        open: Answers come while it is set.
        mono_s: Monotonic time.
    """

    pages: dict[str, Any]
    asked: list[str] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    mono_s: float = 0.0

    def __post_init__(self) -> None:
        self.open.set()

    async def get(self, address: str) -> bytes:
        self.asked.append(address)
        await self.open.wait()
        page = self.pages.get(address, FetchError(f"{address}: it answers with status 404"))
        if isinstance(page, Exception):
            raise page
        return page if isinstance(page, bytes) else json.dumps(page).encode()


def web(*jwks: dict[str, Any]) -> Web:
    return Web(
        {DISCOVERY: {"issuer": ISSUER, "jwks_uri": KEYS}, KEYS: key_set(*(jwks or (public_jwk("ES256"),)))}
    )


def verifier(over: Web, *providers: ProviderManifest, waiting_max: int = 100) -> Verifier:
    options = replace(
        OPTIONS, waiting_max=waiting_max, cache=CacheOptions(pause_s=60, age_s=3600, kept_s=86_400)
    )
    made = Verifier(options, Clocks(lambda: NOW_S, lambda: over.mono_s), over.get, Metrics())
    made.use(providers or (OIDC,))
    return made


async def refusal(checking: Verifier, text: str) -> RefusedTokenError:
    with pytest.raises(RefusedTokenError) as caught:
        await checking.verify(text)
    return caught.value


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_keys_are_found_by_discovery_and_fetched_once_for_all_who_wait() -> None:
    over = web()
    over.open.clear()
    checking = verifier(over)
    waiting = [asyncio.create_task(checking.verify(token(sub=f"user{number}"))) for number in range(100)]
    await settled()
    assert over.asked == [DISCOVERY]
    waiting[0].cancel()  # one who gives up takes nothing from the others
    await settled()
    over.open.set()
    verified = await asyncio.gather(*waiting[1:])
    assert {one.token_identifier for one in verified} == {
        f"{ISSUER}|user{number}" for number in range(1, 100)
    }
    assert await checking.verify(token())
    assert over.asked == [DISCOVERY, KEYS]


async def test_declared_addresses_need_no_discovery() -> None:
    over = web()
    assert await verifier(over, JWT).verify(token())
    assert over.asked == [KEYS]


async def test_so_many_tokens_wait_and_no_more() -> None:
    over = web()
    over.open.clear()
    checking = verifier(over, waiting_max=3)
    waiting = [asyncio.create_task(checking.verify(token())) for _ in range(3)]
    await settled()
    refused = await refusal(checking, token())
    assert "3 tokens wait for keys of providers already" in refused.reason
    assert refused.may_pass_later
    over.open.set()
    assert len(await asyncio.gather(*waiting)) == 3
    assert await checking.verify(token())


async def test_a_token_that_is_bad_anyway_makes_nobody_fetch() -> None:
    over = web()
    checking = verifier(over)
    for bad in (
        token(aud="x"),
        token(exp=1),
        token("EdDSA"),
        token(sub=None),
        token(iss="https://evil.example"),
    ):
        assert not (await refusal(checking, bad)).may_pass_later
    assert over.asked == []


async def test_a_rotation_is_seen_and_an_unknown_key_asks_once_a_minute() -> None:
    over = web()
    checking = verifier(over)
    assert await checking.verify(token())
    over.pages[KEYS] = key_set(public_jwk("ES256", 1))
    over.mono_s = 60
    assert await checking.verify(token(number=1))
    fetched = len(over.asked)
    for number in range(50):
        reason = (await refusal(checking, token(head={"kid": f"made-up-{number}"}))).reason
        assert "the provider has no key 'made-up-" in reason
    # the key that was taken away is not taken any more
    assert "the provider has no key 'ES256-0'" in (await refusal(checking, token())).reason
    assert len(over.asked) == fetched
    over.mono_s = 120
    await refusal(checking, token())
    assert len(over.asked) == fetched + 2


async def test_an_outage_keeps_the_last_good_keys_for_a_day() -> None:
    over = web()
    checking = verifier(over)
    assert await checking.verify(token())
    over.pages = {}
    for hours in (1, 2, 10, 23):
        over.mono_s = hours * 3600
        assert await checking.verify(token())
        await settled()
    assert over.asked.count(DISCOVERY) == 5
    over.mono_s = 24 * 3600
    refused = await refusal(checking, token())
    assert refused.may_pass_later
    assert (
        "cannot be had: https://id.example/.well-known/openid-configuration: it answers with"
        in refused.reason
    )
    over.pages = web().pages
    over.mono_s += 5
    assert await checking.verify(token())


async def test_a_deploy_without_the_provider_ends_what_waits_and_what_was_kept() -> None:
    over = web()
    over.open.clear()
    checking = verifier(over)
    waiting = asyncio.create_task(refusal(checking, token()))
    await settled()
    checking.use(())
    assert (await waiting).may_pass_later
    over.open.set()
    assert "declares no provider" in (await refusal(checking, token())).reason
    checking.use((OIDC,))
    over.pages[KEYS] = key_set(public_jwk("ES256", 1))
    assert "the provider has no key 'ES256-0'" in (await refusal(checking, token())).reason


async def test_a_deploy_with_another_audience_decides_about_what_waits() -> None:
    over = web()
    over.open.clear()
    checking = verifier(over)
    waiting = asyncio.create_task(refusal(checking, token()))
    await settled()
    checking.use((replace(OIDC, audience="other"),))
    over.open.set()
    assert "another bundle was deployed meanwhile" in (await waiting).reason


async def test_a_deploy_that_leaves_a_provider_as_it_is_keeps_its_keys() -> None:
    over = web()
    checking = verifier(over)
    assert await checking.verify(token())
    checking.use((OIDC, replace(OIDC, issuer="https://b.example")))
    assert await checking.verify(token())
    assert over.asked == [DISCOVERY, KEYS]


async def test_a_fault_of_ours_ends_in_a_refusal_and_is_tried_again() -> None:
    over = web()
    over.pages[KEYS] = RuntimeError("a fault")
    checking = verifier(over)
    refused = await refusal(checking, token())
    assert (refused.may_pass_later, "RuntimeError" in refused.reason) == (True, True)
    over.pages[KEYS] = key_set(public_jwk("ES256"))
    over.mono_s = 5
    assert await checking.verify(token())


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (b"", "it is not JSON"),
        (b"<html>", "it is not JSON"),
        (b"\xff\xfe", "it is not UTF-8"),
        ([], "expected a JSON object"),
        ({}, "it is that of the issuer None"),
        ({"issuer": "https://evil.example", "jwks_uri": KEYS}, "the issuer 'https://evil.example'; declare that one"),
        ({"issuer": ISSUER + "/", "jwks_uri": KEYS}, "the issuer 'https://id.example/'; declare that one"),
        ({"issuer": [ISSUER], "jwks_uri": KEYS}, "it is that of the issuer"),
        ({"issuer": ISSUER}, "jwks_uri: expected an address, got None"),
        ({"issuer": ISSUER, "jwks_uri": {}}, "jwks_uri: expected an address"),
        (b'{"issuer": "https://id.example", "issuer": "x", "jwks_uri": "y"}', "it has 'issuer' twice"),
        (b'{"x": ' + b"[" * 100_000, "it has more than 16 lists"),
    ],
)  # fmt: skip
async def test_a_discovery_document_must_be_the_issuers_own(page: Any, reason: str) -> None:
    over = web()
    over.pages[DISCOVERY] = page
    refused = await refusal(verifier(over), token())
    assert f"cannot be had: {DISCOVERY}: " in refused.reason
    assert reason in refused.reason
    assert over.asked == [DISCOVERY]


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (b"nothing", "it is not JSON"),
        ({}, "it is no key set"),
        ({"keys": {}}, "it is no key set"),
        ({"keys": []}, "no key of it can be used: it has none"),
        ({"keys": [1, None]}, "no key of it can be used: key 0: it is no object; key 1"),
        (key_set(*[{}] * 65), "it has 65 keys; at most 64 are taken"),
        (key_set({"kty": "oct", "k": "AA"}), "key 0: kty 'oct' is not taken"),
        (key_set(public_jwk("ES256", crv="P-192")), "its curve or alg is not taken: 'P-192'"),
        (key_set(public_jwk("ES256", crv=["P-256"])), "its curve or alg is not taken"),
        (key_set(public_jwk("ES256", crv="P-384")), "key 'ES256-0': it is no key"),
        (key_set(public_jwk("ES256", x="AA")), "key 'ES256-0': it is no key"),
        (key_set(public_jwk("ES256", y=tokens.base64url(bytes(32)))), "key 'ES256-0': it is no key"),
        (key_set(public_jwk("ES256", y=5)), "its y is no number of a key"),
        (key_set(public_jwk("ES256", x="=")), "it has other characters"),
        (key_set(public_jwk("ES256", kid=5)), "its kid is no text"),
        (key_set(public_jwk("RS256", e="AQ")), "key 'RS256-0': it is no key"),
        (key_set(public_jwk("RS256", n=tokens.base64url(b"\xff" * 1025))), "its n is no number of a key"),
        (key_set(public_jwk("RS1024")), "it has 1024 bits; 2048 to 8192 are taken"),
        (key_set(public_jwk("RS256", alg="RS265")), "alg is not taken: None, 'RS265'"),
        (key_set(public_jwk("RS256", alg=[])), "alg is not taken"),
        (key_set(public_jwk("RS256", kty=[])), "kty [] is not taken"),
        (key_set(public_jwk("EdDSA", x="AA")), "key 'EdDSA-0': it is no key"),
    ],
)  # fmt: skip
async def test_keys_that_cannot_be_used_are_told(page: Any, reason: str) -> None:
    over = web()
    over.pages[KEYS] = page
    refused = await refusal(verifier(over), token())
    assert f"cannot be had: {KEYS}: " in refused.reason
    assert reason in refused.reason


async def test_a_key_that_cannot_be_used_does_not_spoil_the_others() -> None:
    assert await verifier(web({"kty": "oct", "k": "AA"}, public_jwk("ES256"))).verify(token())


async def test_reasons_are_logged_up_to_a_bound_and_never_the_token(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "headwater.identity")
    over = web()
    checking = verifier(over)
    for _ in range(40):
        await refusal(checking, token(aud="x"))
    over.mono_s = 61
    await refusal(checking, token(exp=1))
    told = [record.fields for record in caplog.records]  # type: ignore[attr-defined]
    assert [fields["not_logged_before"] for fields in told] == [0] * 30 + [10]
    assert told[0]["reason"] == "aud: expected 'app', got 'x'"
    assert "eyJ" not in str(told)
