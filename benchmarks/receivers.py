"""Many WebSocket clients in one process: raw sockets, one epoll, next to no work for each frame.

`python -m benchmarks.receivers PORT PATH FILE` opens a connection for each item of the file, a msgpack array, and sends
it the item's messages (16 zero bytes in one become a session id of its own). Then it answers on standard output each line it is given
on standard input, `WHAT LEAST`, as soon as it has received at least so many `frames` or `changes` (of queries): frames, bytes and
changes received so far, when the last came (monotonic), and this process' CPU seconds.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from headwater_protocol.codec import encode_message
from headwater_protocol.messages import Ping, Pong, Transition

from benchmarks.websockets import FrameReader, connect, masked_frame

if TYPE_CHECKING:
    import socket

_decode_transition = msgspec.msgpack.Decoder(tuple[int, msgspec.Raw, msgspec.Raw, list[msgspec.Raw]]).decode


class Receivers:
    """Reads and counts the frames of all connections, and answers pings."""

    def __init__(self) -> None:
        self.frames = 0
        self.bytes = 0
        self.changes = 0
        self.last_s = 0.0
        self._readers: dict[int, FrameReader] = {}
        self._sockets: dict[int, socket.socket] = {}
        self._epoll = select.epoll()
        self._watched = -1
        self._chunk = memoryview(bytearray(1 << 18))

    def add(self, connection: socket.socket, rest: bytes) -> None:
        """Take over an open connection."""
        number = connection.fileno()
        self._sockets[number] = connection
        self._readers[number] = FrameReader(rest)
        self._epoll.register(number, select.EPOLLIN)
        self._take(number, b"")

    def watch(self, number: int) -> None:
        """Have `poll` say when there is something to read in a file."""
        self._epoll.register(number, select.EPOLLIN)
        self._watched = number

    def poll(self, timeout_s: float | None) -> bool:
        """Read whatever has arrived; tell whether there is something in the file that is watched."""
        told = False
        for number, _ in self._epoll.poll(timeout_s):
            if number == self._watched:
                told = True
                continue
            try:
                size = self._sockets[number].recv_into(self._chunk)
            except BlockingIOError:
                continue
            if not size:
                raise ConnectionError("the server closed a connection")
            self._take(number, bytes(self._chunk[:size]))
            self.last_s = time.monotonic()
        return told

    def _take(self, number: int, data: bytes) -> None:
        for payload in self._readers[number].feed(data):
            self.frames += 1
            self.bytes += len(payload)
            match payload[1]:  # behind the head of an array
                case Transition.TAG:
                    self.changes += len(_decode_transition(payload)[3])
                case Ping.TAG:
                    answer = encode_message(Pong(msgspec.msgpack.decode(payload)[1]))
                    self._sockets[number].send(masked_frame(answer))


def main() -> None:
    """Serve the commands on standard input until it ends."""
    port, path, file = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    receivers = Receivers()
    for hello in msgspec.msgpack.decode(Path(file).read_bytes(), type=list[list[bytes]]):
        own = [message.replace(bytes(16), os.urandom(16)) for message in hello]
        receivers.add(*connect("127.0.0.1", port, path, own))
        receivers.poll(0)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    receivers.watch(0)
    asked: list[tuple[str, int]] = []
    while True:
        if receivers.poll(None):
            line = os.read(0, 4096)
            if not line:
                return
            what, least = line.decode().split()
            asked.append((what, int(least)))
        if not asked or getattr(receivers, asked[0][0]) < asked[0][1]:
            continue
        asked.pop()
        row = {
            "frames": receivers.frames,
            "bytes": receivers.bytes,
            "changes": receivers.changes,
            "last_s": receivers.last_s,
            "cpu_s": time.process_time(),
        }
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
