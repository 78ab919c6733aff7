"""Signatures of webhooks, against vectors of the schemes' own documents and against `openssl dgst`."""

from __future__ import annotations

from typing import Any

import pytest
from headwater import webhooks
from headwater.http_fields import Headers
from headwater_protocol.errors import RequestError

VECTORS: list[tuple[Any, str, bytes, dict[str, str], int]] = [
    (  # of the reference libraries of Standard Webhooks
        "standard",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        b'{"test": 2432232314}',
        {
            "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "webhook-timestamp": "1614265330",
            "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        },
        1614265330,
    ),
    (  # of GitHub's page on validating deliveries
        "github",
        "It's a Secret to Everybody",
        b"Hello, World!",
        {
            "X-Hub-Signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
        },
        0,
    ),
    (  # printf '1492774577.{"id":"evt_1"}' | openssl dgst -sha256 -hmac whsec_test_secret
        "stripe",
        "whsec_test_secret",
        b'{"id":"evt_1"}',
        {
            "Stripe-Signature": "t=1492774577,v1=799c4ba7bb339f3c8601adfd112f0e477c930a268be1243d341abb8286501c2f,v0=6ffbb59b",
        },
        1492774577,
    ),
]


def verified(scheme: Any, secret: Any, body: bytes, headers: Any, now_s: float) -> bool:
    try:
        webhooks.verify(secret, body, headers, scheme=scheme, now_s=now_s)
    except RequestError as refused:
        return refused.code != "unauthenticated"
    return True


@pytest.mark.parametrize(("scheme", "secret", "body", "headers", "now_s"), VECTORS)
def test_vectors_are_accepted_and_anything_else_is_refused(
    scheme: Any, secret: str, body: bytes, headers: dict[str, str], now_s: int
) -> None:
    other = "whsec_" + "AAAA" * 8
    assert verified(scheme, secret, body, headers, now_s)
    assert verified(scheme, [other, secret], body, headers, now_s), "one of several"
    assert verified(scheme, secret, body, Headers({name.upper(): headers[name] for name in headers}), now_s)
    assert not verified(scheme, other, body, headers, now_s)
    assert not verified(scheme, secret, body + b" ", headers, now_s)
    assert not verified(scheme, secret, b"", headers, now_s)
    for name in headers:
        assert not verified(
            scheme, secret, body, {other: value for other, value in headers.items() if other != name}, now_s
        )
        changed = headers | {name: headers[name][:-1] + ("0" if headers[name][-1] != "0" else "1")}
        if "signature" in name.lower() and scheme != "stripe":
            assert not verified(scheme, secret, body, changed, now_s)


@pytest.mark.parametrize(("scheme", "secret", "body", "headers", "now_s"), VECTORS)
def test_old_and_future_ones_are_refused(
    scheme: Any, secret: str, body: bytes, headers: dict[str, str], now_s: int
) -> None:
    if scheme == "github":
        assert verified(scheme, secret, body, headers, 1e12), "it has no time"
        return
    for away_s, fits in ((299, True), (-299, True), (301, False), (-301, False)):
        assert verified(scheme, secret, body, headers, now_s + away_s) is fits, away_s


@pytest.mark.parametrize("scheme", ["stripe", "github", "standard"])
def test_what_is_signed_is_verified(scheme: Any) -> None:
    secret = "whsec_c2VjcmV0IG9mIHRoZSB0ZXN0"
    headers = webhooks.sign(secret, b"body", scheme=scheme, now_s=1000, message_id="one")
    assert verified(scheme, secret, b"body", headers, 1000)
    assert not verified(scheme, secret, b"other", headers, 1000)


def test_svix_names_and_several_signatures() -> None:
    _, secret, body, headers, now_s = VECTORS[0]
    svix = {name.replace("webhook", "svix"): value for name, value in headers.items()}
    svix["svix-signature"] = "v1,AAAA v2,x v1a,zz " + svix["svix-signature"]
    assert verified("standard", secret, body, svix, now_s)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "t=,v1=00",
        "v1=00",
        "t=1492774577",
        "t=1492774577,v1=",
        "t=1492774577,v1=zz",
        "t=٣,v1=00",
        "t=-1,v1=00",
        "t=1e9,v1=00",
        "t=" + "9" * 5000,
        "t=1492774577," + ",".join(["v1=00"] * 2000),
        "ü\udc80",
    ],
)
def test_a_header_that_is_nonsense_is_refused(header: str) -> None:
    assert not verified("stripe", "secret", b"x", {"Stripe-Signature": header}, 1492774577)


@pytest.mark.parametrize(
    ("secret", "scheme"), [("", "github"), ([], "stripe"), (["x", ""], "stripe"), ("whsec_?", "standard"), ("whsec_", "standard"), ("x", "other")]
)  # fmt: skip
def test_a_secret_that_is_none_is_the_authors_fault(secret: Any, scheme: Any) -> None:
    with pytest.raises(ValueError, match=r"secret|scheme"):
        webhooks.verify(secret, b"", {"webhook-signature": "v1,AAAA"}, scheme=scheme, now_s=0)
