"""Failing system calls below one folder, chosen by a test: the other side of `native/faults.c`."""

from __future__ import annotations

import ctypes
import errno
import mmap
from collections import Counter
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from support.native import built

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random


class Kind(IntEnum):
    """What becomes of the chosen call.

    NO_ROOM: it fails, and all calls after it that need space, until there is room again.
    SHORT: half of it is written; after that as above.
    FAIL: it fails, whatever it is.
    FAIL_SYNC: it is a sync and fails.
    """

    OFF = 0
    NO_ROOM = 1
    SHORT = 2
    FAIL = 3
    FAIL_SYNC = 4


class Plan(NamedTuple):
    """One kind of fault.

    Attributes:
        kind: What happens.
        number: With which errno.
        tell_free: While it is full, `statvfs` says so too.
    """

    kind: Kind
    number: int
    tell_free: bool = False

    @property
    def is_full(self) -> bool:
        """Whether the disk is full, not failing."""
        return self.kind in (Kind.NO_ROOM, Kind.SHORT)


PLANS = (
    Plan(Kind.NO_ROOM, errno.ENOSPC),
    Plan(Kind.NO_ROOM, errno.ENOSPC, tell_free=True),
    Plan(Kind.NO_ROOM, errno.EDQUOT),
    Plan(Kind.SHORT, errno.ENOSPC),
    Plan(Kind.FAIL, errno.EIO),
    Plan(Kind.FAIL_SYNC, errno.EIO),
    Plan(Kind.FAIL_SYNC, errno.ENOSPC),
)


class _Control(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_uint32) for name in ("kind", "number", "at", "tell_free")),
        *((name, ctypes.c_uint32) for name in ("count", "fired", "room", "meta")),
        ("offset", ctypes.c_uint64),
        ("call", ctypes.c_char * 32),
        ("file", ctypes.c_char * 216),
    )


class Faults:
    """Arms the library in all processes that have it, at any moment.

    Args:
        folder: The only folder whose files it touches.
        control: File through which it is told; outside of that folder.
    """

    def __init__(self, folder: Path, control: Path) -> None:
        self._folder, self._file = folder, control
        if not control.exists():
            control.write_bytes(bytes(mmap.PAGESIZE))
        with control.open("r+b") as file:
            self._control = _Control.from_buffer(mmap.mmap(file.fileno(), mmap.PAGESIZE))

    @property
    def environment(self) -> dict[str, str]:
        """What a process has to have in its environment to be under control."""
        return {
            "LD_PRELOAD": str(built("faults")),
            "FAULTS_FOLDER": str(self._folder),
            "FAULTS_CONTROL": str(self._file),
        }

    def arm(self, plan: Plan, at: int) -> None:
        """Have the `at`-th call from now on fail, counted from 1 among those that the plan is about."""
        control = self._control
        control.kind = Kind.OFF
        control.number, control.at, control.tell_free = plan.number, at, plan.tell_free
        control.count = control.fired = control.room = control.meta = 0
        control.call = control.file = b""
        control.kind = plan.kind

    def disarm(self) -> None:
        """Let everything work; what fired can still be asked."""
        self._control.kind = Kind.OFF

    def give_room(self) -> None:
        """Let there be room again."""
        self._control.room = 1

    @property
    def fired(self) -> bool:
        """Whether the chosen call was met."""
        return bool(self._control.fired)

    @property
    def has_room(self) -> bool:
        """Whether there was room again after the disk was full."""
        return bool(self._control.room)

    @property
    def full(self) -> bool:
        """Whether a full disk was met and has no room yet."""
        return self.fired and self._control.kind in (Kind.NO_ROOM, Kind.SHORT) and not self._control.room

    @property
    def place(self) -> str:
        """The call that fired and its file: `pwrite store/data.mdb`, `rename log/segment`."""
        folder, _, name = self._control.file.decode().rpartition("/")
        inner = next((part for part in ("store", "log", "bundles") if part in folder.split("/")), "")
        name = "segment" if name.startswith("segment-") else "bundle" if inner == "bundles" else name
        return f"{self._control.call.decode()} {inner}/{name}"

    @property
    def hit_meta(self) -> bool:
        """Whether LMDB's write of a meta page was among what failed: LMDB takes nothing any more after that."""
        return bool(self._control.meta)


class Tally:
    """What a campaign has met.

    Attributes:
        fired: Injection points met, by kind and place.
        refused: Writes that were refused.
        acknowledged: Writes that were acknowledged.
    """

    def __init__(self) -> None:
        self.fired: Counter[tuple[str, str]] = Counter()
        self.refused = 0
        self.acknowledged = 0

    def note(self, plan: Plan, place: str) -> None:
        """Count one point."""
        self.fired[f"{plan.kind.name} {errno.errorcode[plan.number]}", place] += 1

    @property
    def points(self) -> int:
        """How many there were."""
        return self.fired.total()

    def text(self) -> str:
        """Return all of it, a line a place."""
        lines = [f"{count:5} {kind:20} {place}" for (kind, place), count in sorted(self.fired.items())]
        return "\n".join(
            [*lines, f"{self.points} points, {self.acknowledged} acknowledged, {self.refused} refused"]
        )


def some(count: int, chance: Random) -> list[tuple[Plan, int]]:
    """Return points of every kind, chosen by chance, the earlier ones more often."""
    return [(PLANS[i % len(PLANS)], 1 + int(60 * chance.random() ** 2)) for i in range(count)]
