"""What `headwater explain` prints for people."""

from __future__ import annotations

from typing import Any

from headwater.cli.explain import _parts

READ = {
    "table": "messages",
    "index": "by_channel",
    "text": 'channel = "c"',
    "times": 1,
    "documents": 2,
    "bytes": 90,
}
CAUSE = {
    "number": 4,
    "ts": 77,
    "function": "chat:send",
    "table": "messages",
    "index": None,
    "text": "document 1a",
}
LIVE = {"queries": 1, "subscribers": 1_200, "held": True, "reruns": 5, "unchanged": 2, "causes": [CAUSE]}
TOLD = {
    "function": "chat:list",
    "kind": "query",
    "outcome": "success",
    "error": "",
    "duration_ms": 1.25,
    "documents_read": 2,
    "bytes_read": 90,
    "result_bytes": 1_234,
    "reads": [READ],
    "more_reads": 0,
    "variables": ["site"],
    "identity_read": False,
    "clock_read": False,
    "writes": [],
    "jobs": 0,
    "live": LIVE,
}


def parts(**changes: Any) -> list[Any]:
    return list(_parts(TOLD | changes))


def sentences(**changes: Any) -> str:
    return "\n".join(part for part in parts(**changes) if isinstance(part, str))


def test_a_query_is_told_by_its_reads_and_what_they_mean() -> None:
    first, reads, *_, causes = parts()
    assert first == "query chat:list · 1.2 ms · 2 documents, 90 bytes read · result 1,234 bytes"
    assert reads == [
        {"read": "messages.by_channel", "range": 'channel = "c"', "times": 1, "documents": 2, "bytes": 90}
    ]
    assert causes == [{"at": 77, "by": "chat:send", "in": "messages", "what": "document 1a"}]
    said = sentences()
    assert "everybody with these arguments is shown one result" in said
    assert "Environment variables read: site." in said
    assert "1,200 subscriptions; run again 5 times, 2 of them with the same result" in said
    assert "asked the time" not in said


def test_what_is_otherwise_is_said_otherwise() -> None:
    said = sentences(
        identity_read=True,
        clock_read=True,
        more_reads=3,
        outcome="time_limit",
        error="too long",
        live=LIVE | {"queries": 0, "causes": []},
    )
    for text in (
        "a result and runs of their own",
        "asked the time",
        "3 further reads",
        "[time_limit] too long",
        "Nobody looks",
    ):
        assert text in said


def test_a_mutation_is_told_by_its_writes_and_conflicts() -> None:
    write = {"table": "messages", "deed": "inserted", "documents": 1, "bytes": 44}
    lost = {"function": "chat:send", "table": "messages", "lost_to": "chat:move", "count": 7}
    found = parts(kind="mutation", writes=[write], jobs=2, conflicts=[lost])
    assert [{"table": "messages", "": "inserted", "documents": 1, "bytes": 44}] in found
    assert "It would schedule 2 jobs." in found
    assert "Nothing of this was committed." in found
    assert [{"on": "messages", "lost to": "chat:move", "times": 7}] in found
    assert "lost to no other" in sentences(kind="mutation", conflicts=[])
