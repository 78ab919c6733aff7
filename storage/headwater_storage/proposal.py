"""What a transaction proposes to the committer: plain data that can cross a pipe or a network.

Pure. Produced by `Transaction.proposal()` in a worker, validated by one pure function
(`window.conflict`), written to the log as after-images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NewType

import msgspec

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

CommitTs = NewType("CommitTs", int)

Range = tuple[bytes, bytes]
"""Half-open interval `[lo, hi)` of document keys or of entry keys."""


class Write(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One document after the transaction, with its place in every index of its table.

    Attributes:
        key: Document key.
        value: Stored value (checksum, shape, document); None deletes.
        old_entries: Its entry key in every index of its table before the transaction;
            empty for an insert.
        new_entries: The same after it; empty for a delete.
        overflow: For an entry key in `new_entries` whose field tuple was cut: the rest of
            the tuple. Rare.
    """

    key: bytes
    value: bytes | None
    old_entries: list[bytes]
    new_entries: list[bytes]
    overflow: dict[bytes, bytes] = {}

    def conflict_keys(self) -> set[bytes]:
        """Return the document key and its old and new key in every index, changed or not."""
        return {self.key, *self.old_entries, *self.new_entries}


class Backfill(msgspec.Struct, array_like=True, frozen=True):
    """Give an index the entries of the documents in `[lo, hi)`; they are derived when it is applied."""

    index_number: int
    lo: bytes
    hi: bytes


class Proposal(msgspec.Struct, array_like=True, frozen=True):
    """A transaction that ran at `begin_ts` and wants to commit.

    Attributes:
        begin_ts: Snapshot it read.
        points: Document keys it read, also those that were missing.
        ranges: Key ranges it read; a range that ended early reaches to the last key seen,
            one that ran dry to its end.
        writes: Documents it changes, at most one each.
        backfill: Index entries to derive at apply; only deploys set it.
        quiet: Whoever reads what it writes finds what was there before: documents in another encoding, with the
            same entries, that calls of the active bundle read as the same. It has no conflict keys.
    """

    begin_ts: CommitTs
    points: list[bytes]
    ranges: list[Range]
    writes: list[Write]
    backfill: Backfill | None = None
    quiet: bool = False

    def conflict_keys(self) -> set[bytes]:
        """Return the keys that make other transactions conflict and results stale."""
        keys: set[bytes] = set()
        if self.quiet:
            return keys
        for write in self.writes:
            keys |= write.conflict_keys()
        return keys

    def written_among(self, keys: AbstractSet[bytes]) -> set[bytes]:
        """Return those of some keys that it makes others conflict over."""
        found: set[bytes] = set()
        if self.quiet:
            return found
        for write in self.writes:
            if write.key in keys:
                found.add(write.key)
            found.update(keys & {*write.old_entries, *write.new_entries})
        return found
