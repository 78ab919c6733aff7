"""The events of the log of calls as people read them. Pure.

12:00:00.123 mutation messages:send success · 1.2 ms · 1 written
hello from the function
12:00:01.007 query messages:list internal_error · 0.1 ms · request 5f0c2a3b9d11
Traceback (most recent call last):
…
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_PLAIN_LEVEL = "info"


def call_text(event: Mapping[str, Any]) -> str:
    """Return an event, as the server tells it, as one line and what belongs to it below, indented."""
    if event.get("type") == "dropped":
        count = event.get("count")
        return f"… {'some' if count is None else count} events are left out: they came faster than they were taken, or are not kept any more"
    parts = [
        _clock(event.get("time_ms", 0.0)),
        str(event.get("kind", "")),
        str(event.get("function", "")),
        event.get("outcome") or "goes on",
    ]
    lines = [_shown(" · ".join([" ".join(parts), *_notes(event)]))]
    for line in event.get("lines", ()):
        mark = "" if line["level"] == _PLAIN_LEVEL else f"{line['level']}: "
        lines.extend(_indented(mark + line["text"]))
    if event.get("trace"):
        lines.extend(_indented(event["trace"].rstrip("\n")))
    elif event.get("error"):
        lines.extend(_indented(f"! {event['error']}"))
    return "\n".join(lines)


def _notes(event: Mapping[str, Any]) -> list[str]:
    notes = []
    duration_ms = event.get("run_ms", event.get("total_ms"))
    if duration_ms is not None:
        notes.append(f"{duration_ms:.1f} ms")
    if event.get("documents_read"):
        notes.append(f"{event['documents_read']} read")
    if event.get("documents_written"):
        notes.append(f"{event['documents_written']} written")
    runs = event.get("runs", 1)
    if runs > 1:
        notes.append(f"{runs} runs")
    elif runs == 0:
        notes.append("answered from memory")
    if event.get("origin") in ("subscription", "action"):
        notes.append(f"for {'a subscription' if event['origin'] == 'subscription' else 'an action'}")
    if event.get("request_id"):
        notes.append(f"request {event['request_id']}")
    return notes


def _indented(text: str) -> list[str]:
    return ["    " + _shown(line) for line in text.split("\n")]


def _shown(text: str) -> str:
    """Return text without characters that would steer the terminal: functions print what clients send."""
    return "".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in text)


def _clock(ms: float) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]
