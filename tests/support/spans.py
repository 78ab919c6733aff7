"""A collector of spans, whose requests are read with OpenTelemetry's own messages."""

from __future__ import annotations

import json
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.collector import Collector, collecting
from support.daemon import wait_until
from support.own_python import python_with

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FOLDER = Path(__file__).parent / "opentelemetry"

Span = dict[str, Any]


class Spans:
    """What a collector has been sent.

    Attributes:
        collector: The server.
    """

    def __init__(self, collector: Collector, reader: subprocess.Popen[str]) -> None:
        self.collector = collector
        self._reader = reader
        self._read: list[Span] = []
        self._batches = 0

    @property
    def options(self) -> tuple[str, ...]:
        """Flags of a daemon that sends to it."""
        port = self.collector.server_address[1]
        return ("--traces-url", f"http://127.0.0.1:{port}", "--traces-wait-s", "0.05")

    def all(self) -> list[Span]:
        """Return all spans that have come; fails if a request is none of OTLP."""
        assert self._reader.stdin is not None
        assert self._reader.stdout is not None
        batches = list(self.collector.batches)
        for _, body in batches[self._batches :]:
            self._reader.stdin.write(body.decode() + "\n")
            self._reader.stdin.flush()
            told = self._reader.stdout.readline()
            assert told, f"this is no request of OTLP: {body!r}"
            self._read += json.loads(told)
        self._batches = len(batches)
        return list(self._read)

    def until(self, holds: Callable[[list[Span]], Any]) -> list[Span]:
        """Wait until what has come is what is wanted, and return it."""
        wait_until(lambda: holds(self.all()))
        return self.all()

    def of_call(self, name: str, trace: str = "") -> list[Span]:
        """Wait for the span of a call, of a trace if it is said, and return all of its trace in their order.

        Of a call its own span is told last.
        """

        def found(spans: list[Span]) -> list[Span]:
            return [span for span in spans if span["name"] == name and trace in ("", span["trace"])]

        spans = self.until(found)
        wanted = found(spans)[-1]["trace"]
        return sorted((span for span in spans if span["trace"] == wanted), key=lambda span: span["start"])


@contextmanager
def collecting_spans() -> Iterator[Spans]:
    """Run a collector for the length of the block."""
    program = python_with(_FOLDER / "requirements.txt")
    reader = subprocess.Popen(
        [program, str(_FOLDER / "read_spans.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        with collecting() as collector:
            yield Spans(collector, reader)
    finally:
        assert reader.stdin is not None
        assert reader.stdout is not None
        reader.stdin.close()
        reader.wait(20)
        reader.stdout.close()
