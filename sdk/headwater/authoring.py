"""The decorators that make functions of a bundle."""

from __future__ import annotations

import inspect
from contextlib import aclosing
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from headwater.actions import ActionCtx, ActionFunction, StreamFunction
from headwater.context import MutationCtx, MutationFunction, QueryCtx, QueryFunction, R

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

P = ParamSpec("P")
C = TypeVar("C")
D = TypeVar("D")
T = TypeVar("T")


class _Decorator(Generic[C]):
    """What the kinds of decorators have in common.

    Args:
        make: Makes the ctx that the function takes out of the kind's own; None: takes that.
        internal: Whether its functions are hidden from clients.
    """

    def __init__(self, make: Callable[[Any], C] | None = None, *, internal: bool = False) -> None:
        self._make = make
        self._internal = internal

    def _with_ctx(self, function: Callable[..., Any]) -> Callable[..., Any]:
        make = self._make
        if make is None:
            return function

        @wraps(function)
        def with_ctx(ctx: Any, *args: Any, **kwargs: Any) -> Any:
            return function(make(ctx), *args, **kwargs)

        return with_ctx

    def _then(self, make: Callable[[C], D]) -> Callable[[Any], D]:
        first = self._make
        return make if first is None else lambda ctx: make(first(ctx))


class QueryDecorator(_Decorator[C]):
    """`@query`: a function that reads, and whose result clients may subscribe to."""

    def __call__(self, function: Callable[Concatenate[C, P], R], /) -> QueryFunction[P, R]:
        """Make a query of a function."""
        return QueryFunction(function, self._with_ctx(function), internal=self._internal)

    @property
    def internal(self) -> QueryDecorator[C]:
        """The same for functions that clients cannot call."""
        return QueryDecorator(self._make, internal=True)

    def using(self, make: Callable[[C], D], /) -> QueryDecorator[D]:
        """Return a decorator whose functions take what `make` makes of the ctx."""
        return QueryDecorator(self._then(make), internal=self._internal)


class MutationDecorator(_Decorator[C]):
    """`@mutation`: a function that reads and writes; all of it takes effect at once or not at all."""

    def __call__(self, function: Callable[Concatenate[C, P], R], /) -> MutationFunction[P, R]:
        """Make a mutation of a function."""
        return MutationFunction(function, self._with_ctx(function), internal=self._internal)

    @property
    def internal(self) -> MutationDecorator[C]:
        """The same for functions that clients cannot call."""
        return MutationDecorator(self._make, internal=True)

    def using(self, make: Callable[[C], D], /) -> MutationDecorator[D]:
        """Return a decorator whose functions take what `make` makes of the ctx."""
        return MutationDecorator(self._then(make), internal=self._internal)


class ActionDecorator(Generic[C]):
    """`@action`: an `async def` that waits for the network, among many others; it is no transaction.

    Args:
        make: Makes the ctx that the function takes out of an `ActionCtx`; None: takes that.
        internal: Whether its functions are hidden from clients.
        cancel_with_caller: Whether its functions are cancelled when their caller goes away.
    """

    def __init__(
        self,
        make: Callable[[Any], Any] | None = None,
        *,
        internal: bool = False,
        cancel_with_caller: bool = False,
    ) -> None:
        self._make = make
        self._internal = internal
        self._cancel_with_caller = cancel_with_caller

    @overload
    def __call__(
        self, function: Callable[Concatenate[C, P], Coroutine[Any, Any, R]], /
    ) -> ActionFunction[P, R]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[C, P], AsyncIterator[T]], /
    ) -> StreamFunction[P, T]: ...
    @overload
    def __call__(self, /, *, cancel_with_caller: bool) -> ActionDecorator[C]: ...
    def __call__(self, function: Any = None, /, *, cancel_with_caller: bool = False) -> Any:
        """Make an action of a function; one that yields streams its pieces to the caller.

        Args:
            function: An `async def`. None: return a decorator with the options given.
            cancel_with_caller: Cancel it when its caller goes away. Otherwise it goes on to its end; one that
                streams is cancelled in any case, as nobody would take its pieces.
        """
        if function is None:
            return ActionDecorator[C](
                self._make, internal=self._internal, cancel_with_caller=cancel_with_caller
            )
        kind: Any = StreamFunction if inspect.isasyncgenfunction(function) else ActionFunction
        return kind(
            function,
            self.with_ctx(function),
            internal=self._internal,
            cancel_with_caller=self._cancel_with_caller,
        )

    @property
    def internal(self) -> ActionDecorator[C]:
        """The same for functions that clients cannot call."""
        return ActionDecorator(self._make, internal=True, cancel_with_caller=self._cancel_with_caller)

    @overload
    def using(self, make: Callable[[C], Coroutine[Any, Any, D]], /) -> ActionDecorator[D]: ...
    @overload
    def using(self, make: Callable[[C], D], /) -> ActionDecorator[D]: ...
    def using(self, make: Callable[[C], Any], /) -> ActionDecorator[Any]:
        """Return a decorator whose functions take what `make` makes of the ctx; it may be an `async def`."""
        first = self._make

        async def both(ctx: Any) -> Any:
            return await _made(make, ctx if first is None else await _made(first, ctx))

        return ActionDecorator(both, internal=self._internal, cancel_with_caller=self._cancel_with_caller)

    def with_ctx(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that takes an `ActionCtx` and hands on what is made of it."""
        make = self._make
        if make is None:
            return function
        if inspect.isasyncgenfunction(function):

            @wraps(function)
            async def pieces(ctx: Any, *args: Any, **kwargs: Any) -> Any:
                async with aclosing(function(await _made(make, ctx), *args, **kwargs)) as made:
                    async for piece in made:
                        yield piece

            return pieces

        @wraps(function)
        async def with_ctx(ctx: Any, *args: Any, **kwargs: Any) -> Any:
            return await function(await _made(make, ctx), *args, **kwargs)

        return with_ctx


async def _made(make: Callable[[Any], Any], ctx: Any) -> Any:
    made = make(ctx)
    return await made if inspect.isawaitable(made) else made


action: ActionDecorator[ActionCtx] = ActionDecorator()
query: QueryDecorator[QueryCtx] = QueryDecorator()
mutation: MutationDecorator[MutationCtx] = MutationDecorator()
