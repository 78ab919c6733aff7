"""Events of the log of calls as Convex's command line reads them, and lines in them as its clients do.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from headwater_server.observe.call_log import SUCCESS, CallEvent, Dropped

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_KINDS = {"query": "Query", "mutation": "Mutation", "action": "Action", "route": "HttpAction"}
_LEVELS = {"debug": "DEBUG", "info": "INFO", "warning": "WARN", "error": "ERROR", "critical": "ERROR"}
_NOTHING_USED = (
    "storageReadBytes",
    "storageWriteBytes",
    "textIndexQueryBytes",
    "textIndexWriteQueryBytes",
    "vectorIndexReadBytes",
    "vectorIndexReadQueryBytes",
    "vectorIndexWriteBytes",
    "vectorIndexWriteQueryBytes",
    "memoryUsedMb",
)


def level_of(level: str) -> str:
    """Return what Convex's clients call a level of ours; a level that somebody made up counts as `INFO`."""
    return _LEVELS.get(level, "INFO")


def with_lines(answer: bytes, lines: Sequence[tuple[str, str]]) -> bytes:
    """Return a message to a client that has none with what its call printed, which its console shows."""
    texts = orjson.dumps([f"[{level_of(level)}] {text}" for level, text in lines])
    return answer.replace(
        b'"logLines":[]', b'"logLines":' + texts, 1
    )  # it stands before all that users wrote


def entries_of(items: Iterable[CallEvent | Dropped]) -> list[dict[str, Any]]:
    """Return the entries for some events, in their order."""
    return [_left_out(item) if isinstance(item, Dropped) else _entry(item) for item in items]


def _entry(event: CallEvent) -> dict[str, Any]:
    time_s = event.time_us / 1e6
    entry = {
        "kind": "Completion" if event.outcome else "Progress",
        "identifier": event.function,
        "udfType": _KINDS[event.kind],
        "timestamp": time_s,
        "logLines": _lines(event.lines, event.time_us // 1000),
        "requestId": event.request_id or str(event.number),
        "executionId": str(event.number),
    }
    if not event.outcome:
        return entry
    failure, usage = event.failure, event.usage
    run_s = usage.duration_us / 1e6 if usage is not None else 0.0
    error = None
    if failure is not None:
        error = "\n".join(
            part for part in (f"{failure.code}: {failure.message}", failure.trace.rstrip()) if part
        )
    return entry | {
        "success": None,
        "error": error,
        "caller": event.origin,
        "environment": "python",
        "identityType": "unknown" if event.identity is None else "user",
        "cachedResult": event.outcome == SUCCESS and event.runs == 0,
        "executionTime": run_s,
        "executionTimestamp": time_s - (run_s if event.total_s is None else event.total_s),
        "usageStats": {
            "databaseReadBytes": usage.bytes_read if usage is not None else 0,
            "databaseReadDocuments": usage.documents_read if usage is not None else 0,
            "databaseWriteBytes": usage.bytes_written if usage is not None else 0,
            **dict.fromkeys(_NOTHING_USED, 0),
        },
    }


def _left_out(dropped: Dropped) -> dict[str, Any]:
    count = "some calls" if dropped.count is None else f"{dropped.count} calls"
    text = f"{count} are missing here: they are not kept any more"
    return {
        "kind": "Progress",
        "identifier": "headwater",
        "udfType": "Query",
        "timestamp": 0.0,
        "logLines": _lines((("warning", text),), 0),
        "requestId": "",
        "executionId": "",
    }


def _lines(lines: Sequence[tuple[str, str]], time_ms: int) -> list[dict[str, Any]]:
    return [
        {"messages": [text], "level": level_of(level), "timestamp": time_ms, "isTruncated": False}
        for level, text in lines
    ]
