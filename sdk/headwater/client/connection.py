"""Keep a client's session connected: one transport after the other, for as long as it is of use."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from headwater_protocol.backoff import backoff_s
from headwater_protocol.client_events import Fatal, Opened, PeerSilent
from headwater_protocol.errors import InternalError, ProtocolError
from headwater_protocol.limits import SESSION_BYTES

from headwater.client.race import race
from headwater.client.transport import CannotConnectError, TransportClosedError

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from headwater_protocol.client_events import ClientEvent
    from headwater_protocol.client_session import ClientSession
    from headwater_protocol.errors import HeadwaterError

    from headwater.client.states import Phase
    from headwater.client.transport import Address, OpenTransport, Transport

log = logging.getLogger("headwater.client")

_OPEN_TIMEOUT_S = 10.0
_TICKS_PER_HEARTBEAT = 4


class Connection:
    """A connection to one server that outlives its sockets.

    Attributes:
        session: What speaks over it.
        wake: Set by whoever has given the session something to send.
        phase: Where it stands.
        since_mono: When it came there, by the clock of the loop; 0 before `run`.
        opened: How often the server has accepted a connection.
        attempt: Attempts to connect again since a connection last brought everything back.
        problem: Why the last connection ended or was not made, None before.
    """

    def __init__(
        self,
        address: Address,
        session: ClientSession,
        source: random.Random,
        *,
        frame_limit_bytes: int,
        open_transport: OpenTransport,
        dispatch: Callable[[Sequence[ClientEvent]], None],
        changed: Callable[[], None],
    ) -> None:
        """Prepare it.

        Args:
            address: Where the server is.
            session: What is to be connected.
            source: Chance for pauses and new session names.
            frame_limit_bytes: Largest message taken from the server.
            open_transport: How connections are made.
            dispatch: Takes what the session tells.
            changed: Called when an attribute has changed.
        """
        self.session = session
        self.wake = asyncio.Event()
        self.phase: Phase = "connecting"
        self.since_mono = 0.0
        self.opened = 0
        self.attempt = 0
        self.problem: str | None = None
        self._address = address
        self._source = source
        self._frame_limit_bytes = frame_limit_bytes
        self._open_transport = open_transport
        self._dispatch = dispatch
        self._changed = changed

    async def run(self) -> HeadwaterError:
        """Stay connected until it is of no use any more; return why."""
        self.since_mono = asyncio.get_running_loop().time()
        try:
            while True:
                final = await self._live_once()
                if final is not None:
                    return final
                await asyncio.sleep(backoff_s(self.attempt, self._source.random()))
                self.attempt += 1
                self._changed()
        except Exception:
            log.exception("the client failed")
            return InternalError("the client failed; its log says why")

    def move(self, phase: Phase) -> None:
        """Come to a phase, if it is not there already."""
        if phase != self.phase:
            self.phase = phase
            self.since_mono = asyncio.get_running_loop().time()
        self._changed()

    async def _live_once(self) -> HeadwaterError | None:
        """Connect and serve one connection to its end; return the error if there shall be no other."""
        try:
            async with asyncio.timeout(_OPEN_TIMEOUT_S):
                transport = await self._open_transport(
                    self._address, frame_limit_bytes=self._frame_limit_bytes
                )
        except TimeoutError:
            self._lost(f"no answer within {_OPEN_TIMEOUT_S:.0f} s")
            return None
        except CannotConnectError as error:
            self._lost(error.message)
            return None
        self.session.connect()
        ended: Fatal | None = None
        try:
            await self._converse(transport)
        except TransportClosedError as error:
            self._lost(error.reason)
        except ProtocolError as error:
            self._lost(f"the server broke the protocol: {error.message}")
            ended = Fatal(error, reconnect=error.code != "unsupported_version")
        except _ServerEndedError as error:
            self._lost(f"the server ended it: {error.fatal.error.message}")
            ended = error.fatal
        finally:
            self._dispatch(self.session.disconnected())
            await transport.close()
        if ended is None or ended.reconnect:
            if ended is not None and ended.error.code == "session_in_use":
                self._dispatch(self.session.renew(self._source.randbytes(SESSION_BYTES)))
            return None
        return ended.error

    async def _converse(self, transport: Transport) -> None:
        """Serve a connection until it ends, which raises the reason."""
        self.wake.set()
        await race(self._read(transport), self._write(transport), self._beat())

    async def _read(self, transport: Transport) -> None:
        while True:
            self._take(self.session.receive(await transport.receive()))
            self.wake.set()
            if self.attempt and self.session.settled:
                self.attempt = 0
                self._changed()

    async def _write(self, transport: Transport) -> None:
        while True:
            await self.wake.wait()
            self.wake.clear()
            for frame in self.session.take_frames():
                await transport.send(frame)

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._take(self.session.tick(loop.time()))
            self.wake.set()
            await asyncio.sleep(self.session.heartbeat_s / _TICKS_PER_HEARTBEAT)

    def _take(self, events: list[ClientEvent]) -> None:
        """Hand on what the session tells, and see to what concerns the connection."""
        self._dispatch(events)
        for event in events:
            if isinstance(event, Opened):
                log.info("connected to %s", self._address.url)
                self.opened += 1
                self.move("open")
            elif isinstance(event, Fatal):
                raise _ServerEndedError(event)
            elif isinstance(event, PeerSilent):
                raise TransportClosedError("the server has gone silent")

    def _lost(self, problem: str) -> None:
        """Remember and tell why there is no connection; of a row of failures the first is told aloud."""
        level = logging.WARNING if self.phase == "open" or self.attempt == 0 else logging.DEBUG
        log.log(level, "no connection to %s: %s", self._address.url, problem)
        self.problem = problem
        self.move("reconnecting" if self.opened else "connecting")


class _ServerEndedError(Exception):
    """The server has said that it ends the connection."""

    def __init__(self, fatal: Fatal) -> None:
        super().__init__(fatal.error.message)
        self.fatal = fatal
