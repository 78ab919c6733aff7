"""Actions: functions that wait for the world outside, and what they get as `ctx`.

An action is no transaction. It has no database of its own: it runs queries and mutations, each by itself, and
many actions wait side by side in one process.
"""

from __future__ import annotations

import collections.abc
import inspect
import random
import typing
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, Self, TypeVar, overload

from headwater_protocol.errors import InternalError, RequestError

from headwater.context import MutationFunction, QueryFunction, R, RegisteredFunction
from headwater.identity import Auth
from headwater.refusals import invalid_bundle, nearest
from headwater.results import encode_result
from headwater.scheduler import ActionScheduler
from headwater.values import check_any, decode_any, encode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headwater_protocol.manifest import FunctionKind

    from headwater.calls import CompiledFunction
    from headwater.environment import E, Environments

P = ParamSpec("P")
T = TypeVar("T")

Emit = Callable[[bytes], Awaitable[None]]
"""Takes an encoded piece of a stream; returns when the next one may be made."""

_STREAMS = (collections.abc.AsyncIterator, collections.abc.AsyncGenerator, collections.abc.AsyncIterable)


class ActionBackend(Protocol):
    """What a ctx of an action needs of the world: the seam between the authoring API and the daemon."""

    @property
    def depth_max(self) -> int:
        """How deep actions may be nested."""
        ...

    def now_ms(self) -> float:
        """Return the wall clock in ms since 1970."""
        ...

    def random_bytes(self, size: int) -> bytes:
        """Return unpredictable bytes."""
        ...

    def table_name(self, document_id: str) -> str | None:
        """Return the table that an id names, None if it is malformed or of no known table."""
        ...

    def variable(self, name: str) -> bytes | None:
        """Return the row of an environment variable as it is now, None if it is not set."""
        ...

    async def run(self, kind: FunctionKind, name: str, arguments: bytes) -> bytes:
        """Run a query or mutation as a call of its own and return its encoded result.

        Raises:
            HeadwaterError: It failed.
        """
        ...

    async def schedule(self, function: str, kind: FunctionKind, arguments: bytes, due_us: int) -> str:
        """Have a function run at a time, by a commit of its own; return the job's id."""
        ...

    async def cancel_job(self, job_id: str) -> bool:
        """Have a job not run any more, by a commit of its own; False if it is too late for that."""
        ...

    async def sign_token(self, claims: bytes, lifetime_s: int) -> str:
        """Return a token of the deployment that claims this, an encoded map, and ends in so many seconds.

        Raises:
            HeadwaterError: It cannot be signed.
        """
        ...

    async def verify_login(self, token: str, issuer: str, audience: str) -> bytes:
        """Return what the ID token of a provider claims, an encoded map, if it is good and for that audience.

        Raises:
            HeadwaterError: `unauthenticated`: it is not; or its provider cannot be asked now.
        """
        ...


class ActionCall:
    """One running action; actions that it runs are calls of their own in the same process.

    Attributes:
        function: Name of the action.
        backend: The world.
        environments: What the bundle declares of environment variables.
        functions: Functions of the bundle by what their decorator made of them.
        named: The same by name.
        identity: Encoded identity of the caller, None if there is none.
        identity_read: Whether anything has looked at it.
        depth: How many actions have run one another to come here; 1 for one that a client called.
    """

    __slots__ = (
        "_random",
        "backend",
        "depth",
        "environments",
        "function",
        "functions",
        "identity",
        "identity_read",
        "named",
    )

    def __init__(
        self,
        function: str,
        backend: ActionBackend,
        functions: Mapping[Any, CompiledFunction],
        named: Mapping[str, CompiledFunction],
        environments: Environments,
        *,
        identity: bytes | None,
        depth: int = 1,
    ) -> None:
        self.function = function
        self.backend = backend
        self.functions = functions
        self.named = named
        self.environments = environments
        self.identity = identity
        self.identity_read = False
        self.depth = depth
        self._random: random.Random | None = None

    @property
    def random(self) -> random.Random:
        """The action's own source of chance."""
        if self._random is None:
            self._random = random.Random(self.backend.random_bytes(16))
        return self._random

    def goes_on(self, subject: str, session: str | None) -> bool:
        """Take a session for one that goes on: its token does, and there is no database to look further."""
        return True

    async def run(
        self, function: Any, kind: FunctionKind, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run a query or a mutation, which is a transaction of its own, and return its result.

        Args:
            function: What its decorator made of it, or its name: then values are plain, as clients have them.
            kind: What it must be.
            args: Positional arguments.
            kwargs: Keyword arguments.
        """
        if isinstance(function, str):
            return decode_any(await self.backend.run(kind, function, _plain_arguments(args, kwargs)))
        compiled = self._compiled(function, kind)
        content = await self.backend.run(kind, compiled.name, compiled.arguments.encode(args, kwargs))
        return compiled.result.decode(content, self.backend.table_name)

    async def run_action(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run another action here, its arguments and result checked; a stream's result is the list of its pieces."""
        if isinstance(function, str):
            compiled = self.named.get(function)
            if compiled is None or compiled.kind != "action":
                known = [name for name, item in self.named.items() if item.kind == "action"]
                message = f"there is no action {function[:200]!r}{nearest(function[:200], known)}"
                raise RequestError(message, code="unknown_function")
            content = _plain_arguments(args, kwargs)
        else:
            compiled = self._compiled(function, "action")
            content = compiled.arguments.encode(args, kwargs)
        if self.depth >= self.backend.depth_max:
            raise InternalError(
                f"{compiled.name} is nested more than {self.backend.depth_max} actions deep; does it run itself?"
            )
        nested = ActionCall(
            compiled.name,
            self.backend,
            self.functions,
            self.named,
            self.environments,
            identity=self.identity,
            depth=self.depth + 1,
        )
        table_of = self.backend.table_name
        made = started(compiled, nested, content)
        value: Any
        if compiled.stream:
            value = [compiled.result.checked(piece, (), table_of) async for piece in made]
        else:
            value = compiled.result.checked(await made, (), table_of)
        return decode_any(encode_result(value).content) if isinstance(function, str) else value

    def _compiled(self, function: Any, kind: FunctionKind) -> CompiledFunction:
        compiled = self.functions.get(function)
        if compiled is None:
            raise TypeError(f"ctx.run_{kind} takes a @{kind} function of this bundle, got {function!r}")
        if compiled.kind != kind:
            raise TypeError(f"{compiled.name} is a {compiled.kind}; run it with ctx.run_{compiled.kind}")
        return compiled


def started(function: CompiledFunction, call: ActionCall, arguments: bytes) -> Any:
    """Return the coroutine of an action, or the iterator of one that streams.

    Raises:
        RequestError: `invalid_arguments`.
    """
    positional, named = function.arguments.decode(arguments, call.backend.table_name)
    return function.function(ActionCtx.of(call), *positional, **named)


async def run_to_end(function: CompiledFunction, call: ActionCall, arguments: bytes, emit: Emit) -> bytes:
    """Run an action and return its encoded result; of one that streams, hand over the pieces and return null.

    Raises:
        HeadwaterError: What it raised, or `invalid_arguments`, `invalid_result`.
    """
    table_of = call.backend.table_name
    made = started(function, call, arguments)
    if not function.stream:
        return function.result.encode(await made, (), table_of).content
    try:
        async for piece in made:
            await emit(function.result.encode(piece, (), table_of).content)
    finally:
        if isinstance(made, AsyncGenerator):
            await made.aclose()
    return encode(None)


def _plain_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    if args:
        raise TypeError("arguments of a function that is named by text are given by name")
    check_any(kwargs)
    return encode(kwargs)


class ActionCtx:
    """What an action sees: functions to run, and who asks. It has no database; queries and mutations have."""

    _call: ActionCall

    def __init__(self, ctx: ActionCtx, /) -> None:
        self._call = ctx._call

    @classmethod
    def of(cls, call: ActionCall) -> Self:
        """Return the ctx of a call."""
        ctx = cls.__new__(cls)
        ctx._call = call
        return ctx

    @property
    def auth(self) -> Auth:
        """Who makes the call."""
        return Auth(self._call)

    @property
    def now_ms(self) -> float:
        """The present in ms since 1970, by the machine's clock: later each time it is asked."""
        return self._call.backend.now_ms()

    def env(self, kind: type[E], /) -> E:
        """Return environment variables, as a class of the bundle declares them and as they are at this moment."""
        return self._call.environments.load(kind, self._call.backend.variable)

    @property
    def random(self) -> random.Random:
        """A source of chance; nobody can foretell it."""
        return self._call.random

    @property
    def scheduler(self) -> ActionScheduler:
        """Has functions run later."""
        return ActionScheduler(self._call)

    @overload
    async def run_query(self, function: QueryFunction[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def run_query(self, function: str, /, **kwargs: Any) -> Any: ...
    async def run_query(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run a query over the newest state and return its result. Two queries may see different states.

        Args:
            function: A query of this bundle, or its name: then arguments and result are as clients have them.
            *args: Its arguments.
            **kwargs: Its arguments.

        Raises:
            HeadwaterError: It failed; `code` says how.
        """
        return await self._call.run(function, "query", args, kwargs)

    @overload
    async def run_mutation(
        self, function: MutationFunction[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> R: ...
    @overload
    async def run_mutation(self, function: str, /, **kwargs: Any) -> Any: ...
    async def run_mutation(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run a mutation, which commits by itself, and return its result. What the action does later changes nothing of it.

        Args:
            function: A mutation of this bundle, or its name.
            *args: Its arguments.
            **kwargs: Its arguments.

        Raises:
            HeadwaterError: It failed and has had no effect; `code` says how.
        """
        return await self._call.run(function, "mutation", args, kwargs)

    @overload
    async def run_action(self, function: ActionFunction[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def run_action(
        self, function: StreamFunction[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> list[T]: ...
    @overload
    async def run_action(self, function: str, /, **kwargs: Any) -> Any: ...
    async def run_action(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run another action in this process, within this one's time limit, its arguments and result checked.

        A plain call, `await other(ctx, …)`, does the same without the checks.

        Args:
            function: An action of this bundle, or its name. One that streams gives the list of its pieces.
            *args: Its arguments.
            **kwargs: Its arguments.

        Raises:
            HeadwaterError: It failed; `code` says how.
        """
        return await self._call.run_action(function, args, kwargs)


class _AnyAction(RegisteredFunction):
    """An action of either form.

    Attributes:
        cancel_with_caller: Whether it is cancelled when its caller goes away.
    """

    kind = "action"
    form = "`async def`"

    def __init__(
        self,
        declared: Callable[..., Any],
        function: Callable[..., Any],
        *,
        internal: bool,
        cancel_with_caller: bool,
    ) -> None:
        super().__init__(declared, function, internal=internal)
        self.cancel_with_caller = cancel_with_caller

    def _refuse_form(self, where: str) -> None:
        declared = self.declared
        if not (inspect.iscoroutinefunction(declared) or inspect.isasyncgenfunction(declared)):
            raise invalid_bundle(
                f"{where} is an action and must be an `async def`: it waits for the world outside, among many others."
                " Write `async def`; what reads or writes the database alone is a @query or @mutation."
            )


class ActionFunction(_AnyAction, Generic[P, R]):
    """An action. Call it with a ctx as a plain function, or pass it to `ctx.run_action`."""

    def __schedulable__(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Tell type checkers that it can be scheduled, and with which arguments."""

    def __call__(self, ctx: ActionCtx, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Call it as a plain function, unchecked."""
        running: Coroutine[Any, Any, R] = self.function(ctx, *args, **kwargs)
        return running


class StreamFunction(_AnyAction, Generic[P, T]):
    """An action that streams: an asynchronous generator, whose pieces go to the caller as they come."""

    def __call__(self, ctx: ActionCtx, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        """Call it as a plain function, unchecked."""
        pieces: AsyncIterator[T] = self.function(ctx, *args, **kwargs)
        return pieces


def piece_annotation(name: str, item: _AnyAction, returns: Any) -> Any:
    """Return what a function's result is declared as: of one that streams, what each piece is.

    Raises:
        RequestError: `invalid_bundle`: it streams and does not say of what, or says so and does not stream.
    """
    declared = typing.get_origin(returns) in _STREAMS
    if not inspect.isasyncgenfunction(item.declared):
        if declared:
            raise invalid_bundle(
                f"{name} returns a stream, so it has to `yield` its pieces, and it has no `yield`"
            )
        return returns
    if not declared:
        raise invalid_bundle(
            f"{name} yields, so its pieces go to the caller one by one: annotate it `-> AsyncIterator[...]` with their type"
        )
    return typing.get_args(returns)[0]
