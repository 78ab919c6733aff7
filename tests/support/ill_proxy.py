"""A proxy whose connections fall ill when a test says so: cut, stalled, half open, or a byte at a time.

Only the connections of that moment do; later ones are well. It changes, reorders and invents nothing. It does not know what
it carries; `cutting_proxy` cuts at chosen messages instead.
"""

from __future__ import annotations

import asyncio
import contextlib
from enum import Enum

from support.cutting_proxy import end

_READ_BYTES = 64 * 1024
TRICKLE_S = 0.1
"""For each byte."""


class Illness(Enum):
    """What becomes of a connection."""

    RESET = "ended by RST"
    ENDED = "ended by FIN"
    STALLED = "no bytes pass, ends do"
    HALF_OPEN = "nothing passes, not even an end"
    DEAF = "nothing passes to the client"
    MUTE = "nothing passes to the server"
    TRICKLING = "a byte at a time passes"


class IllProxy:
    """Listens on loopback.

    Attributes:
        port: Where.
    """

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._links: dict[asyncio.Task[None], _Link] = {}

    async def __aenter__(self) -> IllProxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._links:
            task.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    @property
    def connections(self) -> int:
        """How many there are, with ill ones."""
        return len(self._links)

    def fall_ill(self, illness: Illness) -> None:
        """Let all present connections be ill."""
        for link in self._links.values():
            link.fall_ill(illness)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        with contextlib.suppress(asyncio.CancelledError):  # a stream's server cannot bear cancelled ones
            try:
                there, thence = await asyncio.open_connection("127.0.0.1", self._target_port)
            except OSError:
                end(writer, reset=True)
                return
            link = self._links[task] = _Link(writer, thence)
            try:
                await link.run(reader, there)
            finally:
                end(writer, reset=True)
                end(thence, reset=True)
        self._links.pop(task, None)


class _Link:
    """One connection on its way through."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._client = client
        self._server = server
        self._illness: Illness | None = None
        self._over = asyncio.Event()

    def fall_ill(self, illness: Illness) -> None:
        self._illness = illness
        if illness in (Illness.RESET, Illness.ENDED):
            for writer in (self._client, self._server):
                end(writer, reset=illness is Illness.RESET)
            self._over.set()

    async def run(self, from_client: asyncio.StreamReader, from_server: asyncio.StreamReader) -> None:
        """Pass bytes until one side ends, if that passes."""
        pumps = [
            asyncio.create_task(self._pump(from_client, self._server, Illness.MUTE)),
            asyncio.create_task(self._pump(from_server, self._client, Illness.DEAF)),
        ]
        try:
            await self._over.wait()
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, one_way: Illness
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_READ_BYTES):
                await self._pass(data, writer, one_way)
        if self._illness is not Illness.HALF_OPEN:
            self._over.set()

    async def _pass(self, data: bytes, writer: asyncio.StreamWriter, one_way: Illness) -> None:
        """Pass what was read, as far as the connection is well enough."""
        illness = self._illness
        if illness in (Illness.STALLED, Illness.HALF_OPEN, one_way):
            return  # it is lost, as on a line that is down; what is sent again would be lost too
        if illness is not Illness.TRICKLING:
            writer.write(data)
            await writer.drain()
            return
        for byte in data:
            await asyncio.sleep(TRICKLE_S)
            writer.write(bytes((byte,)))
