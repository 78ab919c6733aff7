"""The decorators that make functions of a bundle."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar

from headwater.context import MutationCtx, MutationFunction, QueryCtx, QueryFunction, R

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
C = TypeVar("C")
D = TypeVar("D")


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


query: QueryDecorator[QueryCtx] = QueryDecorator()
mutation: MutationDecorator[MutationCtx] = MutationDecorator()
