"""The daemon's end of the zygote: starts it, asks it for workers, hears of their ends."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec

from headwater_server.functions.worker_link import WorkerLink
from headwater_server.worker.control import (
    PACKET_BYTES_MAX,
    Assignment,
    FromZygote,
    Kill,
    Spawn,
    Spawned,
    ToZygote,
)
from headwater_server.worker.messages import WorkerMessage
from headwater_server.worker.progress import ProgressPage, make_progress_descriptor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from headwater_server.functions.roster import ProcessEvents, StartProcesses

logger = logging.getLogger("headwater.zygote")

_MODULE = "headwater_server.worker.zygote"
_SECRETS = "HEADWATER_"


def worker_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what user code may see of the daemon's environment: everything but Headwater's own settings."""
    return {name: value for name, value in environment.items() if not name.startswith(_SECRETS)}


def zygote_starter(environment: Mapping[str, str]) -> StartProcesses:
    """Return what starts zygotes on the running event loop, with this environment."""
    return lambda events: ZygoteProcess(asyncio.get_running_loop(), events, environment)


class ZygoteProcess:
    """One zygote; implements `Processes`. It must be started by a thread that lives as long as the daemon.

    (The kernel ends it when the thread that started it ends.)
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, events: ProcessEvents, environment: Mapping[str, str]
    ) -> None:
        self._loop = loop
        self._events = events
        self._decoder = msgspec.msgpack.Decoder(FromZygote)
        self._encoder = msgspec.msgpack.Encoder()
        self._ended = asyncio.Event()
        self._closing = False
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            arguments = [sys.executable, "-P", "-m", _MODULE, str(theirs.fileno()), str(os.getpid())]
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=dict(environment),
                cwd="/",
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # Ctrl-C is for the daemon, which then ends the others in order
            )
        ours.setblocking(False)
        self._control = ours
        loop.add_reader(ours.fileno(), self._readable)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def spawn(
        self,
        worker: int,
        assignment: Assignment,
        receive: Callable[[WorkerMessage], None],
        lost: Callable[[], None],
    ) -> tuple[WorkerLink[WorkerMessage], ProgressPage]:
        """Fork a worker."""
        ours, theirs = socket.socketpair()
        page = make_progress_descriptor()
        try:
            progress = ProgressPage(page)
            self._send(Spawn(worker, assignment), [theirs.fileno(), page])
        finally:
            theirs.close()
            os.close(page)
        decoder: msgspec.msgpack.Decoder[WorkerMessage] = msgspec.msgpack.Decoder(WorkerMessage)
        return WorkerLink(self._loop, ours, decoder, receive, lost), progress

    def kill(self, worker: int) -> None:
        """End a worker."""
        self._send(Kill(worker), [])

    async def close(self, grace_s: float) -> None:
        """End the zygote and all workers, by force after the grace."""
        self._closing = True
        if not self._ended.is_set():
            try:
                self._control.shutdown(socket.SHUT_WR)
                async with asyncio.timeout(grace_s):
                    await self._ended.wait()
            except (TimeoutError, OSError):
                self._end()
        self._process.wait()

    def _send(self, message: ToZygote, descriptors: list[int]) -> None:
        if self._ended.is_set():
            return
        try:
            socket.send_fds(self._control, [self._encoder.encode(message)], descriptors)
        except OSError:  # also when it has not read for so long that the socket is full
            logger.exception("zygote_unreachable")
            self._process.kill()

    def _readable(self) -> None:
        while True:
            try:
                packet = self._control.recv(PACKET_BYTES_MAX)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            if not packet:
                self._end()
                return
            message = self._decoder.decode(packet)
            if isinstance(message, Spawned):
                self._events.spawned(message.worker, message.pid)
            else:
                self._events.exited(message.worker, message.status)
            if self._ended.is_set():
                return

    def _end(self) -> None:
        """Take note that it is gone, or make it so."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._loop.remove_reader(self._control.fileno())
        self._control.close()
        self._process.kill()
        if not self._closing:
            self._process.wait()
            self._events.zygote_lost()
