"""Sessions, the live queries they look at, and the versions those have: three kinds that know each other.

Pure. A result version is right for an interval of commit timestamps. Sharing belongs to a
version, not to a query: whether a run looks at the identity depends on data, so a version
is for everybody if that run did not, and for that identity alone if it did.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from headwater_server.reactive.moves import NOTHING, NOTHING_OF_WHOLES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headwater_server.reactive.contents import Content
    from headwater_server.reactive.views import View

FOREVER = 1 << 62
_NOBODY = b"-"  # no identity is encoded like this


class QueryKey(NamedTuple):
    """What makes two subscriptions the same live query."""

    name: str
    arguments: bytes
    journal: bytes | None
    internal: bool = False  # it may be an internal function: never shared with those who may not call one

    @property
    def size_bytes(self) -> int:
        """What this key costs in memory at most: Python's texts take up to four bytes a character."""
        return 4 * len(self.name) + len(self.arguments) + len(self.journal or b"")


@dataclass(frozen=True, slots=True)
class QueryResult:
    """What a run in a round gave.

    Attributes:
        content: Result or failure.
        points: Document keys read, the row "active bundle" among them.
        ranges: Key ranges read.
        identity_read: Whether the run looked at the identity.
        journal: What a later run must be given to keep its page ends.
        duration_ms: How long the worker took.
    """

    content: Content
    points: Sequence[bytes]
    ranges: Sequence[tuple[bytes, bytes]]
    identity_read: bool
    journal: bytes | None
    duration_ms: float


class Version:
    """One result of a live query, right at every ts with `since <= ts < until`.

    Attributes:
        serial: Rises with every version; gives work an order that a seed repeats.
        until: `FOREVER` until a commit touches what the run read; set once.
        private: Whether only sessions of `identity` may use it.
        journal: The run's journal, or the one it was given.
        homes: Live queries that hold this version: its own, and the one under its journal.
    """

    __slots__ = ("content", "homes", "identity", "journal", "private", "serial", "since", "until")

    def __init__(
        self, serial: int, since: int, until: int, private: bool, identity: bytes | None,
        content: Content, journal: bytes | None,
    ) -> None:  # fmt: skip
        self.serial = serial
        self.since = since
        self.until = until
        self.private = private
        self.identity = identity
        self.content = content
        self.journal = journal
        self.homes: list[LiveQuery] = []


@dataclass(slots=True)
class Killed:
    """A run that was ended by force: an error that is valid at every ts, until a retry succeeds.

    It has no read set, so nothing could ever make it stale; were it not exempt from the
    common ts, it would hold its sessions where they are for ever.

    Attributes:
        version: The error, in the form of a version that never ends.
        pause_ms: Pause before the next retry; doubles with every kill.
        due_ms: When the next retry may start, monotonic; infinite while one is waiting or running.
    """

    version: Version
    pause_ms: float
    due_ms: float


class LiveQuery:
    """One (function, arguments, journal) that somebody looks at.

    Attributes:
        shared: Versions for everybody, oldest first.
        private: Versions that are for one identity alone.
        killed: By identity, since a killed run does not tell whether it read it.
        strikes: Deaths of workers while this ran, by identity, since its last success.
        subscribers: How many subscriptions there are.
        views: Who looks at it, blocked sessions left out.
        identities: Of the subscriptions, with how many there are of each.
        cost_ms: Moving average of its runs, or an estimate before the first.
        number: Names it, and no other one.
        reruns: How often a result took the place of one that had become stale.
        unchanged: How many of those were equal to what they replaced.
    """

    __slots__ = (
        "_replaced", "cost_ms", "identities", "key", "killed", "number", "private", "reruns", "shared", "strikes",
        "subscribers", "unchanged", "views",
    )  # fmt: skip

    def __init__(self, key: QueryKey, cost_ms: float, number: int = 0) -> None:
        self.key = key
        self.number = number
        self.cost_ms = cost_ms
        self.shared: list[Version] = []
        self.private: dict[bytes | None, list[Version]] = {}
        self.killed: dict[bytes | None, Killed] = {}
        self.strikes: dict[bytes | None, int] = {}
        self.subscribers = 0
        self.views: dict[View, None] = {}
        self.identities: dict[bytes | None, int] = {}
        self.reruns = self.unchanged = 0
        self._replaced: dict[bytes | None, bytes] | None = None  # stale results by whom they are for

    def version_at(self, identity: bytes | None, ts: int) -> Version | None:
        """Return what a session of this identity may show at `ts`; None if it has to be run."""
        found = self.result_at(identity, ts)
        if found is None and self.killed:
            killed = self.killed.get(identity)
            return None if killed is None else killed.version
        return found

    def result_at(self, identity: bytes | None, ts: int) -> Version | None:
        """Return the version of a finished run, errors of killed runs left out."""
        for version in self.shared:
            if version.since <= ts < version.until:
                return version
        if self.private:
            for version in self.private.get(identity, ()):
                if version.since <= ts < version.until:
                    return version
        return None

    def versions(self) -> list[Version]:
        """Return all versions, shared and private."""
        return [*self.shared, *(version for own in self.private.values() for version in own)]

    def ended(self, version: Version) -> None:
        """Remember the result of a version that has become stale, until another takes its place."""
        if self._replaced is None:
            self._replaced = {}
        self._replaced[_whose(version)] = version.content.digest

    def forget(self, identity: bytes | None) -> None:
        """Forget what was remembered for an identity alone."""
        if self._replaced is not None:
            self._replaced.pop(identity or _NOBODY, None)

    def hold(self, version: Version) -> None:
        """Take a version in."""
        version.homes.append(self)
        if self._replaced is not None:
            self._count(self._replaced, version)
        if version.private:
            self.private.setdefault(version.identity, []).append(version)
        else:
            self.shared.append(version)
        self.changed()

    def changed(self) -> None:
        """Have whoever looks at it see what it shows now."""
        for view in self.views:
            view.look_again_at(self)

    def _count(self, replaced: dict[bytes | None, bytes], version: Version) -> None:
        digest = replaced.pop(_whose(version), None)
        if digest is not None:
            self.reruns += 1
            self.unchanged += digest == version.content.digest
        if not replaced:
            self._replaced = None

    def release(self, version: Version) -> None:
        """Let a version go."""
        version.homes.remove(self)
        if version.until == FOREVER:  # else they have been told when it ended
            self.changed()
        if not version.private:
            self.shared.remove(version)
            return
        own = self.private[version.identity]
        own.remove(version)
        if not own:
            del self.private[version.identity]


def _whose(version: Version) -> bytes | None:
    """Return for whom a version is; None: for everybody."""
    return (version.identity or _NOBODY) if version.private else None


class Subscription:
    """One query of one session.

    Attributes:
        query: Live query; another one once a journal has been adopted.
        size_bytes: Of the key it was made with.
    """

    __slots__ = ("query", "size_bytes")

    def __init__(self, query: LiveQuery) -> None:
        self.query = query
        self.size_bytes = query.key.size_bytes


class Session:
    """State of one connected client. Only the core changes it.

    Attributes:
        handle: Whatever the server wants to find again when something is delivered.
        ts: Where the client stands: 0 before its first transition.
        internal: Whether it may look at internal queries.
        subscriptions: By the client's number of the query.
        holding: What its client holds of them.
        removed: Queries taken away since the last transition, in order.
        answers: Ready to be sent, in order. Not empty only while the session is blocked.
        cover: The next transition that counts must reach at least this ts.
        due: A transition is owed even if no content differs. So it is while there are answers or removed queries.
        blocked: Its socket cannot take more; it joins no round and pins nothing.
        view: What it has in common with others; None while it is blocked and once it is closed.
        hold_ts: No later answer may be sent before this ts is published, to keep their order.
        kept_back: Told of each answer that has to be kept since the socket cannot take more; it may
            disconnect the session.
    """

    __slots__ = (
        "answers", "blocked", "closed", "cover", "due", "handle", "hold_ts", "holding", "identity", "internal", "kept_back",
        "removed", "subscriptions", "ts", "view",
    )  # fmt: skip

    def __init__(
        self,
        handle: Any,
        identity: bytes | None,
        kept_back: Callable[[Any], None] | None = None,
        *,
        whole: bool = False,
    ) -> None:
        self.handle = handle
        self.identity = identity
        self.internal = False
        self.ts = 0
        self.subscriptions: dict[int, Subscription] = {}
        self.holding = NOTHING_OF_WHOLES if whole else NOTHING
        self.removed: dict[int, None] = {}
        self.answers: deque[Any] = deque()
        self.cover = 0
        self.due = False
        self.blocked = False
        self.closed = False
        self.view: View | None = None
        self.hold_ts = 0
        self.kept_back = kept_back

    def take_answer(self, answer: Any, ts: int) -> None:
        """Keep an answer until the session is advanced; a transition that covers `ts` is owed from then on."""
        self.answers.append(answer)
        self.due = True
        self.cover = max(self.cover, ts)
        if self.blocked and self.kept_back is not None:
            self.kept_back(answer)

    def release_answers(self) -> list[Any]:
        """Take the answers out, in order, to be sent."""
        answers = list(self.answers)
        self.answers.clear()
        return answers

    def may_move_to(self, ts: int) -> bool:
        """Tell whether a transition to `ts`, short of the newest, brings the client forward."""
        return ts > self.ts or (self.due and ts == self.ts and ts >= self.cover)
