"""What a route is asked, and what it answers."""

from __future__ import annotations

import codecs
import re
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, overload
from urllib.parse import parse_qsl

import msgspec
from headwater_protocol.errors import RequestError
from headwater_protocol.values import Int64

from headwater.forms import Form, parse_form
from headwater.http_fields import Fields, Headers, Pairs, header_problem

T = TypeVar("T")

_EMPTY_STATUSES = frozenset({204, 205, 304})
_CHARSET = re.compile(r"charset=\"?([\w-]{1,40})", re.IGNORECASE)
_CHARSETS = frozenset({"utf-8", "ascii", "iso8859-1", "cp1252", "utf-16", "utf-16-le", "utf-16-be"})


@dataclass(frozen=True, slots=True)
class RequestHead:
    """All of a request but its body.

    Attributes:
        method: As in HTTP.
        path: Decoded, below where routes are served.
        query: What stands behind `?`, as it was sent.
        headers: In order.
        address: Of who is connected: of a proxy, if there is one that `trusted_proxies` does not name.
    """

    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    address: str


class BodySource(Protocol):
    """Where the body of a request comes from."""

    async def next(self) -> bytes | None:
        """Return what comes next of it, None at its end.

        Raises:
            RequestError: It is larger than the limit, cut short, or does not come in time.
        """


class Request:
    """What a route is asked.

    Attributes:
        method: `GET`, also where `HEAD` was asked for, `POST` and so on.
        path: Decoded, from its slash on.
        query: The parameters behind `?`.
        headers: Its headers; cookies stand in `cookie`.
        address: Of who is connected: of a proxy, if there is one that `trusted_proxies` does not name.
    """

    def __init__(self, head: RequestHead, body: BodySource) -> None:
        self.method = head.method
        self.path = head.path
        self.query = Fields(parse_qsl(head.query, keep_blank_values=True, errors="replace"))
        self.headers = Headers(head.headers)
        self.address = head.address
        self._source = body
        self._begun = False
        self._body: bytes | None = None

    async def stream(self) -> AsyncIterator[bytes]:
        """Give the body in pieces as it comes; the sender waits for a route that does not take them.

        Raises:
            RequestError: It is larger than `route_body_limit_bytes`, cut short, or does not come in time.
        """
        if self._body is not None:
            yield self._body
            return
        if self._begun:
            raise RuntimeError("the body is read once: it was taken with stream() already")
        self._begun = True
        while (piece := await self._source.next()) is not None:
            yield piece

    async def body(self, *, limit_bytes: int | None = None) -> bytes:
        """Return the whole body, also a second time.

        Args:
            limit_bytes: Refuse a larger one; the server's limit holds in any case.

        Raises:
            RequestError: As `stream`.
        """
        if self._body is None:
            found = bytearray()
            async for piece in self.stream():
                found += piece
                if limit_bytes is not None and len(found) > limit_bytes:
                    message = f"the body has more than {limit_bytes} bytes"
                    raise RequestError(message, code="frame_too_large")
            self._body = bytes(found)
        return self._body

    @overload
    async def json(self, /) -> Any: ...
    @overload
    async def json(self, kind: type[T], /) -> T: ...
    async def json(self, kind: Any = Any, /) -> Any:
        """Return the body, read as JSON and checked.

        Args:
            kind: What it has to be: a `Struct`, `list[int]` or the like.

        Raises:
            RequestError: It is no JSON or not of that type; answered as 400 unless it is caught.
        """
        try:
            return msgspec.json.decode(await self.body(), type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RequestError(f"the body: {error}") from None
        except RecursionError:
            raise RequestError("the body has too many lists and objects inside one another") from None

    async def text(self) -> str:
        """Return the body as text, in the charset that its Content-Type names; UTF-8 without one.

        Raises:
            RequestError: It is no text in it.
        """
        named = _CHARSET.search(self.headers.get("Content-Type", ""))
        charset = named[1] if named else "utf-8"
        try:
            if codecs.lookup(charset).name not in _CHARSETS:
                raise LookupError
            return (await self.body()).decode(charset)
        except LookupError:
            raise RequestError(f"the charset {charset!r} is not known") from None
        except UnicodeDecodeError:
            raise RequestError(f"the body is no text in {charset}") from None

    async def form(self) -> Form:
        """Return the body, read as a form.

        Raises:
            RequestError: It is none.
        """
        return parse_form(self.headers.get("Content-Type", ""), await self.body())


Body = object
"""What an answer consists of: bytes, text, None, an asynchronous iterator of bytes or text, or anything that JSON has."""


class Response:
    """What a route answers.

    Args:
        body: `bytes` and `str` as they are; None is nothing; an asynchronous iterator of bytes or text is sent as it
            comes, as fast as the client reads; anything else is sent as JSON.
        status: From 200 on.
        headers: A mapping, or pairs where a name comes more than once, as `Set-Cookie`.
        media_type: Of the body, where its kind does not tell.

    Raises:
        ValueError: The status or a header cannot be sent.
        TypeError: The body cannot.
    """

    def __init__(
        self, body: Body = None, *, status: int = 200, headers: Pairs = (), media_type: str | None = None
    ) -> None:
        if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status <= 599:
            raise ValueError(f"the status of an answer is a number from 200 to 599, got {status!r}")
        self.status = int(status)
        self.content: bytes | None
        self.stream: AsyncIterable[Any] | None = None
        self.content, kind = self._encoded(body)
        self.headers = self._with_type(Headers(headers), media_type or kind)
        problem = header_problem(self.headers.pairs)
        if problem is not None:
            raise ValueError(problem)
        if status in _EMPTY_STATUSES and self.content != b"":
            raise ValueError(f"an answer of status {status} has no body")

    def _encoded(self, body: Body) -> tuple[bytes | None, str]:
        match body:
            case None:
                return b"", ""
            case bytes() | bytearray() | memoryview():
                return bytes(body), "application/octet-stream"
            case str():
                return body.encode(), "text/plain; charset=utf-8"
            case AsyncIterable():
                self.stream = body
                return None, "application/octet-stream"
        return msgspec.json.encode(body, enc_hook=_plain), "application/json"

    @staticmethod
    def _with_type(headers: Headers, kind: str) -> Headers:
        if not kind or "Content-Type" in headers:
            return headers
        return Headers([*headers.pairs, ("Content-Type", kind)])

    @classmethod
    def redirect(cls, to: str, *, status: int = 303) -> Response:
        """Return an answer that sends the client elsewhere.

        Args:
            to: Where.
            status: 303: with GET; 307: with the same method and body; 301 and 308: for good.
        """
        return cls(status=status, headers={"Location": to})


def _plain(value: Any) -> Any:
    if isinstance(value, Int64):
        return int(value)
    raise TypeError(f"a {type(value).__name__} cannot be answered: it is nothing that JSON has")
