"""Who wrote what in the newest batches: whom a proposal lost to.

Pure. It holds on to commits that are in memory anyway as they are written, for a little longer; beyond a number
of bytes the oldest go.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from headwater_storage.proposal import CommitTs, Proposal

_BATCHES_MAX = 64
_BYTES_MAX = 4 << 20


class _Batch(NamedTuple):
    ts: CommitTs
    written: Sequence[tuple[Any, Proposal]]
    size: int


class RecentCommits:
    """The commits of the newest batches, those that are on their way to the disk included."""

    def __init__(self) -> None:
        self._batches: deque[_Batch] = deque()
        self._size = 0

    def add(self, ts: CommitTs, written: Sequence[tuple[Any, Proposal]], size: int) -> None:
        """Keep a batch.

        Args:
            ts: Its end.
            written: Whose proposals it commits, and these.
            size: Bytes that they write.
        """
        self._batches.append(_Batch(ts, written, size))
        self._size += size
        while self._batches and (self._size > _BYTES_MAX or len(self._batches) > _BATCHES_MAX):
            self._size -= self._batches.popleft().size

    def undo(self, ts: CommitTs) -> None:
        """Forget the newest batch, which was refused."""
        if self._batches and self._batches[-1].ts == ts:
            self._size -= self._batches.pop().size

    def writer(self, ts: CommitTs | None, key: bytes) -> Any:
        """Return whose commit, in the batch that ended at `ts`, wrote a key; None if that is not known."""
        for batch in reversed(self._batches):
            if batch.ts == ts:
                return writer_in(batch.written, key)
        return None


def writer_in(written: Iterable[tuple[Any, Proposal]], key: bytes) -> Any:
    """Return whose proposal writes a key, None if none does."""
    wanted = {key}
    return next((owner for owner, proposal in written if proposal.written_among(wanted)), None)
