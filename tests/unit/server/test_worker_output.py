from __future__ import annotations

import logging
import sys

from headwater_server.worker.output import CallOutput, OutputHandler


def test_prints_become_lines_and_calls_do_not_mix() -> None:
    output = CallOutput(10, 1000)
    out, err = output.streams
    print("one\ntwo", file=out)
    print("no end", end="", file=err)
    assert output.take() == [("info", "one"), ("info", "two"), ("error", "no end")]
    print("next", file=out)
    assert output.take() == [("info", "next")]
    assert output.take() == []


def test_log_records_keep_their_level() -> None:
    output = CallOutput(10, 1000)
    logger = logging.getLogger("of_a_test")
    logger.addHandler(OutputHandler(output))
    logger.warning("%s rows", 3)
    assert output.take() == [("warning", "3 rows")]


def test_lone_surrogates_are_escaped() -> None:
    output = CallOutput(10, 10)
    print("\udcff", file=output.streams[0])
    output.add("l\udcff", "\udcff" * 10)
    assert output.take() == [("info", "\\udcff"), ("l\\udcff", "\\udcff\\u")]


def test_a_flood_of_lines_is_cut_once_and_said() -> None:
    output = CallOutput(3, 1000)
    for i in range(100):
        print(i, file=output.streams[0])
    lines = output.take()
    assert lines[:3] == [("info", "0"), ("info", "1"), ("info", "2")]
    assert len(lines) == 4
    assert lines[3][0] == "warning"


def test_a_flood_of_bytes_is_cut() -> None:
    output = CallOutput(1000, 500)
    print("x" * 10_000_000, file=output.streams[0])
    for _ in range(100):
        output.streams[0].write("y" * 1_000_000)
    lines = output.take()
    assert sum(len(text) for _, text in lines) < 600
    assert sys.getsizeof(output.streams[0].partial) < 100


def test_room_is_given_back_to_the_next_call() -> None:
    output = CallOutput(1, 10)
    print("a\nb\nc", file=output.streams[0])
    output.take()
    print("d", file=output.streams[0])
    assert output.take() == [("info", "d")]
