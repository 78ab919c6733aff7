"""Actions of a loaded bundle whose queries and mutations run over a backend in memory. Nothing fails by itself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from headwater.call_failures import CallFailure
from headwater_protocol.failures import error_from
from headwater_protocol.messages import ErrorBody

from support.bundles import World, decode, encode

if TYPE_CHECKING:
    from headwater_protocol.manifest import FunctionKind


class ActionWorld:
    """What actions need of the world.

    Attributes:
        world: The bundle and its transaction.
        ran: Kind and name of each query and mutation, in order.
        pieces: Decoded pieces of the last stream.
        time_ms: What the clock shows next; it moves with each look.
    """

    depth_max = 4

    def __init__(self, world: World) -> None:
        self.world = world
        self.ran: list[tuple[str, str]] = []
        self.pieces: list[Any] = []
        self.time_ms = 1000.0

    def now_ms(self) -> float:
        self.time_ms += 1
        return self.time_ms

    def random_bytes(self, size: int) -> bytes:
        return bytes(size)

    def table_name(self, document_id: str) -> str | None:
        return self.world.backend.table_name(document_id)

    async def run(self, kind: FunctionKind, name: str, arguments: bytes) -> bytes:
        await asyncio.sleep(0)
        self.ran.append((kind, name))
        bundle, backend = self.world.bundle, self.world.backend
        call = bundle.call_query if kind == "query" else bundle.call_mutation
        outcome = call(name, arguments, backend, internal_allowed=True)
        if outcome.failure is not None:
            failure = outcome.failure
            raise error_from(ErrorBody(failure.code, failure.message, failure.data))
        assert outcome.result is not None
        return outcome.result.content

    def call(
        self, name: str, /, *, identity: bytes | None = None, stream: bool = False, **arguments: Any
    ) -> Any:
        """Run an action to its end and return its value, or its failure."""
        self.pieces = []

        async def emit(content: bytes) -> None:
            self.pieces.append(decode(content))

        ended = asyncio.run(
            self.world.bundle.call_action(
                name, encode(arguments), self, emit, identity=identity, must_stream=stream
            )
        )
        return ended if isinstance(ended, CallFailure) else decode(ended)
