"""The daemon's life: start order, readiness, drain, stop order, exit codes."""

from __future__ import annotations

import asyncio
import logging
import signal
from enum import IntEnum
from typing import TYPE_CHECKING

from headwater_protocol.errors import HeadwaterError

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater_server.app import Daemon

logger = logging.getLogger("headwater")

_DRAIN_POLL_S = 0.02
_BLOCKED_LOOK_S = 0.02
_RETRY_LOOK_S = 0.25
_TICKS_PER_HEARTBEAT = 8


class ExitCode(IntEnum):
    """How the daemon's process ends.

    Attributes:
        STOPPED: It was asked to.
        CANNOT_START: Standard error says why; a disk that is full, whatever finds no room, is one reason.
        USAGE: Wrong flags or settings.
        STORAGE_FAILED: The disk failed, at the start, while serving or at the last checkpoint, or was full
            while serving and had no room for the one page that the store cannot do without. Nothing
            acknowledged is lost: start it again once the disk is in order.
        TAKEN: Another process has the directory, at the start, or has taken over the directory or the
            log. Nothing acknowledged is lost: find out which of the two is meant to have it.
    """

    STOPPED = 0
    CANNOT_START = 1
    USAGE = 2
    STORAGE_FAILED = 4
    TAKEN = 5


EXIT_CODES = (
    "0 it was asked to stop; 1 it cannot start, standard error says why; 2 wrong flags or settings; 4 the disk failed,"
    " start again once it is in order; 5 another process has the data directory or its log"
)
"""For people, in `--help`."""

_TAKEN = frozenset({"log_taken", "directory_in_use"})


def exit_code_of(error: BaseException) -> ExitCode:
    """Return how the process ends when its storage failed."""
    if isinstance(error, HeadwaterError) and error.code in _TAKEN:
        return ExitCode.TAKEN
    return ExitCode.STORAGE_FAILED


def exit_code_of_start(error: HeadwaterError) -> ExitCode:
    """Return how the process ends when it could not start."""
    if error.code in _TAKEN:
        return ExitCode.TAKEN
    return ExitCode.STORAGE_FAILED if error.code == "disk_failed" else ExitCode.CANNOT_START


async def run(daemon: Daemon, *, drain_limit_s: float) -> ExitCode:
    """Start, serve until a signal or a failure of the storage, stop in order."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    tasks: list[asyncio.Task[object]] = []
    clean = False
    try:
        try:
            await daemon.start()
            await daemon.listen()
        except HeadwaterError:
            failure = daemon.failure  # what waited for a commit only says that it is unknown
            if failure is None:
                raise
            if isinstance(failure, HeadwaterError) and failure.code == "disk_full":
                raise failure from None
            return _storage_failed(failure)
        stopping = asyncio.create_task(stop.wait())
        failed = asyncio.create_task(daemon.failed())
        tasks += [stopping, failed, *timers(daemon)]
        await asyncio.wait((stopping, failed), return_when=asyncio.FIRST_COMPLETED)
        if failed.done():
            return _storage_failed(failed.result())
        logger.info("stopping")
        await _drain(daemon, drain_limit_s)
        clean = True
        return ExitCode.STOPPED
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await daemon.stop(clean=clean)


def timers(daemon: Daemon) -> list[asyncio.Task[None]]:
    """Begin what the daemon does again and again while it serves; the caller ends the tasks."""
    return [
        asyncio.create_task(_every(_BLOCKED_LOOK_S, daemon.hub.look_at_blocked)),
        asyncio.create_task(_every(daemon.heartbeat_s / _TICKS_PER_HEARTBEAT, daemon.hub.tick)),
        asyncio.create_task(_every(_RETRY_LOOK_S, daemon.switchboard.core.tick)),
        asyncio.create_task(daemon.trimmer.run(), name="request trimmer"),
    ]


def _storage_failed(error: BaseException) -> ExitCode:
    logger.critical("storage_failed", extra={"fields": {"error": str(error)}}, exc_info=error)
    return exit_code_of(error)


async def _every(seconds: float, action: Callable[[], object]) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            action()
        except Exception:  # one bad round of a timer must not end all later ones
            logger.exception("timer_failed")


async def _drain(daemon: Daemon, limit_s: float) -> None:
    """Begin nothing new, finish what runs, then tell clients to come back; what waited they send again."""
    await daemon.refuse_new()
    deadline_s = asyncio.get_running_loop().time() + limit_s
    # Polled: they end of themselves within moments, or the limit decides.
    while daemon.mutations.running and asyncio.get_running_loop().time() < deadline_s:  # noqa: ASYNC110
        await asyncio.sleep(_DRAIN_POLL_S)
    daemon.hub.drain()
