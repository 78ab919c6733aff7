"""Clients that send mutations at a rate, whatever the server makes of them; as cheap as Python has it.

Each keeps to the protocol: not more than so many without an answer. Faults they may produce: none.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING, cast

import msgspec
from headwater_protocol.codec import encode_message
from headwater_protocol.frames import FrameDecoder, frame
from headwater_protocol.messages import (
    Connect,
    FatalError,
    Mutation,
    MutationAnswer,
    Ping,
    Pong,
    Welcome,
)
from headwater_protocol.values import pack_value

if TYPE_CHECKING:
    import random

_TURN_S = 0.005
_decode = msgspec.msgpack.Decoder().decode


class Spout(asyncio.Protocol):
    """One client.

    Attributes:
        outcomes: How many were answered with which error code, "" for a success.
        latencies_s: Of the successes, newest last.
        ended: Why the server has ended the connection; "" while it has not.
        in_flight: Mutations without an answer.
    """

    def __init__(self, session: bytes, text: str) -> None:
        self._session = session
        self._arguments = pack_value({"text": text})
        self._decoder = FrameDecoder(1 << 24)
        self._sent_s: dict[int, float] = {}
        self._request = 0
        self._full = False
        self._welcome_ts = 0
        self._transport: asyncio.Transport | None = None
        self.outcomes: Counter[str] = Counter()
        self.latencies_s: list[float] = []
        self.ended = ""

    @property
    def in_flight(self) -> int:
        return len(self._sent_s)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._write(encode_message(Connect((1,), self._session, 0, None, "flood")))

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False

    def send(self, count: int, in_flight_max: int = 1_000) -> int:
        """Send so many mutations, or as many as it may have without an answer; return how many."""
        count = 0 if self._full or not self._welcome_ts else min(count, in_flight_max - self.in_flight)
        now_s = time.monotonic()
        below = next(iter(self._sent_s), self._request)
        messages = []
        for _ in range(count):
            mutation = Mutation(self._request, "probe:keep", self._arguments, below, self._welcome_ts)
            messages.append(encode_message(mutation))
            self._sent_s[self._request] = now_s
            self._request += 1
        self._write(*messages)
        return count

    def data_received(self, data: bytes) -> None:
        now_s = time.monotonic()
        for message in self._decoder.feed(data):
            fields = _decode(message)
            if fields[0] == MutationAnswer.TAG:
                code = fields[4][0] if fields[4] is not None else ""
                self.outcomes[code] += 1
                took_s = now_s - self._sent_s.pop(fields[1])
                if not code:
                    self.latencies_s.append(took_s)
            elif fields[0] == Welcome.TAG:
                self._welcome_ts = fields[3]
            elif fields[0] == Ping.TAG:
                self._write(encode_message(Pong(fields[1])))
            elif fields[0] == FatalError.TAG:
                self.ended = fields[1][0]

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = self.ended or "cut"

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _write(self, *messages: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(map(frame, messages)))


class Flood:
    """Many of them.

    Attributes:
        spouts: The clients.
    """

    def __init__(self, spouts: list[Spout]) -> None:
        self.spouts = spouts

    @classmethod
    async def open(cls, port: int, count: int, chance: random.Random) -> Flood:
        """Connect."""
        loop = asyncio.get_running_loop()
        spouts = []
        for number in range(count):
            spout = Spout(chance.randbytes(16), f"spout {number}")
            await loop.create_connection(lambda spout=spout: spout, "127.0.0.1", port)  # type: ignore[misc]
            spouts.append(spout)
        return cls(spouts)

    @property
    def outcomes(self) -> Counter[str]:
        """Those of all."""
        return sum((spout.outcomes for spout in self.spouts), Counter[str]())

    async def keep_in_flight(self, each: int, seconds: float) -> float:
        """Keep so many in flight at each client; return how many were accepted a second."""
        before, began_s = self.outcomes[""], time.monotonic()
        while (spent_s := time.monotonic() - began_s) < seconds:
            for spout in self.spouts:
                spout.send(max(0, each - spout.in_flight))
            await asyncio.sleep(_TURN_S)
        return (self.outcomes[""] - before) / spent_s

    async def send_at(self, rate: float, each_max: int, seconds: float) -> tuple[float, float]:
        """Send at a rate, over all clients; return how many were accepted and how many were sent a second.

        Args:
            rate: Mutations a second.
            each_max: How many a client has without an answer at most.
            seconds: How long.
        """
        before, began_s, sent = self.outcomes[""], time.monotonic(), 0
        due = 0.0
        while (spent_s := time.monotonic() - began_s) < seconds:
            each = int((rate * spent_s - due) / len(self.spouts))
            due += each * len(self.spouts)  # what nobody could send is not made up for
            sent += sum(spout.send(each, each_max) for spout in self.spouts)
            await asyncio.sleep(_TURN_S)
        return (self.outcomes[""] - before) / spent_s, sent / spent_s

    async def settled(self, patience_s: float) -> None:
        """Wait until everything is answered."""
        async with asyncio.timeout(patience_s):
            while any(spout.in_flight and not spout.ended for spout in self.spouts):
                await asyncio.sleep(0.01)

    def close(self) -> None:
        for spout in self.spouts:
            spout.close()
