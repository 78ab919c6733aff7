"""Clients that move money as fast as they are answered: raw sockets, one epoll.

`python -m benchmarks.mutators PORT CLIENTS IN_FLIGHT FIRST ACCOUNTS SEED FUNCTION` opens the clients
and then answers each line `SECONDS EXPONENT` on standard input: mutations are kept in flight
for so long and a moment before, in which as many get under way as are meant to be; then the answers to the rest are awaited.
One JSON line tells how many were answered in how many seconds, without that moment, and how many in all, the errors among
them, the latencies in ms of those that were answered in time (median and 99th percentile, from sending to the answer), and this process'
CPU seconds. FUNCTION is `bank:transfer`, between two accounts, or `bank:pay_in`, into one. The accounts are those from `FIRST` on, drawn with Zipf's law of that exponent;
0 draws them all alike.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import select
import sys
import time

import msgspec
from headwater_protocol.codec import encode_message
from headwater_protocol.messages import Connect, Mutation, MutationAnswer, Ping, Pong
from headwater_protocol.values import pack_value
from headwater_protocol.versions import SUPPORTED_VERSIONS

from benchmarks.websockets import FrameReader, connect, masked_frame

RAMP_S = 0.3
"""With 2,560 mutations in flight a daemon first has all of them to take in, with few to answer."""

_decode = msgspec.msgpack.Decoder().decode


class Client:
    """One session."""

    def __init__(self, port: int) -> None:
        hello = encode_message(Connect(SUPPORTED_VERSIONS, os.urandom(16), 0, None, "benchmark"))
        self.socket, rest = connect("127.0.0.1", port, "/sync", [hello])
        self.reader = FrameReader(rest)
        self.request = 0
        self.in_flight = 0
        self.unsent = b""
        self.sent_s: dict[int, float] = {}

    def send(self, data: bytes) -> None:
        """Send, or keep what the socket does not take now."""
        self.unsent += data
        with contextlib.suppress(BlockingIOError):
            self.unsent = self.unsent[self.socket.send(self.unsent) :]


class Mutators:
    """All clients."""

    def __init__(
        self, port: int, clients: int, in_flight: int, first: int, accounts: int, seed: int, function: str
    ) -> None:
        self._function = function
        self._in_flight = in_flight
        self._accounts = range(first, first + accounts)
        self._weights: list[float] | None = None
        self._latencies_ms: list[float] = []
        self._random = random.Random(seed)
        self._epoll = select.epoll()
        self._clients: dict[int, Client] = {}
        self._chunk = memoryview(bytearray(1 << 18))
        self.answers = 0
        self.errors = 0
        for _ in range(clients):
            client = Client(port)
            self._clients[client.socket.fileno()] = client
            self._epoll.register(client.socket.fileno(), select.EPOLLIN)

    def run(self, seconds: float, exponent: float) -> dict[str, float]:
        """Keep mutations in flight for so long and wait for the rest."""
        self.answers = self.errors = 0
        self._latencies_ms.clear()
        self._weights = None
        if exponent:
            ranks = range(1, len(self._accounts) + 1)
            self._weights = list(itertools.accumulate(rank**-exponent for rank in ranks))
        begun = start = time.perf_counter()
        end = start + RAMP_S + seconds
        for client in self._clients.values():
            self._fill(client)
        before, counted = 0, None
        while any(client.in_flight for client in self._clients.values()):
            now = time.perf_counter()
            running = now < end
            if start == begun and now - begun >= RAMP_S:
                start, before = now, self.answers
            if not running and counted is None:
                counted = (self.answers - before, now - start)
            if now > end + 30:
                raise TimeoutError("answers are missing")
            self._poll(refill=running)
        answers, spent = counted or (self.answers - before, time.perf_counter() - start)
        latencies = sorted(self._latencies_ms[before : before + max(answers, 1)])
        return {
            "answers": answers,
            "all_answers": self.answers,
            "seconds": spent,
            "errors": self.errors,
            "p50_ms": latencies[len(latencies) // 2],
            "p99_ms": latencies[len(latencies) * 99 // 100],
            "cpu_s": time.process_time(),
        }

    def _poll(self, *, refill: bool) -> None:
        for number, _ in self._epoll.poll(0.05):
            client = self._clients[number]
            try:
                size = client.socket.recv_into(self._chunk)
            except BlockingIOError:
                continue
            if not size:
                raise ConnectionError("the server closed a connection")
            for payload in client.reader.feed(bytes(self._chunk[:size])):
                message = _decode(payload)
                if message[0] == MutationAnswer.TAG:
                    client.in_flight -= 1
                    self.answers += 1
                    self.errors += message[4] is not None
                    self._latencies_ms.append((time.perf_counter() - client.sent_s.pop(message[1])) * 1000)
                elif message[0] == Ping.TAG:
                    client.send(masked_frame(encode_message(Pong(message[1]))))
            if refill or client.unsent:
                self._fill(client, send_more=refill)

    def _fill(self, client: Client, *, send_more: bool = True) -> None:
        frames = []
        now_s = time.perf_counter()
        while send_more and client.in_flight < self._in_flight:
            arguments = pack_value(self._arguments())
            frames.append(masked_frame(encode_message(Mutation(client.request, self._function, arguments))))
            client.sent_s[client.request] = now_s
            client.request += 1
            client.in_flight += 1
        client.send(b"".join(frames))

    def _arguments(self) -> dict[str, int]:
        source, target = self._two_accounts()
        if self._function == "bank:pay_in":
            return {"number": target, "amount": 1}
        return {"source": source, "target": target, "amount": 1}

    def _two_accounts(self) -> list[int]:
        while True:
            found = self._random.choices(self._accounts, cum_weights=self._weights, k=2)
            if found[0] != found[1]:
                return found


def main() -> None:
    """Serve the commands on standard input until it ends."""
    port, clients, in_flight, first, accounts, seed = map(int, sys.argv[1:7])
    mutators = Mutators(port, clients, in_flight, first, accounts, seed, sys.argv[7])
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        seconds, exponent = line.split()
        sys.stdout.write(json.dumps(mutators.run(float(seconds), float(exponent))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
