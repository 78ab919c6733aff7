"""A wall clock for the real daemon and its workers, set while they run (`native/clock.c`, in front of libc)."""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING

from support.native import built

if TYPE_CHECKING:
    from pathlib import Path

_NS = 1_000_000_000


class Wall:
    """The daemon's wall clock, which a test sets.

    Attributes:
        environment: What a process needs to have it.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(16))
        self._path = path
        self._offset_s = 0
        self.environment = {"LD_PRELOAD": str(built("clock")), "CLOCK_FILE": str(path)}

    def jump(self, seconds: int) -> None:
        """Set it forward or back."""
        self._set(self._offset_s + seconds, stuck_ns=0)

    def set_right(self) -> None:
        """Make it the machine's."""
        self._set(0, stuck_ns=0)

    def stand(self) -> None:
        """Stop it."""
        self._set(self._offset_s, stuck_ns=time.time_ns() + self._offset_s * _NS)

    def let_go(self) -> None:
        """Let it go on."""
        self._set(self._offset_s, stuck_ns=0)

    def _set(self, offset_s: int, *, stuck_ns: int) -> None:
        self._offset_s = offset_s
        with self._path.open("r+b") as file:  # not truncated: processes have it mapped
            file.write(struct.pack("qq", offset_s * _NS, stuck_ns))
