"""How a client stands: whether it is connected and what it waits for."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headwater.client.authentication import AuthState

Phase = Literal["connecting", "open", "reconnecting", "closed"]


@dataclass(frozen=True, slots=True)
class ClientState:
    """A look at a client. Moments are told by the clock of its loop, which is `time.monotonic`.

    Attributes:
        phase: `connecting` before the server accepts the first connection, `open` while there is
            one, `reconnecting` after it was lost, `closed` when the client was closed or the
            server told that connecting again is of no use.
        since_mono: When it came to this phase; 0 before the client's block is entered.
        connections: How often the server has accepted a connection.
        retries: Attempts to connect again, until one has brought back everything from before.
        queries: Subscriptions, and queries that wait for their value.
        mutations: Mutations that are not decided.
        requests: Calls of `query`, `mutation` and `action` that wait for their results.
        oldest_request_mono: When the first of those was made, None if there is none.
        last_problem: Why the last connection ended or could not be made; None before. It is
            kept while there is another.
        actions: Actions that are not over.
        auth: `signed_in` once the server has accepted a token; `signing_in` until then, and while another
            one is fetched since the last has ended; else `nobody`.
    """

    phase: Phase
    since_mono: float
    connections: int
    retries: int
    queries: int
    mutations: int
    requests: int
    oldest_request_mono: float | None
    last_problem: str | None
    actions: int = 0
    auth: AuthState = "nobody"

    @property
    def connected(self) -> bool:
        """Whether there is a connection that the server has accepted."""
        return self.phase == "open"

    @property
    def closed(self) -> bool:
        """Whether the client is over."""
        return self.phase == "closed"


class States:
    """The states of a client, an asynchronous iterator: the present one, and the newest after every change.

    Those in between are skipped. It ends after the state `closed`. Made by `Client.states`.
    """

    def __init__(self, look: Callable[[], ClientState]) -> None:
        self._look = look
        self._last: ClientState | None = None
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Say that there may be another state."""
        self._changed.set()

    def __aiter__(self) -> States:
        return self

    async def __anext__(self) -> ClientState:
        while True:
            state = self._look()
            if state != self._last:
                self._last = state
                return state
            if state.closed:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()


class Waiting:
    """Calls that wait for their results.

    Attributes:
        count: How many.
        oldest_mono: When the first of them was made, None if there is none.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self.count = 0
        self.oldest_mono: float | None = None
        self._began: dict[object, float] = {}  # in the order of the calls
        self._changed = changed

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Count a call until the block ends."""
        call = object()
        self._began[call] = asyncio.get_running_loop().time()
        self._count()
        try:
            yield
        finally:
            del self._began[call]
            self._count()

    def _count(self) -> None:
        self.count = len(self._began)
        self.oldest_mono = next(iter(self._began.values()), None)
        self._changed()
