"""Heads and bodies of requests that are much larger than they seem, over a real daemon: bounded, and honest ones are served."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.daemon import RunningDaemon, running

if TYPE_CHECKING:
    from collections.abc import Iterator

HEAD_LIMIT = 16 * 1024
FIRST = b"GET /version HTTP/1.1\r\nHost: x\r\n"
MIB = 1 << 20


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    options = ("--http-head-limit-bytes", str(HEAD_LIMIT), "--http-body-limit-s", "30")
    with running(tmp_path_factory.mktemp("heads"), *options, deploy="routes") as daemon:
        yield daemon


@contextlib.contextmanager
def connected(daemon: RunningDaemon) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", daemon.port), 30) as client:
        yield client


def head(size: int, first: bytes = FIRST) -> bytes:
    """Return a head of about a size, of many lines."""
    lines = b"".join(b"X-%03d: %s\r\n" % (number, b"v" * 990) for number in range(size // 1000))
    return first + lines + b"\r\n"


def status(client: socket.socket) -> int:
    return int(client.recv(65_536).split(b" ", 2)[1])


def test_a_head_is_bounded_as_a_whole(daemon: RunningDaemon) -> None:
    with connected(daemon) as client:
        client.sendall(head(HEAD_LIMIT - 1000))
        assert status(client) == 200
        client.sendall(head(HEAD_LIMIT - 1000))
        assert status(client) == 200, "each for itself"
        client.sendall(head(HEAD_LIMIT + 1000))
        assert status(client) == 400
    answer = daemon.request("GET", "/version", None, {f"X-{n}": "v" * 1000 for n in range(20)})
    assert answer.status == 400
    assert f"more than {HEAD_LIMIT} bytes" in answer.text


def test_a_head_that_does_not_end_is_refused_while_it_comes(daemon: RunningDaemon) -> None:
    line = b"X: " + b"v" * 1000 + b"\r\n"
    with connected(daemon) as client:
        client.settimeout(10)
        client.sendall(FIRST + line * 10)
        client.sendall(line * 10)
        assert status(client) == 400


def test_bodies_do_not_count_as_heads(daemon: RunningDaemon) -> None:
    """Neither one in pieces, nor its end together with the next head."""
    body = json.dumps({"path": "store:texts", "args": {"box": "b" * 300_000}}).encode()
    first = b"POST /api/query HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    with connected(daemon) as client:
        client.sendall(first + body[:10])
        for at in range(10, len(body) - 5_000, 50_000):
            client.sendall(body[at : at + 50_000])
        at = 10 + 50_000 * len(range(10, len(body) - 5_000, 50_000))
        client.sendall(body[at:] + FIRST)
        client.sendall(b"\r\n")
        found = b""
        while found.count(b"HTTP/1.1 200") < 2:
            piece = client.recv(65_536)
            assert piece, found
            found += piece


# ------------------------------------------------------------------------------------------- compressed


def compressed(text: bytes, encoding: str) -> bytes:
    return gzip.compress(text) if encoding == "gzip" else zlib.compress(text)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compressed_body_comes_inflated_and_says_so(daemon: RunningDaemon, encoding: str) -> None:
    text = b"a body that is inflated" * 100
    sent = compressed(text, encoding)
    answer = daemon.request("POST", "/http/echo", sent, {"Content-Encoding": encoding})
    assert answer.content == text
    told = seen(daemon, {"Content-Encoding": encoding, "X-Other": "kept"}, sent)
    assert "content-encoding" not in told
    assert "content-length" not in told
    assert told["x-other"] == "kept"


def test_what_is_not_inflated_keeps_its_header(daemon: RunningDaemon) -> None:
    answer = daemon.request("POST", "/http/echo", b"as it is", {"Content-Encoding": "x-own"})
    assert answer.content == b"as it is"
    told = seen(daemon, {"Content-Encoding": "x-own"}, b"as it is")
    assert told["content-encoding"] == "x-own"
    assert told["content-length"] == "8"


def seen(daemon: RunningDaemon, headers: dict[str, str], body: bytes) -> dict[str, Any]:
    """Return the headers that a route is told."""
    answer = daemon.request("POST", "/http/asked", body, headers)
    assert answer.status == 200, answer.text
    return {name.lower(): value for name, value in answer.json["headers"]}


@pytest.fixture(scope="module")
def bomb() -> bytes:
    deflater = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(deflater.compress(bytes(16 * MIB)) for _ in range(64)) + deflater.flush()


@pytest.mark.parametrize("path", ["/nothing", "/http/nothing", "/http/kinds/text", "/api/query"])
def test_a_bomb_is_not_inflated_for_nobody(daemon: RunningDaemon, bomb: bytes, path: str) -> None:
    """1 GiB in 1 MiB: at most what a body may have is inflated, and the connection ends."""
    assert daemon.process is not None
    before_s = cpu_s(daemon.process.pid)
    method = b"GET" if "kinds" in path else b"POST"
    first = b"%s %s HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    with connected(daemon) as client, contextlib.suppress(ConnectionError):  # something may be unread
        client.sendall(first % (method, path.encode(), len(bomb)) + bomb)
        while client.recv(65_536):
            pass
    assert daemon.is_ready()
    assert cpu_s(daemon.process.pid) - before_s < 0.5, "to inflate all of it takes more than a second"


def cpu_s(pid: int) -> float:
    """Return the time that a process has computed."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100
