"""Many WebSocket clients in one process: raw sockets, one epoll, next to no work for each frame.

`python -m benchmarks.receivers HOST PORT PATH COUNT HELLO…` opens COUNT connections, sends
each the HELLO messages (hex; 16 zero bytes in one become a session id of its own), and then answers on standard output for each line it is given
on standard input: `count` → frames and bytes received so far and this process' CPU seconds.
Every 100th frame is checked: a final binary frame whose payload is a msgpack array.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from typing import TYPE_CHECKING

import msgspec

from benchmarks.websockets import FrameReader, connect

if TYPE_CHECKING:
    import socket

CHECK_EVERY = 100
_decode = msgspec.msgpack.Decoder().decode


class Receivers:
    """Reads and counts the frames of all connections."""

    def __init__(self) -> None:
        self.frames = 0
        self.bytes = 0
        self._readers: dict[int, FrameReader] = {}
        self._sockets: dict[int, socket.socket] = {}
        self._epoll = select.epoll()

    def add(self, connection: socket.socket, rest: bytes) -> None:
        """Take over an open connection."""
        number = connection.fileno()
        self._sockets[number] = connection
        self._readers[number] = FrameReader(rest)
        self._epoll.register(number, select.EPOLLIN)
        self._take(number, b"")

    def poll(self, timeout_s: float) -> None:
        """Read whatever has arrived."""
        for number, _ in self._epoll.poll(timeout_s):
            try:
                data = self._sockets[number].recv(1 << 18)
            except BlockingIOError:
                continue
            if not data:
                raise ConnectionError("the server closed a connection")
            self._take(number, data)

    def _take(self, number: int, data: bytes) -> None:
        for payload in self._readers[number].feed(data):
            self.frames += 1
            self.bytes += len(payload)
            if self.frames % CHECK_EVERY == 0:
                message = _decode(payload)
                if not isinstance(message, list) or not message:
                    raise ValueError("a frame is not a message")


def main() -> None:
    """Serve the commands on standard input until it ends."""
    host, port, path, count = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    hello = [bytes.fromhex(text) for text in sys.argv[5:]]
    receivers = Receivers()
    for _ in range(count):
        own = [message.replace(bytes(16), os.urandom(16)) for message in hello]
        receivers.add(*connect(host, port, path, own))
        receivers.poll(0)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    os.set_blocking(0, False)
    while True:
        receivers.poll(0.02)
        try:
            line = os.read(0, 4096)
        except BlockingIOError:
            continue
        if not line:
            return
        row = {"frames": receivers.frames, "bytes": receivers.bytes, "cpu_s": time.process_time()}
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
