"""What a worker tells of a call that was run to be explained."""

from __future__ import annotations

import msgspec
from headwater_storage.explained import ReadCost, WriteCost  # noqa: TC002 (msgspec resolves them)


class Explained(msgspec.Struct, array_like=True, frozen=True):
    """What a call has read, and would have written.

    Attributes:
        result_bytes: Size of its encoded result.
        reads: What it read, and what that cost.
        more_reads: How many reads are not among those.
        variables: Environment variables read.
        identity_read: Whether it looked at the identity.
        clock_read: Whether it asked what time it is.
        writes: What it would write.
        jobs: How many jobs it would schedule.
    """

    result_bytes: int
    reads: list[ReadCost]
    more_reads: int
    variables: list[str]
    identity_read: bool
    clock_read: bool
    writes: list[WriteCost]
    jobs: int
