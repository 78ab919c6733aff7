"""The routes of the active bundle over HTTP: which one a request is for, who asks, and what pages may read of it.

They are served below `/http` on the daemon's own port, where no address of its own can be, and from `/` on a port
of theirs if there is one.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast
from urllib.parse import urlsplit

import orjson
from aiohttp import web
from headwater.values import encode
from headwater_protocol.errors import HeadwaterError, InternalError, RequestError, Retry, TransientError
from headwater_protocol.route_manifest import ANY_ORIGIN
from headwater_protocol.route_patterns import Candidate, Found, RouteTable, parse_pattern, segments_of

from headwater_server.net.hangup import HangupWatch
from headwater_server.net.http_admission import refused
from headwater_server.net.http_api import retry_after
from headwater_server.net.json_values import to_json
from headwater_server.net.keys import bearer_token
from headwater_server.net.request_origin import account_of, address_of
from headwater_server.net.route_call import RouteCall, feed_body, send_answer, too_large
from headwater_server.worker.messages import RouteRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headwater_protocol.route_manifest import CorsManifest, RouteManifest

    from headwater_server.functions.actions import RouteCaller, RouteHandle
    from headwater_server.identity.claims import VerifiedToken
    from headwater_server.net.admission import Admission
    from headwater_server.net.handler import HttpHandler
    from headwater_server.observe.metrics import RouteMetrics

logger = logging.getLogger("headwater.routes")

PREFIX = "/http"
_APPLICATION_ERROR_STATUS = 400
_INFLATED = frozenset({"gzip", "deflate", "br", "zstd"})  # by aiohttp, or refused
_OF_THE_COMPRESSED = frozenset({b"content-encoding", b"content-length"})  # not of what a route is given
_GONE_STATUS = 499  # nobody reads it


class Routes(Protocol):
    """What has routes answer."""

    def begin_route(
        self,
        name: str,
        parameters: bytes,
        request: RouteRequest,
        caller: RouteCaller,
        *,
        identity: bytes | None,
        window: int,
    ) -> RouteHandle:
        """Have a route answer."""
        ...


class Tokens(Protocol):
    """Who says who is behind a token."""

    async def user_of(self, token: str) -> VerifiedToken:
        """Return who it is from; raises `unauthenticated`."""
        ...


@dataclass(frozen=True, slots=True)
class RouteLimits:
    """Bounds of requests to routes.

    Attributes:
        running_max: So many at a time; more are refused as `overloaded`.
        body_bytes_max: Of one request.
        window_bytes: Of the body, and of the answer, that may be on their way.
        time_s: From a request's head to the end of its answer.
        body_idle_s: How long a client may send nothing of its body.
        body_s: How long one may be waited for in all.
        stall_s: How long a client may take nothing of its answer.
    """

    running_max: int
    body_bytes_max: int
    window_bytes: int
    time_s: float
    body_idle_s: float
    body_s: float
    stall_s: float


class _Asked(NamedTuple):
    """A request, taken apart.

    Attributes:
        method: As in HTTP.
        path: Decoded.
        query: As it was sent.
        found: What its path leads to.
        origin: Of the page that sends it, "" if it is none.
    """

    method: str
    path: str
    query: str
    found: Found
    origin: str


class RouteApi:
    """Answers requests to routes.

    Args:
        routes: Has them answer.
        tokens: Says who asks.
        concerns: Tells whether a token claims to be of one of the bundle's providers.
        admission: Counts requests.
        limits: Bounds.
        metrics: Counted in.
        mono_s: Monotonic clock.

    Attributes:
        stopping: No request is begun any more.
    """

    def __init__(
        self,
        routes: Routes,
        tokens: Tokens,
        concerns: Callable[[str], bool],
        admission: Admission,
        limits: RouteLimits,
        metrics: RouteMetrics,
        mono_s: Callable[[], float],
    ) -> None:
        self._routes = routes
        self._tokens = tokens
        self._concerns = concerns
        self._admission = admission
        self._limits = limits
        self._metrics = metrics
        self._mono_s = mono_s
        self._table: RouteTable | None = None
        self._running = 0
        self.stopping = False
        metrics.running.set_function(lambda: self._running)

    def use(self, routes: Sequence[RouteManifest]) -> None:
        """Answer with these from now on."""
        self._table = RouteTable(
            Candidate(route.method, parse_pattern(route.path), route) for route in routes
        )

    def add_to(self, app: web.Application) -> None:
        """Answer below `/http` in an application."""
        app.router.add_route("*", PREFIX + "/{path:.*}", partial(self.handle, prefix=PREFIX))

    async def handle(self, request: web.BaseRequest, *, prefix: str = "") -> web.StreamResponse:
        """Answer a request.

        Args:
            request: The request.
            prefix: Below which its path begins.
        """
        response = await self._handle(request, prefix)
        self._metrics.answers.labels(f"{response.status // 100}xx").inc()
        return response

    async def _handle(self, request: web.BaseRequest, prefix: str) -> web.StreamResponse:
        headers: dict[str, str] = {}
        refusal = self._admission.ask(account_of(request, self._admission), None)
        try:
            asked = self._asked(request, prefix)
            if request.method == "OPTIONS":
                return _preflight(request, asked)
            route = _chosen(asked)
            headers = _cors_headers(route.cors, asked.origin)
            if refusal is not None:
                return refused(request, error_answer(refusal, headers))
            return await self._answer(request, asked, route, headers)
        except HeadwaterError as error:
            return error_answer(error, headers)
        except _NoMethodError as refusal:
            return refusal.answer()
        except Exception:
            logger.exception("route_failed", extra={"fields": {"path": request.path[:200]}})
            return error_answer(InternalError(), headers)

    def _asked(self, request: web.BaseRequest, prefix: str) -> _Asked:
        """Take a request apart.

        Raises:
            RequestError: Its path is malformed, or nothing is there.
            TransientError: There is no bundle yet.
        """
        target = request.raw_path
        if not target.startswith("/"):  # a whole address, as proxies are sent
            split = urlsplit(target)
            target = f"{split.path or '/'}?{split.query}" if split.scheme else target
        raw_path, _, query = target.partition("?")
        if not raw_path.startswith(prefix):
            raise RequestError(f"the path does not begin with {prefix}")
        if not query.isascii() or "#" in target:
            raise RequestError("the query is not percent-encoded")
        segments = segments_of(raw_path.removeprefix(prefix))
        if self._table is None:
            raise TransientError(code="no_bundle")
        path = "/" + "/".join(segments)
        found = self._table.find(_method_asked(request), segments)
        if not found.methods:
            raise RequestError(f"there is nothing at {path[:200]}", code="unknown_function")
        return _Asked(request.method, path, query, found, request.headers.get("Origin", ""))

    async def _answer(
        self, request: web.BaseRequest, asked: _Asked, route: RouteManifest, headers: dict[str, str]
    ) -> web.StreamResponse:
        if self.stopping:
            raise TransientError("the server is stopping; try again in a moment")
        if self._running >= self._limits.running_max:
            message = f"{self._limits.running_max} requests are being answered; try again later"
            raise TransientError(message, code="overloaded")
        limit_bytes = self._limits.body_bytes_max
        if (request.content_length or 0) > limit_bytes:
            failure = too_large(limit_bytes)
            raise RequestError(failure.message, code=failure.code)
        self._running += 1
        try:
            identity = await self._identity(request)
            if request.transport is None:
                return web.Response(status=_GONE_STATUS)
            return await self._exchange(request, asked, route, identity, headers)
        finally:
            self._running -= 1

    async def _identity(self, request: web.BaseRequest) -> bytes | None:
        """Return who asks. A bearer of something that is no token of a provider is the route's own affair."""
        token = bearer_token(request)
        if token is None or not self._concerns(token):
            return None
        user = await self._tokens.user_of(token)
        refusal = self._admission.ask(None, self._admission.user(user.token_identifier))
        if refusal is not None:
            raise refusal
        return user.identity

    async def _exchange(
        self,
        request: web.BaseRequest,
        asked: _Asked,
        route: RouteManifest,
        identity: bytes | None,
        headers: dict[str, str],
    ) -> web.StreamResponse:
        call = RouteCall()
        handle = call.handle = self._routes.begin_route(
            route.name,
            encode(dict(asked.found.parameters)),
            _request_of(request, asked, address_of(request, self._admission)),
            call,
            identity=identity,
            window=self._limits.window_bytes,
        )
        limits = self._limits
        handler = cast("HttpHandler", request.protocol)
        feeding = asyncio.ensure_future(
            feed_body(
                request.content,
                call,
                handle,
                limit_bytes=limits.body_bytes_max,
                idle_s=limits.body_idle_s,
                whole_s=limits.body_s,
                mono_s=self._mono_s,
            )
        )
        assert request.transport is not None, "it has just come"
        watch = HangupWatch(request.transport, asyncio.get_running_loop().call_later)
        try:
            async with asyncio.timeout(limits.time_s) as deadline:
                handler.lost = partial(_end_now, deadline)
                return await send_answer(request, call, headers, stall_s=limits.stall_s)
        except TimeoutError:
            if request.transport is None:
                return web.Response(status=_GONE_STATUS)
            raise RequestError(
                f"the answer took longer than {limits.time_s:g} s", code="time_limit"
            ) from None
        finally:
            handler.lost = None
            watch.stop()
            feeding.cancel()
            await call.aclose()


class _NoMethodError(Exception):
    """A path that has no such method."""

    def __init__(self, asked: _Asked) -> None:
        super().__init__()
        self._asked = asked

    def answer(self) -> web.Response:
        methods = _allowed(self._asked.found)
        told = f"{self._asked.path[:200]} takes {methods}, not {self._asked.method[:20]}"
        response = _json({"code": "invalid_request", "message": told}, 405)
        response.headers["Allow"] = methods
        return response


def _method_asked(request: web.BaseRequest) -> str:
    """Return the method that a request has, or that a page asks leave for."""
    if request.method == "OPTIONS":
        return request.headers.get("Access-Control-Request-Method", "")
    return request.method


def _chosen(asked: _Asked) -> RouteManifest:
    route: RouteManifest | None = asked.found.route
    if route is None:
        raise _NoMethodError(asked)
    return route


def _allowed(found: Found) -> str:
    return ", ".join(sorted({*found.methods, "OPTIONS"}))


def _preflight(request: web.BaseRequest, asked: _Asked) -> web.Response:
    """Answer what a browser asks before a page's request; the route is not asked."""
    response = web.Response(status=204, headers={"Allow": _allowed(asked.found)})
    route: RouteManifest | None = asked.found.route
    if route is None or "Access-Control-Request-Method" not in request.headers:
        return response
    cors = route.cors
    response.headers.update(_cors_headers(cors, asked.origin))
    if cors is not None and cors.allows(asked.origin):
        response.headers["Access-Control-Allow-Methods"] = route.method
        if cors.headers:
            response.headers["Access-Control-Allow-Headers"] = ", ".join(cors.headers)
        response.headers["Access-Control-Max-Age"] = str(cors.max_age_s)
    return response


def _cors_headers(cors: CorsManifest | None, origin: str) -> dict[str, str]:
    """Return the headers by which a browser lets a page read an answer."""
    if cors is None:
        return {}
    if cors.origins == (ANY_ORIGIN,):
        headers = {"Access-Control-Allow-Origin": ANY_ORIGIN} if origin else {}
    else:
        headers = {"Vary": "Origin"}
        if not cors.allows(origin):
            return headers
        headers["Access-Control-Allow-Origin"] = origin
    if cors.credentials:
        headers["Access-Control-Allow-Credentials"] = "true"
    if cors.exposed:
        headers["Access-Control-Expose-Headers"] = ", ".join(cors.exposed)
    return headers


def _request_of(request: web.BaseRequest, asked: _Asked, address: str) -> RouteRequest:
    inflated = request.headers.get("Content-Encoding", "").lower() in _INFLATED
    headers = [
        (name.decode("latin-1"), _text(value))
        for name, value in request.raw_headers
        if not (inflated and name.lower() in _OF_THE_COMPRESSED)
    ]
    method = "GET" if asked.method == "HEAD" else asked.method
    return RouteRequest(method, asked.path, asked.query, headers, address)


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _end_now(deadline: asyncio.Timeout) -> None:
    """Have what is within a time limit end now: its client is gone."""
    if not deadline.expired():
        deadline.reschedule(asyncio.get_running_loop().time())


def error_answer(error: HeadwaterError, headers: dict[str, str]) -> web.Response:
    """Return what is answered where a route has failed, or could not be asked."""
    fields: dict[str, Any] = {"code": error.code, "message": error.message}
    status = error.entry.http_status
    if error.code == "application_error":
        status = _APPLICATION_ERROR_STATUS
        fields["data"] = to_json(error.data, "json") if isinstance(error.data, bytes) else None
    response = _json(fields, status)
    response.headers.update(headers)
    if error.entry.retry is not Retry.NEVER:
        response.headers["Retry-After"] = retry_after(error)
    return response


def _json(fields: dict[str, Any], status: int) -> web.Response:
    return web.Response(body=orjson.dumps(fields), status=status, content_type="application/json")
