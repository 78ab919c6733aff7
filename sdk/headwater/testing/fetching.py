"""Requests to a bundle's routes in a test: found, asked and answered as the daemon does it, without sockets."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from headwater_protocol.errors import HeadwaterError, RequestError, error_for
from headwater_protocol.route_patterns import Candidate, RouteTable, parse_pattern, segments_of
from headwater_server.net.route_api import error_answer

from headwater.call_failures import CallFailure
from headwater.http_fields import Headers, Pairs
from headwater.http_messages import RequestHead

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater.testing.actions import ActionStage
    from headwater.testing.calls import Stage

_PIECE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a route has answered.

    Attributes:
        status: As in HTTP.
        headers: Its headers.
        content: Its body, of a stream all of it.
    """

    status: int
    headers: Headers
    content: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.content.decode()

    def json(self) -> Any:
        """Return the body, read as JSON."""
        return json.loads(self.content)


class _Recorded:
    """The exchange of one request; implements `headwater.routes.Exchange`."""

    def __init__(self, body: bytes) -> None:
        self._left = [body[start : start + _PIECE_BYTES] for start in range(0, len(body), _PIECE_BYTES)]
        self.status = 0
        self.headers = Headers()
        self.content = bytearray()

    async def next(self) -> bytes | None:
        return self._left.pop(0) if self._left else None

    async def begin(self, status: int, headers: Sequence[tuple[str, str]], size: int | None) -> None:
        self.status, self.headers = status, Headers(headers)

    async def send(self, content: bytes) -> None:
        self.content += content


async def fetch(
    stage: Stage,
    backend: ActionStage,
    identity: bytes | None,
    method: str,
    target: str,
    body: bytes,
    headers: Pairs,
) -> Fetched:
    """Ask a route.

    Raises:
        Exception: What the route raised, but for errors that clients are told: those are answers.
    """
    bundle = stage.worker.bundle
    routes = RouteTable(
        Candidate(item.method, parse_pattern(item.path), item.name) for item in bundle.manifest().routes
    )
    raw_path, _, query = target.partition("?")
    try:
        segments = segments_of(raw_path)
        found = routes.find(method, segments)
        if found.route is None:
            if not found.methods:
                raise RequestError(f"there is nothing at {raw_path}", code="unknown_function")
            return Fetched(405, Headers({"Allow": ", ".join(sorted(found.methods))}), b"")
    except HeadwaterError as error:
        return _told(error)
    head = RequestHead(method, "/" + "/".join(segments), query, tuple(Headers(headers).pairs), "127.0.0.1")
    exchange = _Recorded(body)
    failure = await bundle.call_route(
        found.route, found.parameters, head, backend, exchange, identity=identity
    )
    if isinstance(failure, CallFailure):
        raised = stage.worker.error_of(failure.code, failure.message)
        if exchange.status or not isinstance(raised, HeadwaterError) or raised.entry.http_status >= 500:
            raise raised
        return _told(error_for(failure.code, failure.message, failure.data))
    content = b"" if method == "HEAD" else bytes(exchange.content)
    return Fetched(exchange.status, exchange.headers, content)


def _told(error: HeadwaterError) -> Fetched:
    answer = error_answer(error, {})
    content = answer.body
    assert isinstance(content, bytes), "it is JSON"
    return Fetched(answer.status, Headers(list(answer.headers.items())), content)


def encoded_body(body: Any) -> tuple[bytes, str]:
    """Return what a test sends, with its media type: bytes and text as they are, anything else as JSON."""
    match body:
        case None:
            return b"", ""
        case bytes():
            return body, ""
        case str():
            return body.encode(), "text/plain; charset=utf-8"
    return msgspec.json.encode(body), "application/json"
