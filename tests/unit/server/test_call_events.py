"""The log of calls by itself: what is kept, what waits for readers, and what is told of the rest."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest
from headwater_protocol.errors import TransientError
from headwater_protocol.values import pack_value
from headwater_server.observe.call_log import (
    LEVELS,
    CallEvent,
    CallLog,
    CallLogOptions,
    Dropped,
    EventFilter,
    EventText,
    WaitingEvents,
    WaitingRoom,
    level_name,
)
from headwater_server.worker.messages import Failure, Usage
from headwater_server.worker.output import level_of
from hypothesis import given
from hypothesis import strategies as st

ALL = EventFilter()


def event(function: str = "a:b", outcome: str = "success", *lines: tuple[str, str]) -> CallEvent:
    return CallEvent("query", function, "http", outcome, Usage(1), lines=lines)


def numbers(found: list[CallEvent | Dropped]) -> list[int | str]:
    """Return the numbers of events, and how many were left out as text."""
    return [f"-{item.count}" if isinstance(item, Dropped) else item.number for item in found]


def small_log(**options: int) -> CallLog:
    return CallLog(CallLogOptions(**options), count(100).__next__)


def test_the_newest_are_kept_in_order() -> None:
    log = small_log(events_max=3)
    for _ in range(5):
        log.record(event())
    assert numbers(log.kept(ALL)) == [102, 103, 104]
    assert numbers(log.kept(ALL, limit=2)) == [103, 104]
    assert numbers(log.kept(ALL, limit=0)) == []
    assert numbers(log.kept(ALL, after=103)) == [104]
    assert numbers(log.kept(ALL, after=100)) == ["-1", 102, 103, 104], "101 is gone"
    assert numbers(log.kept(ALL, after=101)) == [102, 103, 104]
    assert numbers(log.kept(ALL, after=7)) == ["-None", 102, 103, 104], "of an earlier daemon"
    assert numbers(log.kept(ALL, after=104)) == []


def test_what_is_kept_is_bounded_by_its_size() -> None:
    log = small_log(bytes_max=10_000)
    for _ in range(10):
        log.record(event("a:b", "success", ("info", "x" * 3_000)))
    assert len(log.kept(ALL)) == 2
    log.record(event("a:b", "success", ("info", "x" * 30_000)))
    assert not log.kept(ALL), "one that is larger than all room is kept by nobody"
    log.record(event())
    assert len(log.kept(ALL)) == 1


@pytest.mark.parametrize(
    ("outcome", "lines", "level"),
    [
        ("success", [], "info"),
        ("", [("info", "")], "info"),
        ("success", [("debug", "")], "info"),
        ("success", [("info", ""), ("critical", ""), ("info", "")], "critical"),
        ("application_error", [], "warning"),
        ("invalid_arguments", [], "warning"),
        ("internal_error", [], "error"),
        ("time_limit", [("critical", "")], "critical"),
    ],
)
def test_how_much_an_event_matters(outcome: str, lines: list[tuple[str, str]], level: str) -> None:
    made = event("a:b", outcome, *lines)
    assert level_name(made.level) == level
    assert EventFilter(level=LEVELS[level]).takes(made)
    assert not EventFilter(level=LEVELS[level] + 1).takes(made)


def test_levels_of_a_library_are_called_by_those_that_there_are() -> None:
    assert [level_of(number) for number in (5, 10, 20, 25, 30, 40, 50, 99)] == [
        "debug", "debug", "info", "info", "warning", "error", "critical", "critical",
    ]  # fmt: skip


def test_names_of_functions() -> None:
    def taken(function: str) -> list[str]:
        names = ("a:b", "a:bc", "ab:b", "a/b:c")
        return [name for name in names if EventFilter(function=function).takes(event(name))]

    assert taken("") == ["a:b", "a:bc", "ab:b", "a/b:c"]
    assert taken("a:b") == ["a:b"]
    assert taken("a:") == ["a:b", "a:bc"]
    assert taken("a/") == ["a/b:c"]
    assert taken("a") == []


@given(st.lists(st.one_of(st.just(0), st.integers(1, 5)), max_size=60), st.integers(1, 6))
def test_every_event_is_handed_on_or_told_of_in_order(steps: list[int], room: int) -> None:
    """0 takes some, other numbers add so many."""
    waiting = WaitingEvents(ALL, WaitingRoom(room, 1 << 30))
    given_numbers = count(1)
    taken: list[CallEvent | Dropped] = []
    added = 0
    for step in steps:
        if not step:
            taken += waiting.take(3)
        for _ in range(step):
            made = event()
            made.number = next(given_numbers)
            waiting.add(made)
            added += 1
        assert len(waiting) <= room + 1
    while more := waiting.take(100):
        taken += more
    expected = 1
    for item in taken:
        if isinstance(item, Dropped):
            assert item.count is not None
            expected += item.count
        else:
            assert item.number == expected
            expected += 1
    assert expected == added + 1
    assert waiting.dropped == sum(item.count or 0 for item in taken if isinstance(item, Dropped))


def test_what_waits_is_bounded_by_its_size_too() -> None:
    waiting = WaitingEvents(ALL, WaitingRoom(1_000, 10_000))
    for _ in range(10):
        made = event("a:b", "success", ("info", "x" * 3_000))
        made.kept_bytes = made.size_bytes
        waiting.add(made)
    assert len(waiting) == 2
    waiting.lose(waiting.take(10))
    assert waiting.dropped == 10
    waiting.add(event())
    assert waiting.take(10)[0] == Dropped(10), "what was lost behind is told once"


async def test_who_follows_hears_of_all_and_of_the_end() -> None:
    log = small_log(followers_max=1)
    follower = log.follow(ALL)
    with pytest.raises(TransientError):
        log.follow(ALL)
    waiting = asyncio.create_task(follower.take(10, 60.0))
    await asyncio.sleep(0)
    log.record(event())
    assert numbers(await waiting) == [100]
    waiting = asyncio.create_task(follower.take(10, 60.0))
    await asyncio.sleep(0)
    log.close()
    assert await waiting == []
    assert follower.closed
    log.leave(follower)
    assert log.follow(ALL).closed, "nobody waits for a daemon that stops"


def test_texts_leave_out_who_it_was_and_what_says_nothing() -> None:
    identity = pack_value({"tokenIdentifier": "https://id.example|ann", "subject": "ann", "issuer": "x"})
    made = event("a:b", "internal_error")
    made.identity, made.session = identity, b"s" * 16
    made.failure = Failure("internal_error", "no", b"data", "Traceback")

    def fields(form: str, secret: bytes = b"k" * 32) -> dict[str, object]:
        return EventText(form, lambda: secret).fields(made)  # type: ignore[arg-type]

    hashed = fields("hashed")
    assert hashed["user"] == fields("hashed")["user"]
    assert hashed["user"] != fields("hashed", b"other" * 5)["user"]
    assert "ann" not in repr(hashed)
    assert "ssss" not in repr(hashed), "who knows a session can take it over"
    assert fields("plain")["user"] == "https://id.example|ann"
    assert "user" not in fields("off")
    assert (hashed["error"], hashed["trace"]) == ("no", "Traceback")
    assert "lines" not in hashed
    assert "data" not in repr(hashed)
