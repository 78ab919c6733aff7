"""The TCP shell: each message behind its length, four bytes big-endian."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from headwater_protocol.codec import encode_message
from headwater_protocol.errors import ProtocolError
from headwater_protocol.failures import error_body
from headwater_protocol.frames import FrameDecoder, frame
from headwater_protocol.messages import FatalError

from headwater_server.net.inlet import Inflow
from headwater_server.net.sinks import TcpSink, limit_unsent

if TYPE_CHECKING:
    from headwater_protocol.errors import HeadwaterError

    from headwater_server.net.admission import Arrival
    from headwater_server.net.connection import Connection
    from headwater_server.net.hub import Hub


class TcpShell(asyncio.Protocol):
    """One TCP connection."""

    def __init__(self, hub: Hub, arrival: Arrival) -> None:
        self._hub = hub
        self._arrival = arrival
        self._sink: TcpSink | None = None
        self._connection: Connection | None = None
        self._decoder: FrameDecoder | None = None
        self._inflow: Inflow | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a new connection."""
        stream = cast("asyncio.Transport", transport)
        limit_unsent(stream, self._hub.limits.unsent_bytes)
        self._sink = TcpSink(stream)
        self._connection = self._hub.accept(self._sink, account=self._arrival.account)
        if self._connection is not None:
            self._decoder = FrameDecoder(self._connection.frame_limit_bytes)
            self._inflow = Inflow(
                self._hub.inlet, self._connection, stream.pause_reading, lambda: read_on(stream)
            )

    def data_received(self, data: bytes) -> None:
        """Take bytes apart; the limit of a frame is looked at before it is buffered."""
        connection, decoder, inflow = self._connection, self._decoder, self._inflow
        if connection is None or decoder is None or inflow is None:
            return
        try:
            # What came last may have been handled since: a Connect that waited raises the limit of what follows it.
            decoder.limit_bytes = connection.frame_limit_bytes
            inflow.feed(decoder.feed(data))
        except ProtocolError as error:
            connection.end(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket has ended."""
        self._arrival.seat.leave()
        if self._inflow is not None:
            self._inflow.close()
        if self._sink is not None:
            self._sink.lost()
        if self._connection is not None:
            self._connection.lost()


def read_on(stream: asyncio.Transport) -> None:
    """Read of a client again, if it is still there."""
    if not stream.is_closing():
        stream.resume_reading()


def tcp_refusal(error: HeadwaterError) -> bytes:
    """Return what a connection is sent that is refused."""
    return frame(encode_message(FatalError(error_body(error))))
