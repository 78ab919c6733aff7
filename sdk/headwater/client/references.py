"""Functions as generated stubs name them: `client.query(api.messages.list, channel=channel)` is checked by type checkers.

What a reference carries at run time is a name; its type parameters carry arguments and result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, NoReturn, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
T = TypeVar("T")

ABSENT: Any = object()
"""Default of a parameter in a stub whose own default is not written there; what is not given is not sent."""


class Reference:
    """A function of a bundle.

    Attributes:
        path: What it is called by, `module:function`.
        page_argument: Name of its argument of type `PageOptions`, None if it has none.
    """

    def __init__(self, path: str, page_argument: str | None = None) -> None:
        self.path = path
        self.page_argument = page_argument

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}>"


class QueryReference(Reference, Generic[P, R]):
    """A query with arguments `P` and result `R`."""


class PagedReference(QueryReference[P, R], Generic[P, R, Q, T]):
    """A query that is read page by page: `Q` are its arguments but for the page options, `T` are its rows."""


class MutationReference(Reference, Generic[P, R]):
    """A mutation with arguments `P` and result `R`."""


class ActionReference(Reference, Generic[P, R]):
    """An action with arguments `P` and result `R`."""


class StreamReference(Reference, Generic[P, T]):
    """An action that streams: its arguments are `P`, each piece is a `T`."""


def query_reference(path: str) -> Callable[[Callable[P, R]], QueryReference[P, R]]:
    """Return what makes a reference of a stub."""
    return lambda _: QueryReference(path)


def paged_reference(
    path: str, argument: str, rows: Callable[Q, T]
) -> Callable[[Callable[P, R]], PagedReference[P, R, Q, T]]:
    """Return what makes a reference of a stub with page options; `rows` is a stub without them that returns a row."""
    del rows
    return lambda _: PagedReference(path, argument)


def mutation_reference(path: str) -> Callable[[Callable[P, R]], MutationReference[P, R]]:
    """Return what makes a reference of a stub."""
    return lambda _: MutationReference(path)


def action_reference(path: str) -> Callable[[Callable[P, R]], ActionReference[P, R]]:
    """Return what makes a reference of a stub."""
    return lambda _: ActionReference(path)


def stream_reference(path: str) -> Callable[[Callable[P, T]], StreamReference[P, T]]:
    """Return what makes a reference of a stub, whose result is one piece."""
    return lambda _: StreamReference(path)


def stub() -> NoReturn:
    """Be the body of a stub.

    Raises:
        TypeError: Always: stubs are handed to a client, not called.
    """
    raise TypeError("a stub is handed to a client, as in client.query(api.messages.list, ...)")
