from __future__ import annotations

import asyncio
import io
import json
from datetime import UTC, datetime

from headwater.cli.deploy_progress import with_progress
from headwater.cli.output import Output, json_line, jsonable, layout
from headwater.http_client import DeployStep
from headwater_protocol.errors import ApplicationError, RequestError
from rich.console import Console
from rich.table import Table


def consoles(*, terminal: bool = False) -> tuple[Output, io.StringIO, io.StringIO]:
    data, talk = io.StringIO(), io.StringIO()
    output = Output(
        Console(file=data, force_terminal=terminal, width=80, color_system=None),
        Console(file=talk, width=80, color_system=None),
    )
    return output, data, talk


def test_values_become_plain_json() -> None:
    value = {
        "time": datetime(2013, 1, 1, 5, tzinfo=UTC),
        "blob": b"\x00\xff",
        "big": 2**60,
        "nan": float("nan"),
        "low": float("-inf"),
        "flag": True,
        "rows": [1, None, "é"],
    }
    assert json.loads(json_line(value)) == {
        "time": "2013-01-01T05:00:00Z",
        "blob": "AP8=",
        "big": str(2**60),
        "nan": "NaN",
        "low": "-Infinity",
        "flag": True,
        "rows": [1, None, "é"],
    }
    assert "\n" not in json_line("two\nlines")


def test_stdout_that_is_no_terminal_gets_one_json_line_for_each_value() -> None:
    output, data, talk = consoles()
    output.value([{"a": 1}], title="messages:list · 1")
    output.value("two\nlines")
    assert [json.loads(line) for line in data.getvalue().splitlines()] == [[{"a": 1}], "two\nlines"]
    assert talk.getvalue() == ""


def test_a_list_of_documents_is_a_table_on_a_terminal() -> None:
    output, data, _ = consoles(terminal=True)
    output.value([{"author": "ada", "body": "hi [bold]"}, {"author": "bob", "score": 2}], title="t")
    text = data.getvalue()
    assert "author" in text
    assert "hi [bold]" in text
    assert "score" in text
    assert isinstance(layout([{"a": 1}]), Table)
    assert not isinstance(layout([{"a": 1}, 2]), Table)
    assert not isinstance(layout([{}]), Table)


def test_data_cannot_steer_the_terminal() -> None:
    output, data, talk = consoles(terminal=True)
    output.value([{"a": "\x1b[2Jgone"}])
    output.error(RequestError("bad \x1b]0;title\x07"))
    assert "\x1b[2J" not in data.getvalue()
    assert "\x1b]0" not in talk.getvalue()


def test_an_error_is_one_line_with_its_code_and_data() -> None:
    output, data, talk = consoles()
    output.error(ApplicationError({"why": "full"}, message="no room"))
    assert talk.getvalue() == 'error [application_error]: no room {"why":"full"}\n'
    assert data.getvalue() == ""


def test_integers_that_json_readers_hold_stay_numbers() -> None:
    assert jsonable(2**53) == 2**53
    assert jsonable(-(2**53) - 1) == str(-(2**53) - 1)


class TerminalBytes(io.StringIO):
    """What a terminal got, drawn over and over."""

    def isatty(self) -> bool:
        return True


def deploy_shown(talk: Console) -> str:
    """What a deploy shows that indexes 4 of 10 documents, then all, and ends."""
    steps = [DeployStep("index", "messages.by_\x1b[2Jauthor", done / 10, done) for done in (4, 4, 10)]
    seen = 0

    async def look() -> list[DeployStep]:
        nonlocal seen
        seen += 1
        if seen == 2:
            raise RequestError("one look failed")
        if seen > len(steps):
            over.set()
        return steps[min(seen, len(steps)) - 1 :][:1]

    async def deploying() -> str:
        await over.wait()
        return "deployed"

    async def trial() -> str:
        return await with_progress(Output(Console(force_terminal=True), talk), look, deploying())

    over = asyncio.Event()
    assert asyncio.run(trial()) == "deployed"
    return talk.file.getvalue()  # type: ignore[attr-defined]


def test_a_deploy_shows_bars_on_a_terminal_and_nothing_else_of_it() -> None:
    shown = deploy_shown(Console(file=TerminalBytes(), width=100, force_terminal=True, color_system=None))
    assert "building index messages.by_\ufffd[2Jauthor" in shown
    assert "40%" in shown
    assert "100%" in shown
    assert '"what"' not in shown


def test_a_deploy_tells_a_pipe_each_step_once() -> None:
    shown = deploy_shown(Console(file=io.StringIO(), width=100))
    lines = [json.loads(line) for line in shown.splitlines()]
    assert [line["documents"] for line in lines] == [4, 10]
