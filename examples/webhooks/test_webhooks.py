import asyncio
import json

import pytest
from headwater import webhooks
from headwater.testing import Deployment

from examples.webhooks import functions
from examples.webhooks.functions import deliveries

SECRET = "whsec_ZXhhbXBsZSBzZWNyZXQ="


@pytest.fixture
def deployment(monkeypatch: pytest.MonkeyPatch) -> Deployment:
    monkeypatch.setenv("GITHUB_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("WEBHOOK_SECRET_SHOP", SECRET)
    return Deployment(functions)


def sent(deployment: Deployment, path: str, body: bytes, headers: dict[str, str]) -> int:
    return asyncio.run(deployment.fetch("POST", path, body=body, headers=headers)).status


def github(body: bytes, number: str = "1", secret: str = SECRET) -> dict[str, str]:
    signed = webhooks.sign(secret, body, scheme="github")
    return {**signed, "X-GitHub-Event": "push", "X-GitHub-Delivery": number}


def test_what_is_signed_shows_at_once(deployment: Deployment) -> None:
    screen = deployment.watch(deliveries.count, source="github")
    body = json.dumps({"ref": "refs/heads/main"}).encode()
    assert sent(deployment, "/github", body, github(body)) == 204
    assert sent(deployment, "/github", body, github(body, "2")) == 204
    assert screen.results == [0, 1, 2]


def test_a_delivery_that_is_sent_again_is_kept_once(deployment: Deployment) -> None:
    for _ in range(2):
        assert sent(deployment, "/github", b"{}", github(b"{}")) == 204
    assert deployment.run_query(deliveries.count, source="github") == 1


def test_what_is_not_signed_leaves_nothing(deployment: Deployment) -> None:
    assert sent(deployment, "/github", b"{}", {}) == 401
    assert sent(deployment, "/github", b"{}", github(b"{}", secret="another")) == 401
    assert sent(deployment, "/github", b'{"changed": 1}', github(b"{}")) == 401
    assert sent(deployment, "/github", b"x" * 1_000_001, github(b"x" * 1_000_001)) == 413
    assert deployment.run_query(deliveries.count, source="github") == 0


def test_each_source_has_its_secret_and_old_ones_are_refused(deployment: Deployment) -> None:
    body, now_s = b'{"type": "order.paid"}', deployment.now.timestamp()
    fresh = webhooks.sign(SECRET, body, scheme="standard", now_s=now_s, message_id="m1")
    old = webhooks.sign(SECRET, body, scheme="standard", now_s=now_s - 600, message_id="m2")
    assert sent(deployment, "/standard/shop", body, fresh) == 204
    assert sent(deployment, "/standard/shop", body, old) == 401
    assert sent(deployment, "/standard/nobody", body, fresh) == 404
    assert deployment.run_query(deliveries.count, source="shop") == 1
