"""A client that speaks the protocol by its codec alone, to do what a well-behaved one never does."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from headwater_protocol.codec import decode_server_message, encode_message
from headwater_protocol.frames import FrameDecoder, frame
from headwater_protocol.messages import Connect, FatalError, Mutation, MutationAnswer, Transition, Welcome

from support.cutting_proxy import end

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headwater_protocol.messages import ErrorBody, ServerMessage

ANSWER_TIMEOUT_S = 20.0
_FRAME_LIMIT_BYTES = 1 << 24


class ConnectionEndedError(Exception):
    """The connection has ended.

    Attributes:
        code: The error code the server gave; "" if it gave none.
    """

    def __init__(self, code: str = "", message: str = "") -> None:
        super().__init__(code, message)
        self.code = code


@dataclass(frozen=True)
class Outcome:
    """How a mutation was answered, byte for byte; its ts may differ from answer to answer."""

    value: bytes | None
    error: ErrorBody | None

    @property
    def code(self) -> str:
        """Its error code, "" if it succeeded."""
        return self.error.code if self.error is not None else ""


class RawConnection:
    """One TCP connection, past its Welcome."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.told_ts = 0
        self._reader = reader
        self._writer = writer
        self._decoder = FrameDecoder(_FRAME_LIMIT_BYTES)
        self._received: list[ServerMessage] = []

    @classmethod
    async def open(cls, port: int, session: bytes, last_ts: int = 0) -> RawConnection:
        """Connect and greet.

        Raises:
            ConnectionEndedError: Nobody is there, or the server refuses.
        """
        try:
            connection = cls(*await asyncio.open_connection("127.0.0.1", port))
        except OSError:
            raise ConnectionEndedError from None
        try:
            connection.send(Connect((1,), session, last_ts, None, "raw"))
            welcome = await connection.receive()
            assert isinstance(welcome, Welcome)
        except BaseException:
            connection.end()
            raise
        return connection

    def send(self, *messages: Connect | Mutation) -> None:
        """Send messages; whether they arrive is seen by what comes back."""
        self._writer.write(b"".join(frame(encode_message(message)) for message in messages))

    def send_bytes(self, data: bytes) -> None:
        """Send what may be a part of a message."""
        self._writer.write(data)

    async def receive(self) -> ServerMessage:
        """Return the next message.

        Raises:
            ConnectionEndedError: There is none.
        """
        while not self._received:
            try:
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    data = await self._reader.read(1 << 16)
            except OSError:
                data = b""
            if not data:
                raise ConnectionEndedError
            self._received += map(decode_server_message, self._decoder.feed(data))
        message = self._received.pop(0)
        match message:
            case FatalError(error):
                raise ConnectionEndedError(error.code, error.message)
            case Welcome():
                self.told_ts = max(self.told_ts, message.ts)
            case Transition():
                self.told_ts = max(self.told_ts, message.end.ts)
        return message

    async def answers(self, numbers: Iterable[int]) -> dict[int, Outcome]:
        """Wait for the answers of some mutations, and return them.

        Raises:
            ConnectionEndedError: Some did not come.
        """
        waiting, found = set(numbers), dict[int, Outcome]()
        while waiting:
            message = await self.receive()
            if isinstance(message, MutationAnswer):
                waiting.remove(message.request)
                found[message.request] = Outcome(message.value, message.error)
        return found

    def end(self, *, reset: bool = False) -> None:
        """End it, by FIN or by RST."""
        end(self._writer, reset=reset)


@dataclass
class RawSession:
    """A session and its own record.

    Attributes:
        port: Where the daemon listens.
        session: Its name.
        sent: Every mutation as it was first sent, by number.
        outcomes: The first answer to each.
        forget_below: What it has said at most.
        told_ts: Newest ts it has heard of.
        may_be_forgotten: Whether the daemon forgets by age as well while the test runs.
        wrong: What it saw and should not have seen.
        resent: How many mutations it sent again.
        unknown: How often the server did not know any more.
    """

    port: int
    session: bytes
    sent: dict[int, Mutation] = field(default_factory=dict)
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    forget_below: int = 0
    told_ts: int = 0
    may_be_forgotten: bool = False
    wrong: list[str] = field(default_factory=list)
    resent: int = 0
    unknown: int = 0

    async def open(self) -> RawConnection:
        """Connect."""
        connection = await RawConnection.open(self.port, self.session)
        self.told_ts = max(self.told_ts, connection.told_ts)
        return connection

    def mutation(self, number: int, name: str, arguments: bytes, *, forget_below: int = 0) -> Mutation:
        """Make and remember a mutation that is now sent for the first time."""
        self.forget_below = max(self.forget_below, forget_below)
        mutation = Mutation(number, name, arguments, self.forget_below, self.told_ts)
        self.sent[number] = mutation
        return mutation

    def note(self, found: dict[int, Outcome]) -> None:
        """Compare answers with those before."""
        for number, outcome in found.items():
            known = self.outcomes.get(number)
            if outcome.code == "outcome_unknown":
                self.unknown += 1
                if number >= self.forget_below and not self.may_be_forgotten:
                    self.wrong.append(f"{number} is not known, and nothing was forgotten")
            elif known is None:
                self.outcomes[number] = outcome
            elif known != outcome:
                self.wrong.append(f"{number} was answered {known}, then {outcome}")
