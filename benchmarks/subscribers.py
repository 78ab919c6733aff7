"""Many subscribed clients, in a process that costs as little as it can: `benchmarks.receivers`, from outside."""

from __future__ import annotations

import asyncio
import json
import resource
import tempfile
from typing import TYPE_CHECKING

import msgspec
from headwater_protocol.codec import encode_message
from headwater_protocol.messages import AddQuery, Connect, ModifyQuerySet
from headwater_protocol.values import pack_value
from headwater_protocol.versions import SUPPORTED_VERSIONS

from benchmarks.child import Child

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

TIMEOUT_S = 60.0

Call = tuple[str, dict[str, object]]
"""A query function and its arguments."""


class Subscribers:
    """The process."""

    def __init__(self, child: Child) -> None:
        self._child = child

    @classmethod
    async def start(cls, port: int, path: str, connections: Iterable[Sequence[Call]]) -> Subscribers:
        """Open connections, each of which subscribes to some queries; a plain server ignores what it is sent."""
        _, files_max = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (files_max, files_max)
        )  # processes started from here on have it too
        # Zeros become a session id of its own for each connection.
        connect = encode_message(Connect(SUPPORTED_VERSIONS, bytes(16), 0, None, "benchmark"))
        hellos = []
        for calls in connections:
            added = (
                AddQuery(number, name, pack_value(given)) for number, (name, given) in enumerate(calls, 1)
            )
            hellos.append([connect, encode_message(ModifyQuerySet(0, 1, tuple(added), ()))])
        with tempfile.NamedTemporaryFile() as file:
            file.write(msgspec.msgpack.encode(hellos))
            file.flush()
            return cls(await Child.start("benchmarks.receivers", port, path, file.name))

    async def count(self) -> dict[str, float]:
        """Return frames, bytes and changes received so far, when the last came (monotonic), and CPU seconds."""
        return await self.settled(0)

    async def settled(self, least: float, what: str = "frames") -> dict[str, float]:
        """Wait until at least so many frames, or changes, have arrived; looking costs nothing meanwhile."""
        async with asyncio.timeout(TIMEOUT_S):
            row: dict[str, float] = json.loads(await self._child.ask(f"{what} {int(least)}"))
        return row

    async def close(self) -> None:
        """End it."""
        await self._child.close()
