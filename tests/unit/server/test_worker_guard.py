from __future__ import annotations

import os
import signal
import socket
from typing import Any

import pytest
from headwater_protocol.errors import RequestError
from headwater_server.worker.guard import Guard

READ = os.O_RDONLY | os.O_CLOEXEC


@pytest.mark.parametrize(
    ("event", "arguments"),
    [
        ("open", ("x", "w", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)),
        ("open", ("x", "r+", os.O_RDWR)),
        ("open", ("x", None, os.O_WRONLY)),
        ("open", ("x", None, os.O_RDONLY | os.O_CREAT)),
        ("open", (3, None, os.O_RDONLY | os.O_APPEND)),
        ("socket.__new__", (None, 2, 1, 0)),
        ("socket.getaddrinfo", ("host", 80, 0, 0, 0)),
        ("subprocess.Popen", ("ls", [], None, None)),
        ("os.fork", ()),
        ("os.exec", ("ls", [], None)),
        ("os.posix_spawn", ("ls", [], None)),
        ("os.system", ("ls",)),
        ("os.remove", ("x", -1)),
        ("os.rename", ("x", "y", -1, -1)),
        ("os.kill", (1, 9)),
        ("sqlite3.connect", ("file.db",)),
    ],
)
def test_refuses_while_a_call_runs_and_only_then(event: str, arguments: tuple[Any, ...]) -> None:
    guard = Guard()
    guard.check(event, arguments)
    guard.active = True
    with pytest.raises(RequestError, match="action") as caught:
        guard.check(event, arguments)
    assert caught.value.code == "not_allowed_here"


@pytest.mark.parametrize(
    ("event", "arguments"),
    [
        ("open", ("x", "r", READ)),
        ("open", ("x", "rb", 0)),
        ("import", ("os", None, None, None, None)),
        ("socket.gethostname", ()),
        ("sqlite3.connect", (":memory:",)),
        ("os.listdir", (".",)),
    ],
)
def test_lets_reading_be(event: str, arguments: tuple[Any, ...]) -> None:
    guard = Guard()
    guard.active = True
    guard.check(event, arguments)


def test_alarms_and_handlers_of_signals_are_refused_while_a_call_runs() -> None:
    guard = Guard()
    guard.install(lambda _: None)
    for set_it in (
        lambda: signal.alarm(0),
        lambda: signal.setitimer(signal.ITIMER_REAL, 0),
        lambda: signal.signal(signal.SIGALRM, signal.SIG_DFL),
    ):
        set_it()
        guard.active = True
        try:
            with pytest.raises(RequestError, match="set alarms or signal handlers;") as caught:
                set_it()
        finally:
            guard.active = False
        assert caught.value.code == "not_allowed_here"


def test_is_installed_as_a_hook() -> None:
    hooks: list[Any] = []
    guard = Guard()
    guard.install(hooks.append)
    assert hooks == [guard.check]


def test_the_flags_of_open_are_where_the_guard_looks_for_them() -> None:
    # the hook is never taken away again; it stays off
    guard = Guard()
    guard.install()
    guard.active = True
    try:
        with pytest.raises(RequestError):
            os.open("/dev/null", os.O_WRONLY)
        with pytest.raises(RequestError), open("/dev/null", "w"):
            pass
        with pytest.raises(RequestError):
            socket.socket()
        with open("/dev/null"):
            pass
    finally:
        guard.active = False
