"""What the daemon and the zygote tell each other: one small msgpack array a packet.

The socket keeps packets apart (`SOCK_SEQPACKET`). The two descriptors of a new worker, its
link and its progress page, travel with `Spawn`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from headwater_server.functions.limits import WorkerLimits  # noqa: TC001 (msgspec resolves it)

PACKET_BYTES_MAX = 16 * 1024

EXIT_MEMORY = 81
"""Exit code of a worker that hit its memory limit."""

RoleName = Literal["transactions", "actions"]
"""What a worker does: queries and mutations one after another over the store, or actions side by side."""


class Assignment(msgspec.Struct, array_like=True, frozen=True):
    """What a worker is for.

    Attributes:
        data: The data directory.
        bundle_hash: Name of the bundle it serves for life.
        bundle_file: Where the bundle lies.
        folder: Where it is, or is to be, unpacked.
        limits: Its bounds.
        role: What it does.
    """

    data: str
    bundle_hash: str
    bundle_file: str
    folder: str
    limits: WorkerLimits
    role: RoleName = "transactions"


class Spawn(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """Fork a worker; answered by `Spawned`, and by `Exited` when it has ended."""

    worker: int
    assignment: Assignment


class Kill(msgspec.Struct, array_like=True, frozen=True, tag=2):
    """End a worker now. The zygote is its parent, so its pid cannot have been given to another process."""

    worker: int


class Spawned(msgspec.Struct, array_like=True, frozen=True, tag=17):
    """The worker was forked; `pid` is 0 when it could not be, and `Exited` follows at once."""

    worker: int
    pid: int


class Exited(msgspec.Struct, array_like=True, frozen=True, tag=18):
    """The worker is gone, with everything it held.

    Attributes:
        worker: Which one.
        status: Exit code, or the negative number of the signal that ended it.
    """

    worker: int
    status: int


ToZygote = Spawn | Kill
FromZygote = Spawned | Exited
