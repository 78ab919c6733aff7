"""The page at `/` as it is served; what it does in a browser is tried in `clients/typescript/test/browser`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from support.daemon import running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.daemon import RunningDaemon


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with running(tmp_path_factory.mktemp("page")) as daemon:
        yield daemon


def test_it_is_there_before_anything_is_deployed_and_asks_nobody_else(daemon: RunningDaemon) -> None:
    page = daemon.get("/")
    assert page.status == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    named = set(re.findall(r'(?:src|href)="([^"]+)"', page.text))
    assert named == {"data:,", "/start/page.css", "/start/page.js"}
    for path, kind in (("/start/page.js", "text/javascript"), ("/start/page.css", "text/css")):
        file = daemon.get(path)
        assert (file.status, file.headers["content-type"]) == (200, f"{kind}; charset=utf-8")
        assert "http" not in re.sub(r"^//.*$", "", file.text, flags=re.MULTILINE)


def test_nothing_can_be_put_into_it(daemon: RunningDaemon) -> None:
    headers = daemon.get("/").headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert headers["x-content-type-options"] == "nosniff"
    assert "<script>" not in daemon.get("/").text
    assert "innerHTML" not in daemon.get("/start/page.js").text


@pytest.mark.parametrize(
    "path", ["/start", "/start/", "/start/index.html", "/start/../start_page.py", "/start/%2e%2e/tcp.py"]
)
def test_nothing_else_is_served(daemon: RunningDaemon, path: str) -> None:
    assert daemon.get(path).status == 404
