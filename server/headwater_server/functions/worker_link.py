"""An end of a worker's link on an event loop: sends at the end of a turn of the loop or at once, never waits.

The daemon has one for each worker, a worker of actions one for the daemon.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic

from headwater_server.worker.link import FrameError, FrameSplitter, FrameWriter, MessageT

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import Callable

    import msgspec

_RECEIVE_BYTES = 256 * 1024


class WorkerLink(Generic[MessageT]):
    """Messages to and from the other side.

    Args:
        loop: The event loop.
        connection: Our end of the socket pair; owned from here on.
        decoder: Of what the other side sends.
        receive: Called with each message.
        lost: Called once when the other end is closed or has sent nonsense; not after `close`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connection: socket.socket,
        decoder: msgspec.msgpack.Decoder[MessageT],
        receive: Callable[[MessageT], None],
        lost: Callable[[], None],
    ) -> None:
        connection.setblocking(False)
        self._loop = loop
        self._connection = connection
        self._receive = receive
        self._lost = lost
        self._splitter = FrameSplitter(decoder)
        self._writer = FrameWriter()
        self._unsent = memoryview(b"")
        self._chunk = memoryview(bytearray(_RECEIVE_BYTES))
        self._flush_scheduled = False
        self._open = True
        loop.add_reader(connection.fileno(), self.drain)

    def send(self, message: object, *, at_once: bool = False) -> None:
        """Send a message at the end of this turn of the loop, or at once, with all that waits for that.

        At once is right where the other side has nothing to do: a turn may be long.
        """
        if not self._open:
            return
        self._writer.add(message)
        if at_once:
            self._flush()
        elif not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush_at_end)

    def _flush_at_end(self) -> None:
        self._flush_scheduled = False
        self._flush()

    def drain(self) -> None:
        """Handle what has arrived, to the last byte."""
        chunk = self._chunk
        while self._open:
            try:
                size = self._connection.recv_into(chunk)
            except BlockingIOError:
                return
            except OSError:
                size = 0
            try:
                messages = self._splitter.feed(chunk[:size])
            except FrameError:
                size, messages = 0, []
            for message in messages:
                self._receive(message)
            if not size:
                if self._open:
                    self.close()
                    self._lost()
                return
            if size < _RECEIVE_BYTES:
                return

    def close(self) -> None:
        """Close our end; a worker ends when it reads that."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._connection.fileno())
            self._loop.remove_writer(self._connection.fileno())
            self._connection.close()
            self._chunk = self._unsent = memoryview(
                b""
            )  # links are part of cycles: the collector may be long in coming

    def _flush(self) -> None:
        """Send what was added; what the socket does not take is sent when it can."""
        if not self._open or self._unsent or not len(self._writer):
            return
        self._unsent = memoryview(self._writer.take())
        self._send_unsent()

    def _send_unsent(self) -> None:
        try:
            sent = self._connection.send(self._unsent)
        except BlockingIOError:
            sent = 0
        except OSError:  # its end is told by `drain`, with what it still had to say
            sent = len(self._unsent)
        self._unsent = self._unsent[sent:]
        if self._unsent:
            self._loop.add_writer(self._connection.fileno(), self._writable)

    def _writable(self) -> None:
        self._loop.remove_writer(self._connection.fileno())
        self._send_unsent()
        if not self._unsent and len(self._writer):
            self._flush()
