"""Functions over plain HTTP and JSON: `/api/query`, `/api/mutation`, `/api/action`, `/api/function`, `/api/run/{module}/{function}`.

Requests and answers have the shape that Convex's HTTP API has, so that scripts written for
it work: `{path, args, format}` in, and `actAs` to run as a user with a key that may; `{status: "success", value}` or `{status: "error",
errorMessage, errorData}` out, both with status 200; other failures are 4xx or 5xx with
`{code, message}`.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec
import orjson
from aiohttp import web
from headwater_protocol.errors import HeadwaterError, InternalError, ProtocolError, RequestError, Retry
from headwater_protocol.limits import VALUE_DEPTH_MAX

from headwater_server.convex.identity import claims_of
from headwater_server.convex.messages import canonical_name, time_of, time_text
from headwater_server.json_bounds import JSON_VALUES_MAX, has_too_many_values
from headwater_server.net.convex_system import PREFIX, Asker
from headwater_server.net.event_stream import send_events, wants_events
from headwater_server.net.json_values import FORMATS, Format, from_json, to_json
from headwater_server.net.keys import Right, bearer_token, offered_key
from headwater_server.net.request_origin import account_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from headwater_server.identity.sign_ins import SignIns
    from headwater_server.net.admission import Admission
    from headwater_server.net.convex_system import SystemFunctions
    from headwater_server.net.keys import AdminKeys
    from headwater_server.net.token_bucket import TokenBucket

logger = logging.getLogger("headwater.http")

_QUERY_PATHS = {"/api/query", "/api/query_ts", "/api/query_at_ts", "/api/query_batch"}
_OPEN_PATHS = frozenset({*_QUERY_PATHS, "/api/mutation", "/api/action", "/api/function", "/version"})
_BATCH_MAX = 100
_RUN_PATH = "/api/run/"
_METHODS = "GET, POST, OPTIONS"
_PREFLIGHT_S = "600"
_NO_ARGUMENTS = "gA=="  # an empty dict, encoded

_decode_json = msgspec.json.Decoder().decode  # unlike orjson it keeps integers beyond 64 bits what they are


class Calls(Protocol):
    """What runs functions for callers without a session."""

    async def query(
        self, name: str, arguments: bytes, *, identity: bytes | None = None, internal: bool = False
    ) -> bytes:
        """Return the encoded result of a query at the newest published ts."""

    async def mutation(
        self, name: str, arguments: bytes, *, identity: bytes | None = None, internal: bool = False
    ) -> bytes:
        """Return the encoded result of a committed mutation."""

    async def action(
        self,
        name: str,
        arguments: bytes,
        gone: Callable[[], bool],
        *,
        identity: bytes | None = None,
        internal: bool = False,
    ) -> bytes:
        """Return the encoded result of an action; `gone` tells whether its caller has gone away."""

    def stream(
        self, name: str, arguments: bytes, *, identity: bytes | None = None, internal: bool = False
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Return the encoded pieces of an action that streams; it is cancelled at the end of the block."""

    def kind(self, name: str, *, internal: bool) -> str:
        """Return the kind of a function of the active bundle; raises `unknown_function`."""

    def arguments_schema(self, name: str) -> dict[str, Any]:
        """Return the JSON schema of the arguments of a function of the active bundle; {} if there is none."""

    def read_ts(self) -> int:
        """Return the newest published ts; for a while, `query_at` may be asked for it."""

    async def query_at(
        self, name: str, arguments: bytes, ts: int, *, identity: bytes | None = None, internal: bool = False
    ) -> bytes:
        """Return the encoded result that a query had at a ts; raises `conflict` where that is not known any more."""

    async def queries(
        self, asked: Sequence[tuple[str, bytes]], *, identity: bytes | None = None, internal: bool = False
    ) -> list[bytes | HeadwaterError]:
        """Return the encoded results of several queries, all at one ts, or how they fail."""


class _Caller(NamedTuple):
    """Who makes a request.

    Attributes:
        identity: Encoded identity of their token, None without one.
        reads: Whether their key opens internal queries.
        runs: Whether it opens internal functions of all kinds.
        asker: As functions of the system know them.
        bucket: What is left of the user's requests, None without a limit.
    """

    identity: bytes | None
    reads: bool = False
    runs: bool = False
    asker: Asker = Asker(frozenset(), "")
    bucket: TokenBucket | None = None


class HttpApi:
    """The routes; `add_to` puts them into an aiohttp application."""

    def __init__(
        self,
        calls: Calls,
        keys: AdminKeys,
        sign_ins: SignIns,
        bodies: Bodies,
        system: SystemFunctions,
        admission: Admission,
    ) -> None:
        self._system = system
        self._calls = calls
        self._keys = keys
        self._sign_ins = sign_ins
        self._bodies = bodies
        self._admission = admission

    def add_to(self, app: web.Application) -> None:
        """Add the routes."""
        app.router.add_post("/api/query", self._query)
        app.router.add_get("/api/query", self._get_query)
        app.router.add_post("/api/mutation", self._mutation)
        app.router.add_post("/api/action", self._action)
        app.router.add_post("/api/function", self._function)
        app.router.add_post("/api/query_ts", self._query_ts)
        app.router.add_post("/api/query_at_ts", self._query_at_ts)
        app.router.add_post("/api/query_batch", self._query_batch)
        app.router.add_post(_RUN_PATH + "{name:.+}", self._run)

    async def _query(self, request: web.Request) -> web.Response:
        call = await self._call(request)
        return await self._query_for(await self._caller(request, call), call)

    async def _get_query(self, request: web.Request) -> web.Response:
        arguments = _parsed_json(request.query.get("args", "{}").encode(errors="replace"), "`args`")
        fields = {"path": request.query.get("path"), "args": arguments, "format": request.query.get("format")}
        call = self._parsed({name: value for name, value in fields.items() if value is not None}, request)
        caller = await self._caller(request, call)
        return await self._query_for(_Caller(caller.identity), call)

    async def _mutation(self, request: web.Request) -> web.Response:
        call = await self._call(request)
        return await self._mutation_for(await self._caller(request, call), call)

    async def _action(self, request: web.Request) -> web.StreamResponse:
        call = await self._call(request)
        return await self._action_for(await self._caller(request, call), call, request)

    async def _send_events(
        self, caller: _Caller, call: AskedCall, request: web.Request
    ) -> web.StreamResponse:
        headers = _origin_headers(request)
        try:
            async with self._calls.stream(
                call.name, call.arguments, identity=caller.identity, internal=caller.runs
            ) as pieces:
                return await send_events(
                    request,
                    pieces,
                    lambda piece: to_json(piece, call.form),
                    lambda error: _error_fields(error, call.form),
                    headers,
                )
        except HeadwaterError as error:
            return _error_answer(error, call.form)

    async def _query_ts(self, request: web.Request) -> web.Response:
        """A ts that several requests may ask for."""
        return json_response({"ts": time_text(self._calls.read_ts())})

    async def _query_at_ts(self, request: web.Request) -> web.Response:
        fields = await self._fields(request)
        call, told = self._parsed(fields, request), fields.get("ts")
        caller = await self._caller(request, call)
        try:
            ts = time_of(told if isinstance(told, str) else "")
        except ProtocolError:
            raise RequestError("`ts` must be what /api/query_ts has answered") from None
        running = self._calls.query_at(
            call.name, call.arguments, ts, identity=caller.identity, internal=caller.reads
        )
        return await _answer(call, running)

    async def _query_batch(self, request: web.Request) -> web.Response:
        asked = (await self._fields(request)).get("queries")
        if not isinstance(asked, list) or not 0 < len(asked) <= _BATCH_MAX:
            raise RequestError(f"`queries` must be a list of 1 to {_BATCH_MAX} queries")
        if not all(isinstance(fields, dict) for fields in asked):
            raise RequestError("each of `queries` must be an object with path and args")
        calls = [self._parsed(fields, request) for fields in asked]
        caller = await self._caller(request, calls[0])
        self._admission.charge(account_of(request, self._admission), caller.bucket, len(calls) - 1)
        results = await self._calls.queries(
            [(call.name, call.arguments) for call in calls], identity=caller.identity, internal=caller.reads
        )
        answers = [
            _error_fields(result, call.form)
            if isinstance(result, HeadwaterError)
            else {"status": "success", "value": to_json(result, call.form)}
            for call, result in zip(calls, results, strict=True)
        ]
        return json_response({"results": answers})

    async def _function(self, request: web.Request) -> web.StreamResponse:
        """A function of any kind; the key opens internal ones."""
        return await self._of_any_kind(request, await self._call(request))

    async def _run(self, request: web.Request) -> web.StreamResponse:
        """A function of any kind, named by the address: `/api/run/messages/list`."""
        body = await self._bodies.read(request)
        fields = _parsed_json(body, "the body") if body else {}
        if not isinstance(fields, dict):
            raise RequestError("the body must be an object with args")
        module, _, function = request.match_info["name"].rpartition("/")
        return await self._of_any_kind(
            request, self._parsed({**fields, "path": f"{module}:{function}"}, request)
        )

    async def _of_any_kind(self, request: web.Request, call: AskedCall) -> web.StreamResponse:
        caller = await self._caller(request, call)
        if call.name.startswith(PREFIX):
            return await self._query_for(caller, call)
        kind = self._calls.kind(call.name, internal=caller.reads)
        if kind == "action":
            return await self._action_for(caller, call, request)
        if kind == "query":
            return await self._query_for(caller, call)
        return await self._mutation_for(caller, call)

    async def _query_for(self, caller: _Caller, call: AskedCall) -> web.Response:
        if call.name.startswith(PREFIX):
            return await _answer(call, self._system.query(call.name, call.arguments, caller.asker))
        running = self._calls.query(
            call.name, call.arguments, identity=caller.identity, internal=caller.reads
        )
        return await _answer(call, running)

    async def _mutation_for(self, caller: _Caller, call: AskedCall) -> web.Response:
        running = self._calls.mutation(
            call.name, call.arguments, identity=caller.identity, internal=caller.runs
        )
        return await _answer(call, running)

    async def _action_for(self, caller: _Caller, call: AskedCall, request: web.Request) -> web.StreamResponse:
        if wants_events(request):
            return await self._send_events(caller, call, request)
        running = self._calls.action(
            call.name,
            call.arguments,
            partial(_is_gone, request),
            identity=caller.identity,
            internal=caller.runs,
        )
        return await _answer(call, running)

    async def _caller(self, request: web.Request, call: AskedCall) -> _Caller:
        """Return who makes a request, or is to be its caller; a wrong key or token is refused, none is fine."""
        token = bearer_token(request)
        if token is None:
            rights = self._keys.rights_offered(request)
            identity = None
            key, attributes = offered_key(request)
            claims = call.act_as if attributes is None else claims_of(attributes)
            if claims is not None:
                name = self._keys.require(key, Right.ACT_AS)
                identity = self._sign_ins.acting_as(claims, name).identity
            asker = Asker(rights, f"{request.scheme}://{request.host}")
            return _Caller(identity, reads=Right.READ in rights, runs=Right.RUN in rights, asker=asker)
        if call.act_as is not None:
            raise RequestError("`actAs` takes a key, not a token: Authorization: Headwater <key>")
        user = await self._sign_ins.user_of(token)
        bucket = self._admission.user(user.token_identifier)
        refusal = self._admission.ask(None, bucket)
        if refusal is not None:
            raise refusal
        return _Caller(user.identity, bucket=bucket)

    async def _call(self, request: web.Request) -> AskedCall:
        return self._parsed(await self._fields(request), request)

    def _parsed(self, fields: dict[str, Any], request: web.Request) -> AskedCall:
        return parse_call(fields, request, self._calls.arguments_schema)

    async def _fields(self, request: web.Request) -> dict[str, Any]:
        return await self._bodies.fields(request)


class AskedCall(msgspec.Struct, frozen=True):
    """What a request asks for.

    Attributes:
        name: Function.
        arguments: Encoded map.
        form: Of arguments and result.
        act_as: What a token of the user would claim as whom it is to run; None: as whoever asks.
    """

    name: str
    arguments: bytes
    form: Format
    act_as: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Bodies:
    """Reads what requests carry.

    Attributes:
        limit_s: How long one may take, from its request's head to its end.
    """

    limit_s: float

    async def read(self, request: web.Request) -> bytes:
        """Return the body.

        Raises:
            RequestError: `invalid_request` when it is not what its headers say, does not come whole, or not in time.
        """
        try:
            async with asyncio.timeout(self.limit_s):
                return await request.read()
        except TimeoutError:
            raise RequestError(f"the body did not come whole within {self.limit_s:g} s") from None
        except (web.RequestPayloadError, ConnectionResetError):
            raise RequestError(
                "the body is cut short, or not compressed as its Content-Encoding says"
            ) from None

    async def fields(self, request: web.Request) -> dict[str, Any]:
        """Return the body of a request for a call, parsed.

        Raises:
            RequestError: As `read`; or it is no JSON of an object.
        """
        fields = _parsed_json(await self.read(request), "the body")
        if not isinstance(fields, dict):
            raise RequestError("the body must be an object with path and args")
        return fields


def _is_gone(request: web.Request) -> bool:
    """Tell whether a request's connection has ended."""
    return request.transport is None or request.transport.is_closing()


def _parsed_json(text: bytes, what: str) -> Any:
    if has_too_many_values(text):
        raise RequestError(
            f"{what} has more than {JSON_VALUES_MAX} values; send them in several requests",
            code="frame_too_large",
        )
    try:
        return _decode_json(text)
    except RecursionError:
        raise RequestError(
            f"{what} has more than {VALUE_DEPTH_MAX} lists and objects inside one another"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"{what} is not JSON: {error}") from None


def parse_call(
    fields: dict[str, Any], request: web.Request, schema_of: Callable[[str], dict[str, Any]]
) -> AskedCall:
    """Return what the body of a request asks for.

    Args:
        fields: The body.
        request: What has it.
        schema_of: Gives the JSON schema of the arguments of a function, {} where none is known.
    """
    name = fields.get("path")
    if not isinstance(name, str) or not name:
        raise RequestError("`path` must be the name of a function, as in messages:list")
    default: Format = "json"
    if "Convex-Client" in request.headers:
        name, default = canonical_name(name, fields.get("componentPath")), "convex_encoded_json"
    form = fields.get("format") or default
    if form not in FORMATS:
        raise RequestError(f"`format` must be one of {', '.join(FORMATS)}, not {form!r}")
    act_as = fields.get("actAs")
    if act_as is not None and not isinstance(act_as, dict):
        raise RequestError('`actAs` must be an object with the claims of a user, as in {"sub": "…"}')
    if form == "encoded":
        return AskedCall(name, from_json(fields.get("args", _NO_ARGUMENTS), form), form, act_as)
    arguments = fields.get("args", {})
    if isinstance(arguments, list) and len(arguments) == 1:
        arguments = arguments[0]
    if not isinstance(arguments, dict):
        raise RequestError("`args` must be an object, or a list of one object")
    if form == "json":
        return AskedCall(name, from_json(arguments, form, schema_of(name)), form, act_as)
    return AskedCall(name, from_json(arguments, form), form, act_as)


async def _answer(call: AskedCall, running: Any) -> web.Response:
    try:
        value: bytes = await running
        result = to_json(value, call.form)
    except HeadwaterError as error:
        return _error_answer(error, call.form)
    return json_response({"status": "success", "value": result})


def _error_answer(error: HeadwaterError, form: Format) -> web.Response:
    """Return the answer for a call that failed; raises what is the request's fault or the server's."""
    if error.code in {"invalid_request", "overloaded", "unavailable"}:
        raise error
    return json_response(_error_fields(error, form))


def _error_fields(error: HeadwaterError, form: Format) -> dict[str, Any]:
    fields: dict[str, Any] = {"status": "error", "errorMessage": error.message, "errorCode": error.code}
    if error.code == "application_error":
        fields["errorData"] = to_json(error.data, form) if isinstance(error.data, bytes) else None
    return fields


def json_response(fields: dict[str, Any], status: int = 200) -> web.Response:
    """Return a JSON answer."""
    return web.Response(body=orjson.dumps(fields), status=status, content_type="application/json")


def error_response(error: HeadwaterError) -> web.Response:
    """Return the answer for an error that is the request's or the server's, not a function's."""
    response = json_response({"code": error.code, "message": error.message}, error.entry.http_status)
    if error.entry.retry is not Retry.NEVER:
        response.headers["Retry-After"] = retry_after(error)
    return response


def retry_after(error: HeadwaterError) -> str:
    """Return the seconds, as a header has them, after which what was refused may be tried again."""
    told = error.data.get("retry_after_s") if isinstance(error.data, dict) else None
    return str(ceil(told)) if isinstance(told, float) else "1"


@web.middleware
async def cors_middleware(request: web.Request, handler: Any) -> web.StreamResponse:
    """Let pages of any origin call functions; a key goes into a header, so no page has one that was not given it."""
    headers = _origin_headers(request)
    if not headers:
        response: web.StreamResponse = await handler(request)
        return response
    if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
        response = web.Response(status=204)
        response.headers["Access-Control-Allow-Methods"] = _METHODS
        response.headers["Access-Control-Max-Age"] = _PREFLIGHT_S
        wanted = request.headers.get("Access-Control-Request-Headers", "")
        if wanted and wanted.isascii():
            response.headers["Access-Control-Allow-Headers"] = wanted
    else:
        response = await handler(request)
    if not response.prepared:  # a stream has sent its own
        response.headers.update(headers)
    return response


def _origin_headers(request: web.Request) -> dict[str, str]:
    """Return the headers that let a page of any origin read the answer; none where there is no page or nothing for it."""
    origin = request.headers.get("Origin", "")
    is_open = request.path in _OPEN_PATHS or request.path.startswith(_RUN_PATH)
    if not is_open or not origin or not origin.isascii():
        return {}
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Credentials": "true",
        "Vary": "Origin, Access-Control-Request-Headers",
    }


@web.middleware
async def error_middleware(request: web.Request, handler: Any) -> web.StreamResponse:
    """Turn errors into answers; anything unexpected is logged and answered without detail."""
    try:
        response: web.StreamResponse = await handler(request)
    except HeadwaterError as error:
        return error_response(error)
    except web.HTTPRequestEntityTooLarge as error:
        return error_response(RequestError(str(error.text), code="frame_too_large"))
    except web.HTTPNotFound:
        return error_response(RequestError(f"there is nothing at {request.path}", code="unknown_function"))
    except web.HTTPMethodNotAllowed as error:
        message = f"{request.path} takes {', '.join(sorted(error.allowed_methods))}, not {request.method}"
        response = json_response({"code": "invalid_request", "message": message}, error.status)
        response.headers["Allow"] = error.headers["Allow"]
        return response
    except web.HTTPException:
        raise
    except Exception:
        logger.exception("http_request_failed", extra={"fields": {"path": request.path}})
        return error_response(InternalError())
    return response
