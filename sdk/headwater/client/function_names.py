"""How callers name the functions of a bundle. Pure."""

from __future__ import annotations

from typing import Any, Protocol

from headwater_protocol.errors import RequestError

from headwater.client.references import Reference


class NamedFunction(Protocol):
    """A function that knows the name it is called by, as functions of a bundle do."""

    @property
    def name(self) -> str:
        """`module:function`."""
        ...


FunctionName = str | NamedFunction
AnyFunction = FunctionName | Reference


def function_name(function: AnyFunction) -> str:
    """Return the name of a function given by name, as itself or as its stub.

    Raises:
        RequestError: It is neither.
    """
    if isinstance(function, Reference):
        return function.path
    name = function if isinstance(function, str) else getattr(function, "name", None)
    if not isinstance(name, str) or not name:
        raise RequestError(f"expected a function or its name such as 'messages:list', got {function!r}")
    return name


PAGE_ARGUMENT = "options"


def page_argument(function: AnyFunction) -> str:
    """Return the name of a function's argument of type `PageOptions`, as far as the function tells.

    Raises:
        RequestError: It tells that it has none.
    """
    if isinstance(function, str):
        return PAGE_ARGUMENT
    name = getattr(function, "page_argument", PAGE_ARGUMENT)
    if not isinstance(name, str):
        raise RequestError(f"{function_name(function)} has no argument of type PageOptions")
    return name


def check_named(positional: tuple[Any, ...]) -> None:
    """Refuse arguments of a function that are given by their place.

    Raises:
        TypeError: There are some.
    """
    if positional:
        raise TypeError(f"arguments are given by their names; got {positional[0]!r} by its place")
