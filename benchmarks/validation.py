"""What checking the arguments and the result of a typical call costs, in one process.

Ours: from encoded arguments to checked Python objects, and from the result to checked, encoded bytes, as a worker does
around each call. The limit: msgspec alone decoding the same arguments to a plain dict and encoding the same result,
which checks nothing.
"""

from __future__ import annotations

import inspect
import sys
import time
import typing
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from headwater import Id, Meta, Struct, Table
from headwater.annotations import Tables
from headwater.arguments import ArgumentsCodec
from headwater.results import ResultCodec
from headwater_protocol.ids import make_suffix, table_prefix

from benchmarks import slices

CALLS = 200
TABLE_NUMBER = 40


class Channel(Table, name="channels"):
    """What a call refers to."""

    title: str


class Posted(Struct, frozen=True):
    """What a call returns."""

    channel: Id[Channel]
    number: int
    at: datetime
    tags: list[str]
    state: Literal["new", "seen"] = "new"


def post(
    ctx: object,
    channel: Id[Channel],
    body: Annotated[str, Meta(min_length=1, max_length=2_000)],
    tags: list[str],
    priority: int = 0,
    reply_to: Id[Channel] | None = None,
) -> Posted:
    """Stand for a mutation."""
    return Posted(channel, priority, datetime(2026, 1, 2, tzinfo=UTC), tags)


def measure(slice_count: int) -> slices.Paired:
    """Measure both in turns."""
    hints = typing.get_type_hints(post, include_extras=True)
    tables = Tables([Channel])
    arguments = ArgumentsCodec("f:post", list(inspect.signature(post).parameters.values())[1:], hints, tables)
    result = ResultCodec("f:post", hints["return"], tables)
    channel: Any = table_prefix(TABLE_NUMBER) + make_suffix(1_700_000_000_000_000, 0, bytes(10))
    content = msgspec.msgpack.encode(
        {"channel": channel, "body": "Shall we meet at noon?", "tags": ["lunch", "today"], "priority": 2}
    )
    posted = post(None, channel, "Yes, at the gate.", ["lunch", "today"], 7)

    def table_of(document_id: str) -> str | None:
        return "channels" if document_id.startswith(channel[:2]) else None

    def ours(seconds: float) -> float:
        def call() -> None:
            arguments.decode(content, table_of)
            result.encode(posted, (), table_of)

        return _microseconds(call, seconds)

    def plain(seconds: float) -> float:
        decode, encode = msgspec.msgpack.Decoder().decode, msgspec.msgpack.Encoder().encode

        def call() -> None:
            decode(content)
            encode(posted)

        return _microseconds(call, seconds)

    return slices.in_turns(ours, plain, more_is_better=False, slices=slice_count)


def _microseconds(call: Any, seconds: float) -> float:
    """Return the CPU time of a call, on average over so many seconds: what else the machine does counts less then."""
    calls, start = 0, time.process_time()
    while (spent := time.process_time() - start) < seconds:
        for _ in range(CALLS):
            call()
        calls += CALLS
    return spent / calls * 1e6


def main() -> int:
    """Run the benchmark."""
    chosen = slices.arguments(__doc__).parse_args()
    report = slices.Report("validation", measure(chosen.slices).row("µs a call"))
    report.further["machine"] = slices.machine()
    report.print(as_json=chosen.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
