"""Destinations of call events that are files: a rotating one, and the console. Each has a thread that may be held up.

A disk or a pipe can stand still for any time. Then events wait, within bounds, and the rest is counted and told.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from typing import TYPE_CHECKING, Protocol

from headwater_server.observe.call_log import WaitingEvents

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from headwater_server.observe.call_log import CallEvent, Dropped, EventFilter, WaitingRoom

logger = logging.getLogger("headwater.calls")

_CLOSE_LIMIT_S = 0.5
_CLOSE_LOOK_S = 0.01
_PAUSE_S = 1.0  # after a write that failed


class LineFile(Protocol):
    """Takes lines; may block for any time."""

    def write(self, lines: Sequence[bytes]) -> None:
        """Write all of them, or raise OSError."""

    def close(self) -> None:
        """Write nothing more."""


class WriterThread:
    """Writes events as lines, in a thread of its own; implements `Destination`.

    Args:
        name: For messages and metrics.
        wanted: Which events.
        room: How much may wait.
        line: Makes an event a line; called in the thread alone.
        file: Where lines go; used in the thread alone.
    """

    _AT_ONCE = 256

    def __init__(
        self,
        name: str,
        wanted: EventFilter,
        room: WaitingRoom,
        line: Callable[[CallEvent | Dropped], bytes],
        file: LineFile,
    ) -> None:
        self.name = name
        self._line = line
        self._file = file
        self._events = WaitingEvents(wanted, room)
        self._lock = threading.Lock()
        self._moved = threading.Event()
        self._closing = False
        # A daemon thread: one that hangs in a write must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=f"headwater-{name}", daemon=True)

    @property
    def dropped(self) -> int:
        """How many events it was not given."""
        return self._events.dropped

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def offer(self, event: CallEvent) -> None:
        """Let an event be written, or count it."""
        with self._lock:
            kept = self._events.add(event)
        if kept and not self._moved.is_set():
            self._moved.set()

    async def close(self) -> None:
        """Write what waits, as far as that takes no longer than a moment."""
        self._closing = True
        self._moved.set()
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + _CLOSE_LIMIT_S
        while self._thread.is_alive() and loop.time() < deadline_s:  # noqa: ASYNC110 - the thread has no loop
            await asyncio.sleep(_CLOSE_LOOK_S)

    def _run(self) -> None:
        pause = threading.Event()
        failing = False
        while True:
            self._moved.wait()
            self._moved.clear()
            while True:
                with self._lock:
                    taken = self._events.take(self._AT_ONCE)
                if not taken:
                    break
                try:
                    self._file.write([self._line(item) for item in taken])
                    failing = False
                except OSError as error:
                    with self._lock:
                        self._events.lose(taken)
                    if not failing:  # once, not for each line that is lost
                        logger.warning(
                            "call_log_not_written",
                            extra={
                                "fields": {"destination": self.name, "error": error.strerror or str(error)}
                            },
                        )
                    failing = True
                    if self._closing:
                        break
                    pause.wait(_PAUSE_S)
            if self._closing:
                self._file.close()
                return


class Descriptor:
    """An open file that belongs to somebody else, as standard error does; implements `LineFile`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, lines: Sequence[bytes]) -> None:
        """Write lines."""
        _write_all(self._descriptor, b"".join(lines))

    def close(self) -> None:
        """Leave it to its owner."""


class RotatingFile:
    """A file that is renamed to `name.1` when it is full, `name.1` to `name.2` and so on; implements `LineFile`.

    Args:
        path: The newest.
        bytes_max: Size at which another is begun.
        kept: So many older ones are kept.
    """

    def __init__(self, path: Path, bytes_max: int, kept: int) -> None:
        self._path = path
        self._bytes_max = bytes_max
        self._kept = kept
        self._descriptor: int | None = None
        self._size = 0

    def write(self, lines: Sequence[bytes]) -> None:
        """Write lines, each whole in one file."""
        part: list[bytes] = []
        for line in lines:
            if self._descriptor is None:
                self._open()
            if self._size and self._size + len(line) > self._bytes_max:
                self._flush(part)
                self._rotate()
            part.append(line)
            self._size += len(line)
        self._flush(part)

    def close(self) -> None:
        """Close it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, 0o600)
        self._size = os.fstat(self._descriptor).st_size

    def _flush(self, part: list[bytes]) -> None:
        if part and self._descriptor is not None:
            content = b"".join(part)
            part.clear()
            try:
                _write_all(self._descriptor, content)
            except OSError:
                self.close()  # its size is not known any more
                raise

    def _rotate(self) -> None:
        self.close()
        for number in range(self._kept, 0, -1):
            older = self._path.with_name(f"{self._path.name}.{number}")
            newer = self._path if number == 1 else self._path.with_name(f"{self._path.name}.{number - 1}")
            with contextlib.suppress(FileNotFoundError):
                newer.replace(older)
        if not self._kept:
            self._path.unlink(missing_ok=True)
        self._open()


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
