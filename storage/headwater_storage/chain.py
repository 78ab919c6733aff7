"""Proposals that ran one after another, each over the uncommitted writes of those before it.

Two sides of one thing. A worker reads through a `ChainSnapshot`: a snapshot with the writes
of the chain's members laid over it. The committer keeps a `Chain`: what others have written
since the chain's snapshot, which is what its members have not seen. A member stands if
nothing of that touches its reads, and nothing that a member wrote which did not commit.

Both sides count members in the order in which they ran. So that neither grows without end,
a chain moves on: members that are published are read from a newer snapshot, and what others
wrote counts from there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from headwater_storage.apply import changes_of
from headwater_storage.overlay import Overlay, overlaid
from headwater_storage.proposal import CommitTs
from headwater_storage.window import CommitWindow, PendingKeys

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from headwater_storage.proposal import Proposal, Write
    from headwater_storage.store import State, StoreSnapshot

FOREIGN_BYTES_MAX = 16 << 20
"""Memory for what others wrote during a chain; beyond it the chain's next member does not stand."""


class ChainSnapshot:
    """A snapshot as it will be when the chain's members are committed behind it.

    Args:
        base: The snapshot below, closed with this one.
        since_ts: What others wrote after this ts may be missing here; at most the ts of
            `base`. It takes the place of the snapshot's ts in proposals.
    """

    __slots__ = ("_base", "_documents", "_entries", "state")

    def __init__(self, base: StoreSnapshot, since_ts: CommitTs) -> None:
        self.state: State = base.state._replace(ts=since_ts)
        self._base = base
        self._documents: Overlay[bytes] = Overlay()
        self._entries: Overlay[bytes] = Overlay()

    @property
    def ts(self) -> CommitTs:
        """The ts from which on the writes of others may be missing."""
        return self.state.ts

    def lay_over(self, writes: Sequence[Write]) -> None:
        """Show the writes of one more member."""
        changes = changes_of([(self.ts, writes)])
        for key, value in changes.documents.items():
            self._documents.set(key, value)
        for key, value in changes.entries.items():
            self._entries.set(key, value)

    def get_document(self, key: bytes) -> bytes | None:
        """Return a stored value, None if there is no such document."""
        states = self._documents.states
        return states[key] if key in states else self._base.get_document(key)

    def get_entry(self, key: bytes) -> bytes | None:
        """Return an index entry's value, None if there is no such entry."""
        states = self._entries.states
        return states[key] if key in states else self._base.get_entry(key)

    def documents(self, lo: bytes, hi: bytes, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Iterate keys and stored values of `[lo, hi)`, lazily."""
        base = self._base.documents(lo, hi, reverse)
        over = self._documents.within(lo, hi)
        return overlaid(base, over, descending=reverse) if over else base

    def entries(self, lo: bytes, hi: bytes, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Iterate entry keys and values of `[lo, hi)`, lazily."""
        base = self._base.entries(lo, hi, reverse)
        over = self._entries.within(lo, hi)
        return overlaid(base, over, descending=reverse) if over else base

    def close(self) -> None:
        """Close the snapshot below."""
        self._base.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Chain:
    """A chain as the committer sees it: what its members have not seen.

    Attributes:
        failed: A member did not commit: who sends members should begin a new chain.
        broken: What earlier members wrote was taken back: no member stands any more.
        settled: How many members are published; no longer counted once `failed`.
        settled_ts: Published ts as of the last of them: a snapshot from then on has them, and
            what others wrote counts from there. 0 before the first.
    """

    __slots__ = ("_foreign", "_lost", "_pending", "broken", "failed", "settled", "settled_ts")

    def __init__(self) -> None:
        self.failed = False
        self.broken = False
        self.settled = 0
        self.settled_ts = CommitTs(0)
        self._foreign: CommitWindow | None = None  # set by `begin`
        self._pending = PendingKeys()  # of others, in the open batch
        self._lost = PendingKeys()  # of members that did not commit

    @property
    def begun(self) -> bool:
        """Whether its first member has come."""
        return self._foreign is not None

    def begin(self, window: CommitWindow, pending: PendingKeys, since_ts: CommitTs) -> None:
        """Count what others have written since the first member's snapshot, and from now on."""
        self._foreign = window.since(since_ts, bytes_max=FOREIGN_BYTES_MAX)
        self._pending.add(pending.keys)

    def stands(self, proposal: Proposal) -> bool:
        """Tell whether a member has seen everything that was committed, or will be, before it."""
        assert self._foreign is not None, "begun"
        if self.broken:
            return False
        foreign, points, ranges = self._foreign, proposal.points, proposal.ranges
        stands = not (
            foreign.touched_after(proposal.begin_ts, points, ranges)
            or self._pending.touched(points, ranges)
            or self._lost.touched(points, ranges)
        )
        foreign.trim(proposal.begin_ts)
        return stands

    def touching(self, proposal: Proposal) -> bytes | None:
        """Return a key that a member has read and that is why it does not stand; None if that is not known."""
        points, ranges = proposal.points, proposal.ranges
        if self._foreign is not None:
            found = self._foreign.touching(proposal.begin_ts, points, ranges)
            if found is not None:
                return found
        return self._pending.touching(points, ranges) or self._lost.touching(points, ranges)

    def fail(self, proposal: Proposal) -> None:
        """Note a member that does not commit: whoever read what it wrote does not stand either."""
        self.failed = True
        self._lost.add(proposal.conflict_keys())

    def break_off(self) -> None:
        """Note that members which had been accepted do not commit after all."""
        self.failed = self.broken = True

    def others_join(self, keys: set[bytes]) -> None:
        """Note what somebody else writes in the open batch."""
        self._pending.add(keys)

    def others_seal(self, ts: CommitTs, derived: Collection[bytes]) -> None:
        """Note that the open batch was closed and ends at `ts`; `derived` comes to its keys."""
        if self._foreign is not None:
            self._pending.add(set(derived))
            self._foreign.add(ts, self._pending.keys)
            self._pending = PendingKeys()

    def undo(self, ts: CommitTs) -> None:
        """Take back the newest sealed batch: the log refused it."""
        if self._foreign is not None:
            self._foreign.undo(ts)

    def settle(self, count: int, published_ts: CommitTs) -> None:
        """Count members as published."""
        if not self.failed:
            self.settled += count
            self.settled_ts = published_ts
