"""aiohttp's protocol of one HTTP connection, with a gate before its reader of WebSocket frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from aiohttp import web
from headwater_protocol.errors import ProtocolError

from headwater_server.net.frame_gate import FrameGate
from headwater_server.net.head_gate import HeadGate

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater_server.net.admission import Arrival
    from headwater_server.net.connection import Connection


class Passage:
    """Takes a reader's place: what it is fed goes through a gate first.

    A connection is ended when the gate refuses something, and nothing more of its client reaches the reader.
    """

    __slots__ = ("_connection", "_fault", "_feed", "_feed_eof", "_gate", "_welcomed")

    def __init__(self, then_limit_bytes: int | None = None) -> None:
        self._gate = FrameGate(then_limit_bytes)
        self._welcomed = False
        self._fault: ProtocolError | None = None
        self._feed: Callable[[bytes], tuple[bool, bytes]] | None = None
        self._feed_eof: Callable[[], None] | None = None
        self._connection: Connection | None = None

    def lead_to(self, reader: Any) -> None:
        """Set the reader."""
        self._feed, self._feed_eof = reader.feed_data, reader.feed_eof

    def belong_to(self, connection: Connection) -> None:
        """Set who is ended when the gate refuses something; it may have done so already."""
        self._connection = connection
        if self._fault is not None:
            connection.end(self._fault)

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Take bytes of the client; called by the protocol."""
        assert self._feed is not None, "set before anything is read"
        if self._fault is not None:
            return False, b""
        if not self._welcomed and self._connection is not None and self._connection.session_id:
            self._welcomed = True
            self._gate.welcome(self._connection.frame_limit_bytes)
        try:
            self._gate.look_at(data)
        except ProtocolError as fault:
            self._fault = fault
            if self._connection is not None:
                self._connection.end(fault)
            return False, b""
        return self._feed(data)

    def feed_eof(self) -> None:
        """The client sends nothing more; called by the protocol."""
        assert self._feed_eof is not None, "set before anything is read"
        self._feed_eof()


class HttpHandler(web.RequestHandler):
    """Serves one connection.

    Attributes:
        arrival: What it counts as; set before it is connected.
        passage: Where the frames of a WebSocket go through; set before it is accepted, None without one and after its end.
        lost: Called when the socket has ended, while somebody wants to know; None else.
    """

    __slots__ = ("arrival", "lost", "passage")

    arrival: Arrival
    passage: Passage | None
    lost: Callable[[], None] | None

    def bound_heads(self, limit_bytes: int) -> None:
        """Refuse requests whose head is larger; called once, before anything is read."""
        self._parser: Any = HeadGate(self._parser, limit_bytes, self._read_no_rest)

    def _read_no_rest(self) -> None:
        """Close behind a body that is not wanted: what is left of one that is compressed can be a thousand times as much."""
        self._lingering_time = 0.0

    def set_parser(self, parser: Any, data_received_cb: Callable[[], None] | None = None) -> None:
        """Have what comes from now on read as frames; called by aiohttp when a WebSocket is accepted."""
        assert self.passage is not None, "set before it is accepted"
        self.passage.lead_to(parser)
        super().set_parser(cast("Any", self.passage), data_received_cb)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The socket has ended."""
        super().connection_lost(exc)
        self.arrival.seat.leave()
        lost = getattr(self, "lost", None)
        self.lost = None
        if lost is not None:
            lost()
        self.passage = (
            None  # it leads back here: as a cycle, all of the connection would wait for the collector
        )
