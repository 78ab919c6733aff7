"""Clients of routes that send or read as slowly as they can, or what is no HTTP: bounded, and nobody else notices."""

from __future__ import annotations

import contextlib
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.daemon import RunningDaemon, running, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

IDLE_S = 2.0
BODY_S = 3.0
STALL_S = 2.0
BODY_LIMIT = 2 << 20
HEADER_LIMIT = 4096
MEMORY_BYTES = 24 << 20
CHUNKED = b"POST /http%s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    options = {
        "--http-idle-limit-s": IDLE_S,
        "--http-body-limit-s": BODY_S,
        "--route-stall-limit-s": STALL_S,
        "--route-body-limit-bytes": BODY_LIMIT,
        "--http-header-limit-bytes": HEADER_LIMIT,
        "--route-time-limit-s": 10.0,
        "--action-workers": 1,
    }
    words = [str(word) for pair in options.items() for word in pair]
    with running(tmp_path_factory.mktemp("hostile_routes"), *words, deploy="routes") as found:
        yield found


@pytest.fixture(autouse=True)
def unharmed(daemon: RunningDaemon) -> Iterator[None]:
    """Others are answered meanwhile and afterwards, no place stays taken, and memory is bounded."""
    assert daemon.process is not None
    processes = [daemon.process.pid, *daemon.worker_pids()]
    for pid in processes:
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peaks begin anew
    before = {pid: memory(pid, "VmRSS") for pid in processes}
    yield
    assert daemon.get("/http/kinds/text").text == "grün"
    wait_until(lambda: daemon.metric("headwater_route_requests_running") == 0)
    wait_until(lambda: daemon.metric("headwater_actions_running") == 0)
    for pid in processes:
        assert memory(pid, "VmHWM") - before[pid] < MEMORY_BYTES, pid
    assert '"route_failed"' not in daemon.log_text()


def memory(pid: int, what: str) -> int:
    found = re.search(rf"{what}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


@contextlib.contextmanager
def connected(daemon: RunningDaemon, sent: bytes = b"", *, buffer: int = 0) -> Iterator[socket.socket]:
    with socket.socket() as client:
        if buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        client.settimeout(30)
        client.connect(("127.0.0.1", daemon.port))
        client.sendall(sent)
        yield client


def answered(client: socket.socket) -> bytes:
    """Return all that the daemon sends until it closes; a reset ends it as well."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while piece := client.recv(65_536):
            found += piece
    return found


def status(daemon: RunningDaemon, sent: bytes) -> int:
    """Return the status of the answer to what is sent, whole."""
    with connected(daemon, sent) as client:
        return int(client.recv(65_536).split(b" ", 2)[1])


def codes(daemon: RunningDaemon) -> list[str]:
    found: list[str] = daemon.call("query", "store:texts", box="caught")
    return found


def test_a_body_that_stops_is_given_up(daemon: RunningDaemon) -> None:
    before = len(codes(daemon))
    with connected(daemon, CHUNKED % b"/caught" + b"1\r\nx\r\n") as client:
        assert client.recv(65_536).startswith(b"HTTP/1.1 422")
    assert codes(daemon)[before:] == ["invalid_request"]
    with connected(
        daemon, b"POST /http/orders HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"
    ) as client:
        assert client.recv(65_536).startswith(b"HTTP/1.1 400")


def test_a_body_that_trickles_is_given_up(daemon: RunningDaemon) -> None:
    with connected(daemon, CHUNKED % b"/orders") as client:
        client.settimeout(0.2)
        found = b""
        while not found:
            client.sendall(b"1\r\n \r\n")
            with contextlib.suppress(TimeoutError):
                found = client.recv(65_536)
        assert found.startswith(b"HTTP/1.1 400")
        assert b"did not come in time" in found


def test_a_body_without_end_is_cut(daemon: RunningDaemon) -> None:
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    for path, first in (
        (b"/orders", b"HTTP/1.1 413"),
        (b"/files/x", b"HTTP/1.1 413"),
        (b"/hooks/x", b"HTTP/1.1 413"),
    ):
        head = CHUNKED % path
        if path == b"/files/x":
            head = head.replace(b"POST", b"PUT")
        with connected(daemon, head) as client, contextlib.suppress(ConnectionError):
            for _ in range(BODY_LIMIT // 0x10000 + 1):
                client.sendall(chunk)
            assert client.recv(65_536).startswith(first), path
            while True:  # the connection does not take it for ever
                client.sendall(chunk)


def test_a_body_that_nobody_reads_waits_outside(daemon: RunningDaemon) -> None:
    """The socket takes no more once a window is full."""
    head = b"GET /http/wait/unread HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with connected(daemon, head, buffer=4096) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        client.settimeout(1)
        client.sendall(b"7fffffff\r\n")
        sent = 0
        with contextlib.suppress(TimeoutError):
            while True:
                sent += client.send(b"x" * 0x10000)
        assert sent < 8 << 20
    # Its place is free after the time limit at the latest, which `unharmed` waits for: behind what it has sent and
    # nobody reads, the end of the connection cannot be seen.


def test_who_does_not_read_holds_a_window_and_is_cut(daemon: RunningDaemon) -> None:
    for query in (b"", b"?whole=1"):
        head = b"GET /http/pour/1000000000%s HTTP/1.1\r\nHost: x\r\n\r\n"
        size = b"/10000000?" if query else b"/1000000000"
        with connected(daemon, (head % query).replace(b"/1000000000?", size), buffer=4096) as client:
            wait_until(lambda: daemon.metric("headwater_route_requests_running") == 1)
            wait_until(lambda: daemon.metric("headwater_route_requests_running") == 0)
            assert len(answered(client)) < 8 << 20


@pytest.mark.parametrize(
    "head",
    [
        b"GET /http/kinds/text?" + b"x" * 2 * HEADER_LIMIT + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /http/kinds/text HTTP/1.1\r\nHost: x\r\nX-A: " + b"x" * 2 * HEADER_LIMIT + b"\r\n\r\n",
        b"GET /http/kinds/text HTTP/1.1\r\nHost: x\r\n" + b"X-A: x\r\n" * 1000 + b"\r\n",
        b"GET /http/kinds/text HTTP/1.1\r\nHost: x\r\nX-A\x00: x\r\n\r\n",
        b"GET /http/kinds/text HTTP/1.1\r\nHost: x\r\nX-A: a\x00b\r\n\r\n",
        b"GET /http/kinds/text HTTP/1.1\r\nHost: x\r\nX-A : x\r\n\r\n",
        b"GET /http/kinds/text HTTP/9.9\r\nHost: x\r\n\r\n",
        b"POST /http/orders HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /http/orders HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 2\r\n\r\n",
        b"POST /http/orders HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /http/orders HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        CHUNKED % b"/orders" + b"zz\r\n",
        CHUNKED % b"/orders" + b"ffffffffffffffffff\r\n",
        CHUNKED % b"/orders" + b"-1\r\n",
        b"nonsense\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused(daemon: RunningDaemon, head: bytes) -> None:
    assert status(daemon, head) == 400


@pytest.mark.parametrize(
    "path",
    [
        b"/http/files/../../etc/passwd",
        b"/http/../api/admin/manifest",
        b"/http/files/%2e%2e/%2e%2e/etc/passwd",
        b"/http/files/..%2f..%2fetc%2fpasswd",
        b"/http/files/..%5c..%5cboot.ini",
        b"/http/files/%00",
        b"/http/files/%0d%0aX: y",
        b"/http/files/%ff%fe",
        b"/http/files/%",
        b"/http/files/\xc3\xbc",
        b"/http/files/\xff",
        b"//http/files/x",
        b"http://x/http/files/../x",
        b"/http/files/x#part",
    ],
)
def test_paths_that_lead_elsewhere_are_refused(daemon: RunningDaemon, path: bytes) -> None:
    assert status(daemon, b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n") in (400, 404)


def test_odd_but_right_requests_are_answered(daemon: RunningDaemon) -> None:
    for head in (
        b"GET http://x/http/kinds/text HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /http/kinds/text HTTP/1.0\r\n\r\n",
        b"GET /http/count/3 HTTP/1.0\r\n\r\n",
        b"GET /http/kinds/text?%ff=%&&== HTTP/1.1\r\nHost: x\r\nX-A: \xff\xfe\r\n\r\n",
        b"POST /http/hooks/odd HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n",
    ):
        assert status(daemon, head) in (100, 200, 204), head


def test_requests_behind_one_another_are_answered_in_order(daemon: RunningDaemon) -> None:
    one = b"GET /http/files/%d HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /http/files/last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with connected(daemon, b"".join(one % number for number in range(50)) + last) as client:
        found = answered(client)
    bodies = re.findall(rb"\r\n\r\n(\w+?)(?=HTTP|$)", found)
    assert bodies == [*(b"%d" % number for number in range(50)), b"last"]


def test_a_compressed_body_that_swells_is_cut(daemon: RunningDaemon) -> None:
    import gzip

    swelling = gzip.compress(bytes(64 << 20))
    head = b"POST /http/orders HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    with connected(daemon, head % len(swelling) + swelling) as client:
        assert client.recv(65_536).startswith(b"HTTP/1.1 413")


def test_who_goes_away_within_a_body_leaves_nothing(daemon: RunningDaemon) -> None:
    for _ in range(20):
        with connected(daemon, CHUNKED % b"/hooks/half" + b"5\r\nhel"):
            pass
    wait_until(lambda: daemon.metric("headwater_route_requests_running") == 0)
    assert daemon.call("query", "store:texts", box="half") == []


def test_many_slow_clients_leave_room_for_others(daemon: RunningDaemon) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(connected(daemon, CHUNKED % b"/orders" + b"1\r\n{\r\n"))
        assert daemon.get("/http/kinds/text").text == "grün"
        assert daemon.post("/http/orders", {"item": "a", "count": 3}).json == {"item": "aaa"}
