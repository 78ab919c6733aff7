"""What each call of a function did and printed: kept for a while, followed live, handed to destinations.

Pure but for the wake-ups of its followers. An event is built once, from what is there anyway, and becomes text
only where somebody reads it. Whoever does not keep up is told how much was left out; calls never wait for anybody.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec
from headwater_protocol.errors import TransientError
from headwater_protocol.values import unpack_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from headwater_server.worker.messages import Failure, Usage

CallKind = Literal["query", "mutation", "action", "route"]
Origin = Literal["session", "http", "subscription", "action", "job"]
IdentityForm = Literal["hashed", "plain", "off"]

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
SUCCESS = "success"

_FAULTS = frozenset(
    {"internal_error", "invalid_result", "worker_died", "time_limit", "damaged", "disk_full", "disk_failed"}
)
_EVENT_BYTES = 600  # what an event takes besides its texts, about
_NAME_CHARACTERS_MAX = 200
_NAMES_REMEMBERED = 10_000
_DIGEST_BYTES = 8


@dataclass(slots=True, eq=False)
class CallEvent:
    """A call that has ended, or lines of an action that goes on.

    Attributes:
        kind: What was called.
        function: Its name, as the caller wrote it.
        origin: Who called: a client with a session, somebody over HTTP, the daemon for a subscription, an action.
        outcome: `success` or the code of an error; "" while it goes on.
        time_us: When it ended, µs since 1970; set when it is recorded.
        number: Counts events, rising also across restarts; set when it is recorded.
        usage: What its last run cost; None if nobody could tell.
        total_s: From its request to its end; None for one that nobody has asked for.
        runs: How often it has run; 0: it was answered from what is remembered of it.
        failure: Why it failed.
        request_id: What its caller was told in place of the failure, "" if they were not.
        session: The client's name across connections.
        identity: Who called, encoded.
        action: Number of the action that it is or that called it; 0: none.
        lines: What its last run printed, level and text.
    """

    kind: CallKind
    function: str
    origin: Origin
    outcome: str
    usage: Usage | None = None
    total_s: float | None = None
    runs: int = 1
    failure: Failure | None = None
    request_id: str = ""
    session: bytes | None = None
    identity: bytes | None = None
    action: int = 0
    lines: Sequence[tuple[str, str]] = ()
    time_us: int = 0
    number: int = 0
    kept_bytes: int = 0  # what it was counted as while it is kept

    @property
    def level(self) -> int:
        """How much it matters: as much as how it ended, or the gravest of its lines."""
        plain = self.outcome in ("", SUCCESS)
        grave = LEVELS["info" if plain else "error" if self.outcome in _FAULTS else "warning"]
        if not self.lines:
            return grave
        return max([grave, *(LEVELS.get(level, grave) for level, _ in self.lines)])

    @property
    def size_bytes(self) -> int:
        """What it takes in memory, about."""
        size = _EVENT_BYTES + len(self.function)
        if self.lines:
            size += sum(len(text) + 100 for _, text in self.lines)
        if self.failure is not None:
            size += len(self.failure.message) + len(self.failure.trace)
        return size


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events somebody wants.

    Attributes:
        function: Of this function; ending in `:` or `/`, of this module or folder; "": of all.
        level: At least this.
        request_id: Of the call whose caller was told this id; "": of all.
        quiet: Without calls that succeeded and printed nothing.
    """

    function: str = ""
    level: int = 0
    request_id: str = ""
    quiet: bool = False

    def takes(self, event: CallEvent) -> bool:
        """Tell whether an event is wanted."""
        if self.function and not self._names(event.function):
            return False
        if self.request_id and event.request_id != self.request_id:
            return False
        if self.quiet and event.outcome == SUCCESS and not event.lines:
            return False
        return event.level >= self.level

    def _names(self, function: str) -> bool:
        return function == self.function or (
            self.function.endswith((":", "/")) and function.startswith(self.function)
        )


@dataclass(frozen=True, slots=True)
class Dropped:
    """In the place of events that somebody was not given.

    Attributes:
        count: How many; None: nobody knows, the daemon was started anew meanwhile.
    """

    count: int | None


class Destination(Protocol):
    """Where events go. No method may wait."""

    def offer(self, event: CallEvent) -> None:
        """Take an event, or count it as dropped."""


@dataclass(frozen=True, slots=True)
class WaitingRoom:
    """How much may wait for one follower or destination.

    Attributes:
        events_max: So many events.
        bytes_max: So many bytes of them, about.
    """

    events_max: int = 10_000
    bytes_max: int = 8 << 20


class WaitingEvents:
    """The events that wait for somebody; when there is no room, they are counted in their place.

    Attributes:
        dropped: How many they were not given, in all.
    """

    def __init__(self, wanted: EventFilter, room: WaitingRoom) -> None:
        self._wanted = wanted
        self._room = room
        self._waiting: deque[CallEvent | Dropped] = deque()
        self._bytes = 0
        self._untold = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, event: CallEvent) -> bool:
        """Keep an event, unless there is no room or it is not wanted; tell whether it was kept."""
        if not self._wanted.takes(event):
            return False
        room = self._room
        if len(self._waiting) >= room.events_max or self._bytes + event.kept_bytes > room.bytes_max:
            self.dropped += 1
            self._untold += 1
            return False
        self._tell()
        self._waiting.append(event)
        self._bytes += event.kept_bytes
        return True

    def take(self, most: int) -> list[CallEvent | Dropped]:
        """Return the oldest of them, and when they are the last ones what was dropped behind them."""
        taken: list[CallEvent | Dropped] = []
        while self._waiting and len(taken) < most:
            item = self._waiting.popleft()
            if not isinstance(item, Dropped):
                self._bytes -= item.kept_bytes
            taken.append(item)
        if taken and not self._waiting:
            self._tell()
            taken.extend(self._waiting)
            self._waiting.clear()
        return taken

    def lose(self, items: Sequence[CallEvent | Dropped]) -> None:
        """Count what was taken and could not be handed on; how many that were is told with the next ones."""
        events = sum(1 for item in items if not isinstance(item, Dropped))
        self.dropped += events
        self._untold += events + sum(item.count or 0 for item in items if isinstance(item, Dropped))

    def _tell(self) -> None:
        if self._untold:
            self._waiting.append(Dropped(self._untold))
            self._untold = 0


class Follower:
    """Somebody who reads events as they come.

    Attributes:
        closed: The daemon stops: nothing more comes.
    """

    def __init__(self, wanted: EventFilter, room: WaitingRoom) -> None:
        self._events = WaitingEvents(wanted, room)
        self._moved = asyncio.Event()
        self.closed = False

    @property
    def dropped(self) -> int:
        """How many events they were not given."""
        return self._events.dropped

    def offer(self, event: CallEvent) -> None:
        """Keep an event until it is read, or count it."""
        if self._events.add(event):
            self._moved.set()

    def close(self) -> None:
        """Let whoever waits know that nothing comes any more."""
        self.closed = True
        self._moved.set()

    async def take(self, most: int, wait_s: float) -> list[CallEvent | Dropped]:
        """Return what has come, waiting for it no longer than that; nothing if nothing has."""
        if not self._events and not self.closed:
            self._moved.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await self._moved.wait()
            except TimeoutError:
                return []
        return self._events.take(most)


@dataclass(frozen=True, slots=True)
class CallLogOptions:
    """Bounds of the log.

    Attributes:
        events_max: Events kept.
        bytes_max: Bytes kept, about.
        followers_max: So many may follow at the same time.
        room: What may wait for one of them.
    """

    events_max: int = 5_000
    bytes_max: int = 16 << 20
    followers_max: int = 16
    room: WaitingRoom = WaitingRoom()


class CallLog:
    """The events of this daemon.

    Args:
        options: Bounds.
        wall_us: Wall clock in µs.

    Attributes:
        destinations: Where each event goes besides.
        recorded: How many there were.
    """

    def __init__(self, options: CallLogOptions, wall_us: Callable[[], int]) -> None:
        self._options = options
        self._wall_us = wall_us
        self._events: deque[CallEvent] = deque()
        self._bytes = 0
        self._first = self._next = wall_us()  # beyond the numbers of earlier lives
        self._followers: set[Follower] = set()
        self._closed = False
        self.destinations: list[Destination] = []

    @property
    def recorded(self) -> int:
        """How many events there were."""
        return self._next - self._first

    @property
    def newest(self) -> int:
        """Number of the last event; before the first one, a number below its."""
        return self._next - 1

    @property
    def followers(self) -> int:
        """How many follow."""
        return len(self._followers)

    def record(self, event: CallEvent) -> None:
        """Keep an event, and hand it on."""
        event.time_us = self._wall_us()
        event.number = self._next
        self._next += 1
        if len(event.function) > _NAME_CHARACTERS_MAX:
            event.function = event.function[:_NAME_CHARACTERS_MAX] + "…"
        events = self._events
        events.append(event)
        event.kept_bytes = event.size_bytes
        self._bytes += event.kept_bytes
        while len(events) > self._options.events_max or (self._bytes > self._options.bytes_max and events):
            self._bytes -= events.popleft().kept_bytes
        for destination in self.destinations:
            destination.offer(event)
        for follower in self._followers:
            follower.offer(event)

    def kept(
        self, wanted: EventFilter, *, after: int | None = None, limit: int | None = None
    ) -> list[CallEvent | Dropped]:
        """Return events that are kept, oldest first.

        Args:
            wanted: Which.
            after: Only later ones than the event of this number. If some of those are not kept any more, that
                is said first.
            limit: The newest so many.
        """
        found: list[CallEvent | Dropped] = []
        for event in reversed(self._events):
            if (after is not None and event.number <= after) or len(found) == limit:
                break
            if wanted.takes(event):
                found.append(event)
        found.reverse()
        if after is not None and len(found) != limit:
            missing = self._missing_after(after)
            if missing is not None:
                found.insert(0, missing)
        return found

    def _missing_after(self, after: int) -> Dropped | None:
        oldest = self._events[0].number if self._events else self._next
        if after < self._first - 1:
            return Dropped(None)
        return Dropped(oldest - after - 1) if after < oldest - 1 else None

    def follow(self, wanted: EventFilter) -> Follower:
        """Return what gets each event from now on, until `leave`.

        Raises:
            TransientError: `overloaded`: enough others do.
        """
        most = self._options.followers_max
        if len(self._followers) >= most:
            raise TransientError(
                f"{most} follow the log of calls already (`call_log_followers_limit`)", code="overloaded"
            )
        follower = Follower(wanted, self._options.room)
        self._followers.add(follower)
        if self._closed:
            follower.close()
        return follower

    def leave(self, follower: Follower) -> None:
        """Hand a follower nothing more."""
        self._followers.discard(follower)

    def close(self) -> None:
        """End all who follow."""
        self._closed = True
        for follower in self._followers:
            follower.close()


@dataclass(slots=True)
class EventText:
    """Makes events readable, with callers under other names.

    Attributes:
        form: How users are named: `hashed`, `plain` or not at all (`off`).
        secret: Returns what keys the hashes, the same each time; drawn anew at each start, so that nobody can look up
            whose hash it is.
    """

    form: IdentityForm
    secret: Callable[[], bytes]
    _users: dict[bytes, str] = field(default_factory=dict)

    def fields(self, event: CallEvent) -> dict[str, Any]:
        """Return an event as plain values, without what says nothing."""
        row: dict[str, Any] = {
            "id": event.number,
            "time_ms": event.time_us / 1000,
            "type": "call" if event.outcome else "printed",
            "level": level_name(event.level),
            "kind": event.kind,
            "function": event.function,
            "origin": event.origin,
        }
        row.update(self._optional(event))
        return row

    def line(self, event: CallEvent | Dropped) -> bytes:
        """Return an event as one line of JSON."""
        row = dropped_fields(event) if isinstance(event, Dropped) else self.fields(event)
        return _encode_json(row) + b"\n"

    def _optional(self, event: CallEvent) -> Iterator[tuple[str, Any]]:
        if event.outcome:
            yield "outcome", event.outcome
            yield "runs", event.runs
        if event.total_s is not None:
            yield "total_ms", round(event.total_s * 1000, 3)
        if (usage := event.usage) is not None:
            yield "run_ms", usage.duration_us / 1000
            if event.kind in ("query", "mutation"):  # others read and write nothing by themselves
                yield "documents_read", usage.documents_read
                yield "bytes_read", usage.bytes_read
                yield "documents_written", usage.documents_written
                yield "bytes_written", usage.bytes_written
        if event.action:
            yield "action", event.action
        if event.session is not None:
            yield "session", self._digest(event.session)
        if event.identity is not None and self.form != "off":
            yield "user", self._user(event.identity)
        if event.request_id:
            yield "request_id", event.request_id
        if (failure := event.failure) is not None:
            yield "error", failure.message
            if failure.trace:
                yield "trace", failure.trace
        if event.lines:
            yield "lines", [{"level": level, "text": text} for level, text in event.lines]

    def _user(self, identity: bytes) -> str:
        found = self._users.get(identity)
        if found is None:
            whole = str(unpack_value(identity)["tokenIdentifier"])
            found = whole if self.form == "plain" else self._digest(whole.encode())
            if len(self._users) >= _NAMES_REMEMBERED:
                self._users.clear()
            self._users[identity] = found
        return found

    def _digest(self, text: bytes) -> str:
        return blake2b(text, digest_size=_DIGEST_BYTES, key=self.secret()).hexdigest()


def dropped_fields(dropped: Dropped) -> dict[str, Any]:
    """Return what is said in place of events that were left out."""
    return {"type": "dropped", "count": dropped.count}


def level_name(number: int) -> str:
    """Return the name of a level; one of its own is called by the one below it."""
    return next((name for name, least in reversed(LEVELS.items()) if number >= least), "debug")


_encode_json = msgspec.json.Encoder().encode
