"""HTTP routes: functions that answer requests of any kind, and what is made of them when a bundle is loaded.

A route runs where actions run, with their ctx: it has no database and runs queries and mutations.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, ParamSpec, Protocol, TypeVar, get_args

from headwater_protocol.errors import InternalError
from headwater_protocol.route_manifest import ANY_ORIGIN, CORS_AGE_MAX_S, CorsManifest, RouteManifest
from headwater_protocol.route_patterns import Candidate, Pattern, parse_pattern, twin
from msgspec import inspect as kinds

from headwater.actions import ActionCtx
from headwater.annotations import unwrapped
from headwater.arguments import ArgumentsCodec
from headwater.authoring import ActionDecorator
from headwater.http_messages import BodySource, Request, Response
from headwater.refusals import invalid_bundle
from headwater.source_places import place_of_function, refused_at

if TYPE_CHECKING:
    from headwater.actions import ActionCall
    from headwater.annotations import Tables
    from headwater.http_messages import RequestHead

P = ParamSpec("P")
C = TypeVar("C")
D = TypeVar("D")

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
PIECE_BYTES = 32 * 1024

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s?#@,]+").fullmatch
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+").fullmatch
_TEXT_LIKE = (
    kinds.StrType,
    kinds.IntType,
    kinds.FloatType,
    kinds.BoolType,
    kinds.EnumType,
    kinds.LiteralType,
    kinds.DateType,
    kinds.DateTimeType,
    kinds.UUIDType,
    kinds.DecimalType,
)


@dataclass(frozen=True, slots=True)
class Cors:
    """Which pages of other origins may read a route's answers; browsers ask the server, which answers by itself.

    Attributes:
        origins: As `https://app.example.com`, without a path; `"*"` for all.
        headers: Of a request, which pages may set.
        exposed: Of an answer, which pages may read beyond the simple ones.
        credentials: Whether pages may send the browser's cookies for this address.
        max_age_s: How long a browser may remember it.
    """

    origins: Sequence[str]
    headers: Sequence[str] = ("Authorization", "Content-Type")
    exposed: Sequence[str] = ()
    credentials: bool = False
    max_age_s: int = 600

    def __post_init__(self) -> None:
        origins = (ANY_ORIGIN,) if self.origins == ANY_ORIGIN else tuple(self.origins)
        if (isinstance(self.origins, str) and self.origins != ANY_ORIGIN) or not origins:
            raise invalid_bundle('Cors: origins is a list of origins, or "*" for all')
        for origin in origins:
            if origin != ANY_ORIGIN and not _ORIGIN(origin):
                raise invalid_bundle(
                    f"Cors: {origin!r} is no origin; write it as browsers do, https://app.example.com, without a path"
                )
        if ANY_ORIGIN in origins and self.credentials:
            raise invalid_bundle(
                "Cors: with credentials the origins have to be named: else any page could act as its visitor"
            )
        for name in (*self.headers, *self.exposed):
            if not _TOKEN(name):
                raise invalid_bundle(f"Cors: {name!r} is no name of a header")
        if not 0 <= self.max_age_s <= CORS_AGE_MAX_S:
            raise invalid_bundle(f"Cors: max_age_s is from 0 to {CORS_AGE_MAX_S}")
        object.__setattr__(self, "origins", origins)

    def manifest(self) -> CorsManifest:
        """Return it as the manifest has it."""
        return CorsManifest(
            tuple(self.origins), tuple(self.headers), tuple(self.exposed), self.credentials, self.max_age_s
        )


class RouteFunction(Generic[P]):
    """A route. Call it with a ctx and a request as a plain function.

    Attributes:
        method: As in HTTP.
        path: Its address with its parameters.
        cors: Which pages may read its answers.
        declared: The function as written.
        function: Takes an `ActionCtx`, the request, then the parameters.
        name: `module:function`; set when the bundle is loaded.
    """

    def __init__(
        self,
        method: Method,
        path: str,
        declared: Callable[..., Any],
        function: Callable[..., Any],
        cors: Cors | None,
    ) -> None:
        if not inspect.iscoroutinefunction(declared):
            raise invalid_bundle(
                f"@route({method!r}, {path!r}) stands before an `async def` that returns a Response, got {declared!r}"
            )
        self.method = method
        self.path = path
        self.cors = cors
        self.declared = declared
        self.function = function
        self.name = declared.__name__
        self.__name__ = declared.__name__
        self.__doc__ = declared.__doc__
        self.__module__ = declared.__module__

    def __call__(
        self, ctx: ActionCtx, request: Request, /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, Response]:
        """Call it as a plain function, unchecked."""
        running: Coroutine[Any, Any, Response] = self.function(ctx, request, *args, **kwargs)
        return running

    def __repr__(self) -> str:
        return f"<route {self.method} {self.path}>"


class RouteDecorator(Generic[C]):
    """`@route("POST", "/hooks/{name}")`: an `async def` that answers requests at an address.

    Args:
        actions: Makes the ctx that its functions take.
        cors: Of its functions that do not say otherwise.
    """

    def __init__(self, actions: ActionDecorator[Any], cors: Cors | None = None) -> None:
        self._actions = actions
        self._cors = cors

    def __call__(
        self, method: Method, path: str, /, *, cors: Cors | None = None
    ) -> Callable[[Callable[Concatenate[C, Request, P], Coroutine[Any, Any, Response]]], RouteFunction[P]]:
        """Return what makes a route of a function.

        Args:
            method: One of GET, which answers HEAD as well, POST, PUT, PATCH and DELETE.
            path: As `/hooks/{name}` or `/files/{path:rest}`; each parameter is one of the function, by name and type.
            cors: Which pages of other origins may read its answers.
        """
        if method not in get_args(Method):
            raise invalid_bundle(
                f"@route: the method is one of {', '.join(get_args(Method))}, got {method!r}"
            )
        parse_pattern(path)
        chosen = cors or self._cors

        def made(
            function: Callable[Concatenate[C, Request, P], Coroutine[Any, Any, Response]],
        ) -> RouteFunction[P]:
            return RouteFunction(method, path, function, self._actions.with_ctx(function), chosen)

        return made

    def using(self, make: Callable[[C], Coroutine[Any, Any, D]] | Callable[[C], D], /) -> RouteDecorator[D]:
        """Return a decorator whose functions take what `make` makes of the ctx; it may be an `async def`."""
        actions: Any = self._actions
        return RouteDecorator(actions.using(make), self._cors)

    def with_cors(self, cors: Cors, /) -> RouteDecorator[C]:
        """Return a decorator whose functions pages of other origins may ask."""
        return RouteDecorator(self._actions, cors)


route: RouteDecorator[ActionCtx] = RouteDecorator(ActionDecorator())


@dataclass(frozen=True, slots=True, eq=False)
class CompiledRoute:
    """A route of a loaded bundle.

    Attributes:
        item: As its decorator made it.
        pattern: Its address.
        parameters: What it takes beside ctx and request.
    """

    item: RouteFunction[Any]
    pattern: Pattern
    parameters: ArgumentsCodec

    def manifest(self) -> RouteManifest:
        """Return what the manifest says of it."""
        item = self.item
        cors = item.cors.manifest() if item.cors is not None else None
        doc = inspect.cleandoc(item.declared.__doc__ or "")
        return RouteManifest(item.method, item.path, item.name, self.parameters.schema, cors, doc)


def compile_routes(
    routes: Mapping[str, RouteFunction[Any]], tables: Tables, hints_of: Callable[[str, Any], dict[str, Any]]
) -> dict[str, CompiledRoute]:
    """Return the routes of a bundle by the names of their functions.

    Args:
        routes: By name.
        tables: Of the bundle.
        hints_of: Returns the resolved annotations of a function.

    Raises:
        RequestError: `invalid_bundle`: one does not fit its address, or two take the same requests.
    """
    compiled: dict[str, CompiledRoute] = {}
    candidates: list[Candidate] = []
    for name, item in routes.items():
        with refused_at(lambda _, item=item: place_of_function(item.declared)):  # type: ignore[misc]
            made = _compile(name, item, tables, hints_of(name, item.declared))
        candidate = Candidate(item.method, made.pattern, item)
        other = twin(candidate, candidates)
        if other is not None:
            raise invalid_bundle(
                f"two routes take the same requests, {item.method} {item.path} and"
                f" {other.route.method} {other.route.path}; change one\n"
                f"{place_of_function(other.route.declared)}\n{place_of_function(item.declared)}"
            )
        candidates.append(candidate)
        compiled[name] = made
    return compiled


def _compile(name: str, item: RouteFunction[Any], tables: Tables, hints: dict[str, Any]) -> CompiledRoute:
    label = f"{name} ({item.method} {item.path})"
    parameters = list(inspect.signature(item.declared).parameters.values())
    if len(parameters) < 2:
        raise invalid_bundle(f"{label}: a route takes a ctx and a request, then the parameters of its path")
    ctx, request = (hints.get(parameter.name) for parameter in parameters[:2])
    if isinstance(ctx, type) and not issubclass(ctx, ActionCtx):
        raise invalid_bundle(f"{label} takes a {ctx.__name__}; a route has the ctx of actions: ActionCtx")
    if request is not Request:
        raise invalid_bundle(f"{label}: its second parameter is the request: `request: Request`")
    returns = hints.get("return")
    if not (isinstance(returns, type) and issubclass(returns, Response)):
        raise invalid_bundle(f"{label} returns a Response: `-> Response`")
    pattern = parse_pattern(item.path)
    _refuse_other_names(label, pattern, parameters[2:])
    codec = ArgumentsCodec(label, parameters[2:], hints, tables)
    _refuse_other_types(label, pattern, codec)
    return CompiledRoute(item, pattern, codec)


def _refuse_other_names(label: str, pattern: Pattern, parameters: list[inspect.Parameter]) -> None:
    taken = {parameter.name for parameter in parameters}
    for name in pattern.names:
        if name not in taken:
            raise invalid_bundle(f"{label}: the path has a parameter `{name}`, the function takes none")
    for parameter in parameters:
        if parameter.name not in pattern.names:
            raise invalid_bundle(
                f"{label}: the path has no parameter `{parameter.name}`; what stands behind ? is in request.query"
            )
        if parameter.default is not parameter.empty:
            raise invalid_bundle(
                f"{label}: `{parameter.name}` is a part of the path and always there; it has no default"
            )


def _refuse_other_types(label: str, pattern: Pattern, codec: ArgumentsCodec) -> None:
    for field in codec.fields:
        kind = unwrapped(field.type)
        if field.name == pattern.rest and not isinstance(kind, kinds.StrType):
            raise invalid_bundle(f"{label}: `{field.name}` takes all that is left of the path and is a `str`")
        if not isinstance(kind, _TEXT_LIKE):
            raise invalid_bundle(
                f"{label}: `{field.name}` is a part of the path: text, a number, an Id, a choice, a date or the like"
            )


class Exchange(BodySource, Protocol):
    """One request and its answer, seen from the route."""

    async def begin(self, status: int, headers: Sequence[tuple[str, str]], size: int | None) -> None:
        """Send the head of the answer; the size of its body if that is known."""

    async def send(self, content: bytes) -> None:
        """Send a piece of its body; returns when the next one may be made."""


async def answer(
    compiled: CompiledRoute, call: ActionCall, head: RequestHead, texts: Mapping[str, str], exchange: Exchange
) -> None:
    """Run a route and send its answer.

    Args:
        compiled: The route.
        call: What its ctx is of.
        head: What is asked.
        texts: The parameters of the path.
        exchange: Takes the answer.

    Raises:
        RequestError: `unknown_function`: a parameter is not what it has to be.
        HeadwaterError: What the route raised.
    """
    positional, named = compiled.parameters.decode_texts(texts, call.backend.table_name)
    request = Request(head, exchange)
    answered = await compiled.item.function(ActionCtx.of(call), request, *positional, **named)
    if not isinstance(answered, Response):
        raise InternalError(
            f"{compiled.item.name} has to return a Response, it returned {type(answered).__name__}",
            code="invalid_result",
        )
    content, stream = answered.content, answered.stream
    await exchange.begin(answered.status, answered.headers.pairs, None if content is None else len(content))
    if content is not None:
        await _send(exchange, content)
    elif stream is not None:
        await _send_all(exchange, stream)


async def _send_all(exchange: Exchange, stream: Any) -> None:
    try:
        async for piece in stream:
            await _send(exchange, piece.encode() if isinstance(piece, str) else _bytes(piece))
    finally:
        if isinstance(stream, AsyncGenerator):
            await stream.aclose()


async def _send(exchange: Exchange, content: bytes) -> None:
    for start in range(0, len(content), PIECE_BYTES):
        await exchange.send(content[start : start + PIECE_BYTES])


def _bytes(piece: Any) -> bytes:
    if not isinstance(piece, bytes | bytearray | memoryview):
        raise TypeError(f"the pieces of an answer are bytes or text, got {type(piece).__name__}")
    return bytes(piece)
