"""What the command line prints: data on stdout, everything else on stderr."""

from __future__ import annotations

import base64
import json
import math
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from headwater_protocol.errors import HeadwaterError
    from rich.console import Console

EXACT_INTEGER_MAX = 2**53
_COLUMNS_MAX = 12


class Output:
    """Prints for one command.

    Args:
        data: Console over stdout.
        talk: Console over stderr.
        as_json: One JSON line for each value. Without it values are laid out for people
            if stdout is a terminal, and are JSON lines if it is not.
    """

    def __init__(self, data: Console, talk: Console, *, as_json: bool = False) -> None:
        self._data = data
        self._talk = talk
        self.as_json = as_json or not data.is_terminal

    def value(self, value: Any, *, title: str = "") -> None:
        """Print one value as data."""
        if self.as_json:
            self._data.file.write(json_line(value) + "\n")
            self._data.file.flush()
            return
        if title:
            self._data.rule(Text(title), style="dim")
        self._data.print(layout(value))

    def text(self, text: str) -> None:
        """Print text as data, as it is."""
        self._data.file.write(text)
        self._data.file.flush()

    @property
    def talk(self) -> Console:
        """Console over stderr, for what is drawn again and again."""
        return self._talk

    def say(self, text: str, *, style: str = "") -> None:
        """Tell the person something."""
        self._talk.print(Text(printable(text, keep_lines=True)), style=style, soft_wrap=True, highlight=False)

    def error(self, error: HeadwaterError) -> None:
        """Tell what went wrong, with the code that programs go by."""
        data = "" if error.data is None or error.data == error.message else f" {json_line(error.data)}"
        self.say(f"error [{error.code}]: {error.message}{data}", style="red")


def json_line(value: Any) -> str:
    """Return a value as one line of JSON, in the forms that the HTTP interface uses."""
    return json.dumps(jsonable(value), ensure_ascii=False, separators=(",", ":"))


def jsonable(value: Any) -> Any:
    """Return a result as plain JSON values: bytes as base64, times as ISO 8601, special floats as text."""
    match value:
        case None | bool() | str():
            return value
        case int():
            return int(value) if abs(value) <= EXACT_INTEGER_MAX else str(int(value))
        case float():
            return value if math.isfinite(value) else _special(value)
        case bytes():
            return base64.b64encode(value).decode()
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case date():
            return value.isoformat()
        case list() | tuple():
            return [jsonable(item) for item in value]
        case dict():
            return {str(key): jsonable(item) for key, item in value.items()}
    return str(value)


def layout(value: Any) -> Table | Text:
    """Return a value laid out for a terminal: a table for a list of documents, indented JSON for others."""
    rows = jsonable(value)
    if isinstance(rows, list) and rows and all(isinstance(row, dict) and row for row in rows):
        columns = list(dict.fromkeys(key for row in rows for key in row))
        if len(columns) <= _COLUMNS_MAX:
            table = Table(show_edge=False, header_style="bold")
            for column in columns:
                table.add_column(Text(printable(column)), overflow="fold")
            for row in rows:
                table.add_row(*(Text(_cell(row[column]) if column in row else "") for column in columns))
            return table
    return Text(json.dumps(rows, ensure_ascii=False, indent=2))


def printable(text: str, *, keep_lines: bool = False) -> str:
    """Return text without characters that would steer the terminal."""
    return "".join(c if c.isprintable() or (keep_lines and c in "\n\t") else "\ufffd" for c in text)


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return printable(value)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _special(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
