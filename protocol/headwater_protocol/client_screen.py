"""What a client shows: the results of its queries as the server told them, and pending changes on top.

Pure but for the updates it calls, which belong to the caller; a part of `client_session`.

Results arrive one by one and are shown in steps. A step (`settle`) takes over everything that has arrived,
so what is shown always held at one moment. On top of it stand the *optimistic updates* of
mutations that no step covers yet: each is run again, in the order of the mutations, over the results of
every step. So a change is shown from the call of its mutation on, by the update first and by
the results from the very step that covers it; none shows it twice or not at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, assert_never

from headwater_protocol.client_events import QueryFailed, UpdateFailed, ValueChanged
from headwater_protocol.deltas import apply_delta
from headwater_protocol.errors import ProtocolError
from headwater_protocol.failures import error_from
from headwater_protocol.messages import ChangeBody, Delta, Failed, Removed, Unchanged, Value
from headwater_protocol.values import canonical_bytes, unpack_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from headwater_protocol.client_events import ClientEvent
    from headwater_protocol.errors import HeadwaterError

    Update = Callable[["View"], None]
    Key = tuple[str, bytes]
    Overlay = Mapping[Key, bytes]

_OVERHEAD_BYTES = 64  # numbers, headers and digest of one query in a ModifyQuerySet, at most


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a query came to: a value, or an error."""

    value: Any
    error: HeadwaterError | None = None


@dataclass(slots=True)
class Query:
    """A subscription.

    Attributes:
        name: Function.
        arguments: Encoded map; equal arguments have equal bytes.
        confirmed: Whether it shows what the server told at once, without steps and updates.
        carried: Whether the present connection knows it.
        value: Last value; None while it failed or has none.
        digest: Names `value` to the server; None while there is none to start a delta from.
        journal: What the server wants back when the query is resumed.
        arrived: What has come since the last step, if anything.
        settled: What stands since then; None before the first result.
        shown: Bytes that an update shows in place of `settled`, None while none does.
    """

    name: str
    arguments: bytes
    confirmed: bool = False
    carried: bool = False
    value: Any = None
    digest: bytes | None = None
    journal: bytes | None = None
    arrived: Outcome | None = None
    settled: Outcome | None = None
    shown: bytes | None = None

    @property
    def size_bytes(self) -> int:
        """How much of a frame it takes, at most."""
        return len(self.name) * 4 + len(self.arguments) + len(self.journal or b"") + _OVERHEAD_BYTES

    def value_after(self, number: int, body: ChangeBody) -> Any:
        """Return the value (or the error) that a change brings, without applying it."""
        match body:
            case Value(content):
                return unpack_value(content)
            case Delta(operations):
                if self.digest is None:
                    raise ProtocolError(f"Transition.changes: a delta for query {number}, which has no value")
                return apply_delta(self.value, operations)
            case Unchanged(digest):
                if self.digest is None or digest != self.digest:
                    raise ProtocolError(
                        f"Transition.changes: query {number} has another value than 'unchanged' says"
                    )
            case Failed(error):
                return error_from(error)
        return self.value

    def apply(self, body: ChangeBody, value: Any) -> Outcome | None:
        """Take over what `value_after` returned; return what it comes to, None if it stays as it was."""
        match body:
            case Value() | Delta():
                self.value, self.digest, self.journal = value, body.digest, body.journal
                return Outcome(value)
            case Unchanged():
                self.journal = body.journal
                return None
            case Failed():
                self.value = self.digest = None
                return Outcome(None, value)
            case Removed():
                return None
            case _:
                assert_never(body)


class View:
    """Results as an optimistic update finds and changes them; of use while the update runs.

    Arguments are encoded maps, see `canonical_bytes`. Values are not to be changed in place.
    """

    def __init__(self, base: Mapping[Key, Any], overlay: Overlay) -> None:
        self._base = base
        self._overlay = overlay
        self.changes: dict[Key, bytes] = {}

    def get(self, name: str, arguments: bytes) -> tuple[Any] | None:
        """Return the value that a query shows, in a tuple; None if it shows none or is not subscribed."""
        key = name, arguments
        changed = self.changes.get(key) or self._overlay.get(key)
        if changed is not None:
            return (unpack_value(changed),)
        return (self._base[key],) if key in self._base else None

    def set(self, name: str, arguments: bytes, value: Any) -> None:
        """Show another value for a query, if it is subscribed.

        Raises:
            RequestError: It is no value.
        """
        self.changes[name, arguments] = canonical_bytes(value)

    def arguments_of(self, name: str) -> Iterator[bytes]:
        """Yield the arguments of every query of a function that shows a value."""
        keys = dict.fromkeys([*self._base, *self._overlay, *self.changes])
        return (arguments for other, arguments in keys if other == name)


@dataclass(slots=True)
class Screen:
    """All subscriptions of a client.

    Attributes:
        queries: By number.
    """

    queries: dict[int, Query] = field(default_factory=dict)
    _arrived: dict[int, None] = field(default_factory=dict)  # in the order in which they came
    _overlaid: set[int] = field(default_factory=set)

    def remove(self, number: int) -> Query:
        """Forget a query and return it."""
        self._arrived.pop(number, None)
        self._overlaid.discard(number)
        return self.queries.pop(number)

    def apply(self, number: int, body: ChangeBody, value: Any) -> list[ClientEvent]:
        """Take a change that has arrived; the next step shows it."""
        query = self.queries[number]
        outcome = query.apply(body, value)
        if outcome is None:
            return []
        if query.confirmed:
            return [_told(number, outcome)]
        query.arrived = outcome
        self._arrived[number] = None
        return []

    def settle(self, updates: Iterable[tuple[int, Update]]) -> list[ClientEvent]:
        """Take a step: show all that has arrived, under the updates, by request, that it does not cover."""
        settled = self._arrived
        self._arrived = {}
        for number in settled:
            query = self.queries[number]
            query.settled, query.arrived = query.arrived, None
        return self._show(updates, settled)

    def show(self, updates: Iterable[tuple[int, Update]]) -> list[ClientEvent]:
        """Show what stands since the last step under other updates than before."""
        return self._show(updates, {})

    def attempt(self, updates: Iterable[tuple[int, Update]], update: Update) -> None:
        """Run an update for the first time, over the others; what it raises reaches the caller."""
        base = self._base()
        self._run(update, base, self._overlay(updates, base, []))

    # ------------------------------------------------------------------------------------------ one step

    def _base(self) -> dict[Key, Any]:
        return {
            (query.name, query.arguments): query.settled.value
            for query in self.queries.values()
            if not query.confirmed and query.settled is not None and query.settled.error is None
        }

    def _run(self, update: Update, base: Mapping[Key, Any], overlay: Overlay) -> dict[Key, bytes]:
        view = View(base, overlay)
        update(view)
        return view.changes

    def _overlay(
        self, updates: Iterable[tuple[int, Update]], base: Mapping[Key, Any], failures: list[ClientEvent]
    ) -> Overlay:
        """Run the updates one on top of the other; one that fails changes nothing."""
        subscribed = {(query.name, query.arguments) for query in self.queries.values() if not query.confirmed}
        overlay: dict[Key, bytes] = {}
        for request, update in updates:
            try:
                changes = self._run(update, base, overlay)
            except Exception as error:
                failures.append(UpdateFailed(request, error))
            else:
                overlay |= {key: content for key, content in changes.items() if key in subscribed}
        return overlay

    def _show(self, updates: Iterable[tuple[int, Update]], settled: Mapping[int, None]) -> list[ClientEvent]:
        pending = list(updates)
        events: list[ClientEvent] = []
        overlay = self._overlay(pending, self._base(), events) if pending else {}
        numbers = dict.fromkeys(settled) | dict.fromkeys(sorted(self._overlaid))
        if overlay:
            numbers |= dict.fromkeys(self.queries)
        for number in numbers:
            query = self.queries[number]
            content = None if query.confirmed else overlay.get((query.name, query.arguments))
            events += _difference(number, query, content, fresh=number in settled)
            query.shown = content
            (self._overlaid.discard if content is None else self._overlaid.add)(number)
        return events


def _difference(number: int, query: Query, content: bytes | None, *, fresh: bool) -> list[ClientEvent]:
    """Return what there is to tell when a query shows `content`, or else what is settled.

    A value that equals the one before is not told again, if an update has shown one of the two.
    """
    if content is None and query.shown is None:
        return [_told(number, query.settled)] if fresh and query.settled is not None else []
    if content is None:
        if query.settled is None:
            return []  # the update has shown it before the server; its first result is on the way
        if query.settled.error is None and canonical_bytes(query.settled.value) == query.shown:
            return []
        return [_told(number, query.settled)]
    if content == query.shown:
        return []
    return [ValueChanged(number, unpack_value(content))]


def _told(number: int, outcome: Outcome) -> ClientEvent:
    if outcome.error is not None:
        return QueryFailed(number, outcome.error)
    return ValueChanged(number, outcome.value)
