"""What an optimistic update reads and changes: the results that this client shows. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from headwater_protocol.values import canonical_bytes, unpack_value

from headwater.client.function_names import AnyFunction, FunctionName, check_named, function_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater_protocol.client_screen import View

    from headwater.client.references import QueryReference

P = ParamSpec("P")
R = TypeVar("R")


class LocalResults:
    """Results of the client's subscriptions, as an optimistic update is to find and change them.

    Of use only while the update runs. Values are the update's own to change; `set` makes
    them show.
    """

    def __init__(self, view: View) -> None:
        self._view = view

    @overload
    def get(
        self, function: QueryReference[P, R], default: None = None, /, *args: P.args, **arguments: P.kwargs
    ) -> R | None: ...
    @overload
    def get(self, function: FunctionName, default: Any = None, /, **arguments: Any) -> Any: ...
    def get(self, function: AnyFunction, default: Any = None, /, *_placed: Any, **arguments: Any) -> Any:
        """Return what a query shows; `default` if it is not subscribed, has no result yet or failed."""
        check_named(_placed)
        found = self._view.get(function_name(function), canonical_bytes(arguments))
        return default if found is None else copied(found[0])

    @overload
    def set(
        self, function: QueryReference[P, R], value: R, /, *args: P.args, **arguments: P.kwargs
    ) -> None: ...
    @overload
    def set(self, function: FunctionName, value: Any, /, **arguments: Any) -> None: ...
    def set(self, function: AnyFunction, value: Any, /, *_placed: Any, **arguments: Any) -> None:
        """Show another value for a query; without effect if it is not subscribed.

        Raises:
            RequestError: It is no value.
        """
        check_named(_placed)
        self._view.set(function_name(function), canonical_bytes(arguments), value)

    def all(self, function: AnyFunction, /) -> list[tuple[dict[str, Any], Any]]:
        """Return the arguments and the value of every query of a function that shows one."""
        name = function_name(function)
        found = [(packed, self._view.get(name, packed)) for packed in self._view.arguments_of(name)]
        return [(unpack_value(packed), copied(value[0])) for packed, value in found if value is not None]

    @classmethod
    def update(cls, update: Callable[[LocalResults], None]) -> Callable[[View], None]:
        """Return an update as the session takes it."""
        return lambda view: update(cls(view))


def copied(value: Any) -> Any:
    """Return a value that its owner may change: the session's own is the base of the next delta."""
    if type(value) is list:
        return [copied(item) if type(item) in (dict, list) else item for item in value]
    if type(value) is dict:
        return {key: copied(item) if type(item) in (dict, list) else item for key, item in value.items()}
    return value
