"""An older copy of a data directory is put back, and clients come that have seen more than it holds."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from typing import TYPE_CHECKING

import pytest
from support.daemon import RunningDaemon
from support.raw_session import ConnectionEndedError, RawConnection
from support.wall_clock import Wall

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOUR_S = 3_600
SESSION = b"s" * 16


@contextlib.contextmanager
def copied_daemon(folder: Path) -> Iterator[tuple[RunningDaemon, Wall]]:
    """Give a daemon that has gone on since its directory was copied, to `folder / "copy"`."""
    wall = Wall(folder / "clock")
    daemon = RunningDaemon(folder, ("--workers", "1"), environment=wall.environment)
    try:
        daemon.start()
        daemon.must_deploy("clock")
        mark(daemon, 1)
        assert daemon.terminate() == 0
        shutil.copytree(daemon.data, folder / "copy")
        yield daemon, wall
    finally:
        daemon.end()


def mark(daemon: RunningDaemon, number: int) -> None:
    """Insert two documents."""
    daemon.call("mutation", "clock:mark", session=1, number=number)


def marks(daemon: RunningDaemon) -> int:
    return len(daemon.call("query", "clock:marks", session=1))


def restore(daemon: RunningDaemon) -> None:
    assert daemon.terminate() == 0
    shutil.rmtree(daemon.data)
    shutil.copytree(daemon.folder / "copy", daemon.data)
    daemon.start()


def told_ts(daemon: RunningDaemon, last_ts: int) -> int:
    """Connect as a client that has seen a ts; return the one that the daemon names.

    Raises:
        ConnectionEndedError: It refuses.
    """

    async def connect() -> int:
        connection = await RawConnection.open(daemon.tcp_port, SESSION, last_ts)
        connection.end()
        return connection.told_ts

    return asyncio.run(connect())


def test_clients_go_on_from_what_a_restored_copy_holds(tmp_path: Path) -> None:
    with copied_daemon(tmp_path) as (daemon, _):
        daemon.start()
        for number in range(2, 20):
            mark(daemon, number)
        seen = told_ts(daemon, 0)
        restore(daemon)
        assert told_ts(daemon, seen) > seen
        assert marks(daemon) == 2


def test_clients_that_are_ahead_of_a_restored_copy_are_refused_until_a_start_behind_their_ts(
    tmp_path: Path,
) -> None:
    """It needs a clock that went back as well. Commits do not bring the ts there: they count on by one."""
    with copied_daemon(tmp_path) as (daemon, wall):
        wall.jump(HOUR_S)
        daemon.start()
        seen = told_ts(daemon, 0)
        wall.set_right()
        restore(daemon)
        for number in range(2, 5):
            with pytest.raises(ConnectionEndedError) as refused:
                told_ts(daemon, seen)
            assert refused.value.code == "unavailable"  # so it comes again by itself
            assert f"has seen commit {seen}" in str(refused.value)
            assert "reload" in str(refused.value)
            assert told_ts(daemon, 0) < seen, "who is reloaded is served"
            mark(daemon, number)
        assert "history_lost" in daemon.log_text()
        assert daemon.terminate() == 0
        wall.jump(HOUR_S + 60)
        daemon.start()
        assert told_ts(daemon, seen) > seen
        assert marks(daemon) == 2 * 4
