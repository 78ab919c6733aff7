"""Collects what a call prints and logs, line by line, up to a bound."""

from __future__ import annotations

import io
import logging
from typing import Protocol

from headwater.refusals import encodable

LEVELS = (
    (logging.CRITICAL, "critical"),
    (logging.ERROR, "error"),
    (logging.WARNING, "warning"),
    (logging.INFO, "info"),
)

_CUT = "… the rest of this call's output was dropped"


class CallOutput:
    """The lines of the call that runs now.

    Args:
        lines_max: Lines kept of one call.
        bytes_max: Characters kept of one call, about.
    """

    def __init__(self, lines_max: int, bytes_max: int) -> None:
        self._lines_max = lines_max
        self._bytes_max = bytes_max
        self._lines: list[tuple[str, str]] = []
        self._size = 0
        self._count = 0
        self._full = False
        self.streams = (LineStream(self, "info"), LineStream(self, "error"))

    def add(self, level: str, text: str) -> None:
        """Keep one line, cut to what is left of the bound."""
        if self._full:
            return
        room = self._bytes_max - self._size
        if self._count >= self._lines_max or room <= 0:
            self._full = True
            self._lines.append(("warning", _CUT))
            return
        self._lines.append((encodable(level), encodable(text[:room])[:room]))
        self._count += 1
        self._size += len(text) + 1

    def take_complete(self) -> list[tuple[str, str]]:
        """Return the lines so far of a call that goes on: they are not returned again, and still count."""
        lines, self._lines = self._lines, []
        return lines

    def take(self) -> list[tuple[str, str]]:
        """Return the lines of the call that has ended and begin anew."""
        for stream in self.streams:
            if stream.partial:
                stream.end_line()
        if not self._count and not self._full:
            return []
        self._size, self._count, self._full = 0, 0, False
        return self.take_complete()


class LineStream(io.TextIOBase):
    """Stands in for `sys.stdout` or `sys.stderr`.

    Attributes:
        partial: The beginning of a line whose end was not written yet; bounded.
    """

    _PARTIAL_MAX = 64 * 1024

    def __init__(self, output: CallOutput, level: str) -> None:
        self._output = output
        self._level = level
        self.partial = ""

    def writable(self) -> bool:
        """Say that it can be written to."""
        return True

    def write(self, text: str) -> int:
        """Take text; each complete line goes to the output."""
        lines = (self.partial + text).split("\n")
        self.partial = lines.pop()[: self._PARTIAL_MAX]
        for line in lines:
            self._output.add(self._level, line)
        return len(text)

    def end_line(self) -> None:
        """Treat what is left as a line."""
        self._output.add(self._level, self.partial)
        self.partial = ""


class Lines(Protocol):
    """What keeps lines."""

    def add(self, level: str, text: str) -> None:
        """Keep one line."""


class OutputHandler(logging.Handler):
    """Gives log records of user code to the output, with their level."""

    def __init__(self, output: Lines) -> None:
        super().__init__()
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one record as one line."""
        self._output.add(level_of(record.levelno), self.format(record))


def level_of(number: int) -> str:
    """Return the name of a level; one that user code has made is called by the one below it."""
    return next((name for least, name in LEVELS if number >= least), "debug")
