"""Tables and documents as they are stored, over HTTP and on the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
from support.daemon import running

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from support.daemon import RunningDaemon

COUNT = 23


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    folder = tmp_path_factory.mktemp("data")
    bounds = ("--call-read-limit-documents", "20", "--call-result-limit-bytes", "4096")
    with running(folder, *bounds, deploy="probe") as daemon:
        keep(daemon, range(COUNT))
        yield daemon


def keep(daemon: RunningDaemon, values: Iterable[Any]) -> None:
    for value in values:
        key = f"k{value % 7}{value:02}" if isinstance(value, int) else value
        kept = {"path": "probe:keep_value", "args": {"key": key, "value": value}}
        assert daemon.post("/api/mutation", kept).json["status"] == "success"


def got(daemon: RunningDaemon, path: str, **query: Any) -> Any:
    return daemon.get(f"{path}?{urlencode(query)}", Authorization=f"Headwater {daemon.key}").json


def all_pages(daemon: RunningDaemon, **query: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        page = got(daemon, "/api/admin/documents", table="pairs", **query)
        assert 0 < len(page["documents"]) <= min(int(query["limit"]), 20)
        found += page["documents"]
        if page["cursor"] is None:
            return found
        query["cursor"] = page["cursor"]


def test_the_tables_are_counted_as_far_as_the_limit(daemon: RunningDaemon) -> None:
    tables = {table["name"]: table for table in got(daemon, "/api/admin/tables")["tables"]}
    assert tables["pairs"] == {"name": "pairs", "documents": 20, "more": True, "indexes": ["by_key"]}
    assert (tables["notes"]["documents"], tables["notes"]["more"]) == (0, False)


@pytest.mark.parametrize("limit", [1, 5, 20, 1000])
def test_pages_have_every_document_once_in_order(daemon: RunningDaemon, limit: int) -> None:
    newest_first = all_pages(daemon, limit=limit)
    assert [one["value"] for one in newest_first] == list(range(COUNT))[::-1]
    assert all({"_id", "_creationTime", "key"} <= one.keys() for one in newest_first)
    assert all_pages(daemon, limit=limit, order="asc") == newest_first[::-1]
    by_key = all_pages(daemon, limit=limit, order="asc", index="by_key")
    assert by_key == sorted(newest_first, key=lambda one: one["key"])


def test_a_page_goes_on_from_where_it_ended_whatever_was_written(tmp_path: Path) -> None:
    with running(tmp_path, deploy="probe") as daemon:
        keep(daemon, range(6))
        first = got(daemon, "/api/admin/documents", table="pairs", limit=3)
        keep(daemon, ["new"])
        second = got(daemon, "/api/admin/documents", table="pairs", limit=3, cursor=first["cursor"])
    assert [one["value"] for one in first["documents"] + second["documents"]] == [5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ({}, "there is no table ''"),
        ({"table": "nope"}, "there is no table 'nope'"),
        ({"table": "_keys"}, "there is no table '_keys'"),
        ({"table": "pairs", "index": "by_value"}, "has no index 'by_value'"),
        ({"table": "pairs", "limit": 0}, "from 1, not 0"),
        ({"table": "pairs", "limit": "ten"}, "not 'ten'"),
        ({"table": "pairs", "limit": "٣"}, "not '٣'"),
        ({"table": "pairs", "order": "up"}, "not 'up'"),
        ({"table": "pairs", "cursor": "%%"}, "is none that a page had"),
    ],
)
def test_what_is_asked_wrongly_is_told(daemon: RunningDaemon, query: dict[str, Any], told: str) -> None:
    answer = got(daemon, "/api/admin/documents", **query)
    assert told in answer["message"]
    assert answer["code"] in ("invalid_request", "unknown_table", "unknown_index")


def test_the_command_line_shows_them(daemon: RunningDaemon, tmp_path: Path) -> None:
    def run(*words: str, code: int = 0) -> tuple[str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "headwater.cli", "data", *words, "--url", daemon.url.replace("ws", "http", 1)],
            env={"HEADWATER_KEY": daemon.key}, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return done.stdout, done.stderr

    (tables,) = [json.loads(line) for line in run()[0].splitlines()]
    assert {"table": "pairs", "documents": "more than 20", "indexes": "by_key"} in tables
    shown, said = run("pairs", "--limit", "3")
    assert [json.loads(line)["value"] for line in shown.splitlines()] == [22, 21, 20]
    assert "there are more" in said
    shown, _ = run("pairs", "--limit", "2", "--index", "by_key", "--ascending")
    assert [json.loads(line)["key"] for line in shown.splitlines()] == ["k000", "k007"]
    assert "there is no table 'nope'" in run("nope", code=1)[1]
