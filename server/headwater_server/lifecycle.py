"""The daemon's life: start order, readiness, drain, stop order, exit codes."""

from __future__ import annotations

import asyncio
import logging
import signal
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from headwater_protocol.errors import HeadwaterError

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater_server.app import Daemon

logger = logging.getLogger("headwater")

_DRAIN_POLL_S = 0.02
_FAREWELL_S = 1.0  # for clients to take what is on its way to them, and to close
_BLOCKED_LOOK_S = 0.02
_RETRY_LOOK_S = 0.25
_IDENTITY_LOOK_S = 0.1
_TICKS_PER_HEARTBEAT = 8
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


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


def stop_signals() -> asyncio.Event:
    """Return what SIGTERM and SIGINT set from now on; further ones change nothing."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stop.set)
    return stop


def ignore_signals() -> None:
    """Let no signal to stop reach a process that has stopped already: its exit code would be lost."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


async def run(daemon: Daemon, stop: asyncio.Event, *, drain_limit_s: float) -> ExitCode:
    """Start, serve until told to stop or the storage fails, stop in order; `stop` may be set at any time."""
    stopping = asyncio.create_task(stop.wait())
    tasks: list[asyncio.Future[Any]] = [stopping]
    clean = False
    try:
        try:
            if not await _started(daemon, stopping):
                clean = True
                return ExitCode.STOPPED
        except HeadwaterError:
            failure = daemon.failure  # what waited for a commit only says that it is unknown
            if failure is None:
                raise
            if isinstance(failure, HeadwaterError) and failure.code == "disk_full":
                raise failure from None
            return _storage_failed(failure)
        failed = asyncio.create_task(daemon.failed())
        tasks += [failed, *timers(daemon)]
        await asyncio.wait((stopping, failed), return_when=asyncio.FIRST_COMPLETED)
        if not failed.done():
            logger.info("stopping")
            drained = asyncio.create_task(_drain(daemon, drain_limit_s))
            tasks.append(drained)
            await asyncio.wait((drained, failed), return_when=asyncio.FIRST_COMPLETED)
        if failed.done():
            return _storage_failed(failed.result())
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
        asyncio.create_task(_every(_IDENTITY_LOOK_S, daemon.sign_ins.look)),
        asyncio.create_task(_every(_RETRY_LOOK_S, daemon.switchboard.core.tick)),
        asyncio.create_task(daemon.trimmer.run(), name="request trimmer"),
        asyncio.create_task(daemon.rewriter.run(), name="document rewriter"),
        asyncio.create_task(daemon.jobs.run(), name="job scheduler"),
        asyncio.create_task(daemon.crons.run(), name="crons"),
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


async def _started(daemon: Daemon, stopping: asyncio.Future[Any]) -> bool:
    """Start and let clients in, unless it is to stop before that is done; tell whether it is."""
    starting = asyncio.create_task(_start(daemon))
    await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
    if starting.done():
        starting.result()
        return True
    logger.info("stopping before the start is done")
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    return False


async def _start(daemon: Daemon) -> None:
    await daemon.start()
    await daemon.listen()


async def _drain(daemon: Daemon, limit_s: float) -> None:
    """Begin nothing new, finish what was accepted, then tell clients to come back.

    What is not finished at the limit, and what clients have sent meanwhile, they send again.
    """
    daemon.refuse_new()
    await _within(limit_s, lambda: not daemon.is_busy)
    daemon.hub.drain()
    await _within(_FAREWELL_S, lambda: not daemon.hub.sockets)


async def _within(limit_s: float, holds: Callable[[], bool]) -> None:
    """Wait until something holds, or the limit has come. Polled: many parts would have to tell otherwise."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + limit_s
    while not holds() and loop.time() < deadline_s:  # noqa: ASYNC110
        await asyncio.sleep(_DRAIN_POLL_S)
