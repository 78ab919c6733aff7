"""Somebody who signs in at the accounts of a bundle, over HTTP."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from support.daemon import wait_until

if TYPE_CHECKING:
    from support.daemon import Answer, RunningDaemon

PASSWORD = "correct horse battery"


def post(daemon: RunningDaemon, what: str, **fields: Any) -> Answer:
    """Return the answer of one of the routes of accounts."""
    return daemon.post(f"/http/auth/{what}", fields)


def tokens(answer: Answer) -> dict[str, Any]:
    """Return the tokens of an answer that has some."""
    assert answer.status == 200, answer.text
    found: dict[str, Any] = answer.json
    return found


def asked(daemon: RunningDaemon, kind: str, name: str, token: str | None = None, /, **arguments: Any) -> Any:
    """Run a function with a token; return what came of it."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return daemon.post(f"/api/{kind}", {"path": name, "args": arguments, "format": "json"}, **headers).json


def value(daemon: RunningDaemon, kind: str, name: str, token: str | None = None, /, **arguments: Any) -> Any:
    """Run a function with a token that counts, and return its result."""
    answer = asked(daemon, kind, name, token, **arguments)
    assert answer["status"] == "success", answer
    return answer["value"]


def mail_to(daemon: RunningDaemon, email: str, number: int = 1) -> dict[str, Any]:
    """Return a mail to somebody, the first or a later one, once it is there."""
    wait_until(lambda: len(value(daemon, "query", "auth:mails", email=email)) >= number)
    found: dict[str, Any] = value(daemon, "query", "auth:mails", email=email)[number - 1]
    return found


def by_code(daemon: RunningDaemon, email: str, number: int = 1, **more: Any) -> dict[str, Any]:
    """Sign in with a code; return the tokens."""
    answer = post(daemon, "code", email=email)
    assert answer.status == 202, answer.text
    code = mail_to(daemon, email, number)["code"]
    return tokens(post(daemon, "redeem", request=answer.json["request"], code=code, **more))


def header_of(token: str) -> dict[str, Any]:
    """Return what a token says of itself."""
    return _part(token, 0)


def claims_of(token: str) -> dict[str, Any]:
    """Return what a token claims."""
    return _part(token, 1)


def _part(token: str, place: int) -> dict[str, Any]:
    part = token.split(".")[place]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found
