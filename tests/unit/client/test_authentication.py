"""Whose sign-in a token that a client is brought belongs to."""

from __future__ import annotations

import asyncio
import base64
import json

from headwater.client.authentication import Authentication


def token(subject: str, serial: int) -> str:
    claims = {"iss": "https://id.example", "sub": subject, "serial": serial}
    return f"head.{base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b'=').decode()}.signature"


async def test_a_fresh_token_of_another_user_is_another_sign_in() -> None:
    """So that no call goes out as a user's who did not make it."""
    tokens = [token("ada", 1), token("ada", 2), token("bob", 3), "no token", "none either"]
    asked = list[tuple[str | None, bool]]()
    authentication = Authentication(lambda *told: asked.append(told), lambda: None, lambda: 0.0)
    brought = iter(tokens)
    authentication.begin(lambda force: next(brought))
    for _ in tokens[1:]:
        await asyncio.sleep(0)
        authentication.lost()
    await asyncio.sleep(0)
    assert asked == list(zip(tokens, [False, True, False, False, True], strict=True))
    authentication.close()
