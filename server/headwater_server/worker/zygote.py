"""The small process that workers are forked from: warm imports, no store, no thread, no event loop.

Run as `python -P -m headwater_server.worker.zygote FD PARENT`. It is the workers' parent: it
tells the daemon of their ends and kills them for it. It ends when the daemon does, and they
end with it.
"""

from __future__ import annotations

import array
import contextlib
import gc
import os
import select
import signal
import socket
import sys
import traceback

import msgspec
from headwater.parent_process import die_with_parent

from headwater_server.worker import main as worker_main
from headwater_server.worker.control import (
    PACKET_BYTES_MAX,
    Exited,
    FromZygote,
    Kill,
    Spawn,
    Spawned,
    ToZygote,
)

FDS_PER_SPAWN = 2


class Zygote:
    """Forks, kills and reaps workers at the daemon's word.

    Args:
        control: Socket to the daemon.
        wakeup: Reading end of the descriptor that a child's end writes to.
    """

    def __init__(self, control: socket.socket, wakeup: socket.socket) -> None:
        self._control = control
        self._wakeup = wakeup
        self._decoder = msgspec.msgpack.Decoder(ToZygote)
        self._encoder = msgspec.msgpack.Encoder()
        self._pids: dict[int, int] = {}
        self._leaders: set[int] = set()  # pids of workers that lead a group of processes

    def serve(self) -> None:
        """Work until the daemon closes its end."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._wakeup, select.POLLIN)
        while True:
            ready = dict(poll.poll())
            if self._wakeup.fileno() in ready:
                self._wakeup.recv(4096)
                self._reap()
            if self._control.fileno() in ready and not self._receive():
                return

    def kill_all(self) -> None:
        """Kill what is left, and wait: once the zygote is gone, nothing of it holds the data directory."""
        for pid in self._pids.values():
            os.kill(pid, signal.SIGKILL)
        for pid in self._pids.values():
            self._end_group(pid)
            os.waitpid(pid, 0)

    def _receive(self) -> bool:
        packet, descriptors = _receive_packet(self._control)
        if not packet:
            return False
        message = self._decoder.decode(packet)
        if isinstance(message, Kill):
            pid = self._pids.get(message.worker)
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
        else:
            self._spawn(message, descriptors)
        return True

    def _spawn(self, spawn: Spawn, descriptors: list[int]) -> None:
        zygote = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            pid = -1
        if pid == 0:
            _become_worker(spawn, descriptors, zygote)
        for descriptor in descriptors:
            os.close(descriptor)
        if pid < 0:
            self._send(Spawned(spawn.worker, 0))
            self._send(Exited(spawn.worker, -signal.SIGKILL))
            return
        self._pids[spawn.worker] = pid
        if spawn.assignment.role == "actions":
            self._leaders.add(pid)
        self._send(Spawned(spawn.worker, pid))

    def _reap(self) -> None:
        for worker, pid in list(self._pids.items()):
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                self._end_group(pid)
                _, status = os.waitpid(pid, 0)
                del self._pids[worker]
                self._send(Exited(worker, os.waitstatus_to_exitcode(status)))

    def _end_group(self, pid: int) -> None:
        """Kill what a worker has started. It is not reaped yet, so that its number cannot have become another's."""
        if pid in self._leaders:
            self._leaders.discard(pid)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)

    def _send(self, message: FromZygote) -> None:
        self._control.send(self._encoder.encode(message))


def _become_worker(spawn: Spawn, descriptors: list[int], zygote: int) -> None:
    """Turn the forked process into the worker; never returns."""
    status = 70
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        link, progress = descriptors
        status = worker_main.run(spawn.assignment, link, progress, zygote)
    except BaseException:  # the fork must never run on in the zygote's own code
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(status)


def _receive_packet(control: socket.socket) -> tuple[bytes, list[int]]:
    size = array.array("i").itemsize
    packet, ancillary, _flags, _address = control.recvmsg(
        PACKET_BYTES_MAX, socket.CMSG_SPACE(FDS_PER_SPAWN * size)
    )
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % size])
    return packet, list(descriptors)


def _ignore(_number: int, _frame: object) -> None:
    """Handle SIGCHLD: what counts is the byte that Python writes to the wakeup descriptor."""


def main(arguments: list[str]) -> int:
    """Run the zygote.

    Args:
        arguments: Number of the inherited socket, process id of the daemon.
    """
    descriptor, parent = (int(argument) for argument in arguments)
    die_with_parent(parent)
    control = socket.socket(fileno=descriptor)
    wakeup, ended = socket.socketpair()
    wakeup.setblocking(False)
    ended.setblocking(False)
    signal.signal(signal.SIGCHLD, _ignore)
    signal.set_wakeup_fd(ended.fileno(), warn_on_full_buffer=False)
    gc.collect()
    gc.freeze()  # what is here now is shared with every worker; collections must not touch, and so copy, it
    zygote = Zygote(control, wakeup)
    try:
        zygote.serve()
    except OSError:
        return 1
    finally:
        zygote.kill_all()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
