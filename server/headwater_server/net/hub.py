"""All client connections, and what each of them needs of the daemon."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from headwater_protocol.errors import HeadwaterError, TransientError

from headwater_server.convex.bodies import JsonBodies
from headwater_server.net.admission import Allowance
from headwater_server.net.connection import Connection
from headwater_server.net.deflate import Deflater
from headwater_server.net.dialect import Dialect, of_convex, our_own
from headwater_server.net.inlet import Inlet
from headwater_server.net.sinks import SharedFrames, Sink

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater_server.functions.actions import Actions
    from headwater_server.functions.mutations import Mutations
    from headwater_server.identity.sign_ins import SignIns
    from headwater_server.net.admission import Account, Admission
    from headwater_server.net.connection_limits import ConnectionLimits
    from headwater_server.net.convex_system import SystemFunctions
    from headwater_server.net.keys import AdminKeys
    from headwater_server.observe.metrics import Metrics
    from headwater_server.reactive.core import ReactiveCore

logger = logging.getLogger("headwater.hub")

_HISTORY_LOG_S = 60.0
_SOCKETS_FACTOR = 2  # sockets that have not said who they are may be so many times the connections


def _at_end_of_turn(action: Callable[[], None]) -> object:
    return asyncio.get_running_loop().call_soon(action)


def _after(pause_s: float, action: Callable[[], None]) -> object:
    return asyncio.get_running_loop().call_later(pause_s, action)


class Hub:
    """Knows every connection; at most one for each session id.

    Args:
        core: Where sessions live.
        mutations: Where their mutations run.
        actions: Where their actions run.
        incarnation: Names this opening of the log.
        metrics: The daemon's.
        limits: Bounds.
        mono_s: Monotonic clock.
        history_ends: Called with a client's newest ts that is ahead of ours; says how to refuse it, if so.
            Any client can cause it, so the hub writes the log line, not too often.
        sign_ins: Where tokens are verified.
        keys: What opens the deployment.
        admission: Counts what clients ask for.
        json_bytes: Results kept as JSON for further clients of Convex that need the same.
        soon: Calls something at the end of this turn of the event loop.
        later: Calls something after so many seconds.

    Attributes:
        system: Answers what Convex's command line asks of the system; None: nothing does.
    """

    def __init__(
        self,
        core: ReactiveCore,
        mutations: Mutations,
        actions: Actions,
        incarnation: bytes,
        metrics: Metrics,
        limits: ConnectionLimits,
        mono_s: Callable[[], float],
        history_ends: Callable[[int], HeadwaterError | None],
        sign_ins: SignIns,
        keys: AdminKeys,
        admission: Admission,
        json_bytes: int = 16 << 20,
        soon: Callable[[Callable[[], None]], object] = _at_end_of_turn,
        later: Callable[[float, Callable[[], None]], object] = _after,
    ) -> None:
        self.core = core
        self.mutations = mutations
        self.actions = actions
        self.incarnation = incarnation
        self.metrics = metrics
        self.limits = limits
        self.mono_s = mono_s
        self.sign_ins = sign_ins
        self.keys = keys
        self.system: SystemFunctions | None = None
        self.admission = admission
        self._later = later
        keys.changed = self._review_keys
        self.own = our_own(limits.wire)
        self.convex = of_convex(limits.wire, JsonBodies(json_bytes))
        self.frames = SharedFrames(soon, Deflater(limits.deflate_from_bytes))
        self.inlet = Inlet(limits.inlet, lambda: mutations.is_full, mono_s, soon, later)
        self._history_ends = history_ends
        self._history_logged_s: float | None = None
        self._connections: dict[Connection, None] = {}
        self._sockets: dict[Connection, None] = {}
        self._by_session: dict[bytes, Connection] = {}
        self._blocked: dict[Connection, None] = {}
        self.draining = False

    @property
    def sockets(self) -> int:
        """How many sockets there are, with those that are closing."""
        return len(self._sockets)

    @property
    def is_full(self) -> bool:
        """Whether not even a socket can be taken: too many for each to be told so in the protocol."""
        return self.sockets >= _SOCKETS_FACTOR * self.limits.connections_max

    def accept(
        self, sink: Sink, dialect: Dialect | None = None, account: Account | None = None
    ) -> Connection | None:
        """Return the connection of a new socket, None if there are too many; it is cut off then.

        Args:
            sink: Its way out.
            dialect: What its client speaks; our own protocol unless it is said.
            account: Of its client's address, None: nothing is counted of it.
        """
        if self.is_full:
            self.metrics.sessions_refused.labels("overloaded").inc()
            sink.abort()
            return None
        connection = Connection(
            self,
            sink,
            dialect or self.own,
            Allowance(self.admission, account, self._later, self.limits.wire.heartbeat_ms / 1000),
        )
        self._connections[connection] = None
        self._sockets[connection] = None
        self.metrics.sessions.set(len(self._connections))
        return connection

    def refusal(self, last_ts: int) -> HeadwaterError | None:
        """Return why a client cannot be accepted now, None if it can."""
        if self.draining:
            return TransientError("the server is stopping; connect again in a moment")
        if len(self._connections) > self.limits.connections_max:
            return TransientError("the server has as many connections as it may", code="overloaded")
        if last_ts > self.core.published_ts:
            refusal = self._history_ends(last_ts)
            if refusal is not None:
                self._log_history_lost(last_ts)
            return refusal
        return None

    def _log_history_lost(self, last_ts: int) -> None:
        now_s = self.mono_s()
        if self._history_logged_s is None or now_s - self._history_logged_s >= _HISTORY_LOG_S:
            self._history_logged_s = now_s
            fields = {"client_ts": last_ts, "ts": self.core.published_ts}
            logger.error("history_lost", extra={"fields": fields})

    def take_over(self, connection: Connection) -> None:
        """Make a connection the one of its session; the one before is ended first."""
        before = self._by_session.get(connection.session_id)
        self._by_session[connection.session_id] = connection
        if before is not None:
            before.end(TransientError("a newer connection of this session has taken over"))

    def left(self, connection: Connection) -> None:
        """Forget a connection that has ended."""
        self._connections.pop(connection, None)
        self._blocked.pop(connection, None)
        if self._by_session.get(connection.session_id) is connection:
            del self._by_session[connection.session_id]
        self.metrics.sessions.set(len(self._connections))
        self.metrics.sessions_blocked.set(len(self._blocked))

    def _review_keys(self) -> None:
        for connection in list(self._connections):
            connection.review_key()

    def gone(self, connection: Connection) -> None:
        """Forget a socket that has ended."""
        self._sockets.pop(connection, None)

    def blocked(self, connection: Connection) -> None:
        """A client has too much unread; it gets no transitions until it reads."""
        if connection.session is not None:
            self.core.block(connection.session)
            self._blocked[connection] = None
            self.metrics.sessions_blocked.set(len(self._blocked))

    def look_at_blocked(self) -> None:
        """Go on with the clients that read again; called a few times a second."""
        now_s = self.mono_s()
        for connection in list(self._blocked):
            if connection.look_again(now_s):
                self._blocked.pop(connection, None)
                if connection.session is not None:
                    self.core.unblock(connection.session)
        self.metrics.sessions_blocked.set(len(self._blocked))

    def tick(self) -> None:
        """Heartbeats; called four times a heartbeat or more."""
        now_s = self.mono_s()
        for connection in list(self._connections):
            connection.tick(now_s)

    def refuse_new(self) -> None:
        """Accept no more clients, and nothing more from those that are connected."""
        self.draining = True

    def drain(self) -> None:
        """Tell every client to come back later and accept no more."""
        self.refuse_new()
        for connection in list(self._connections):
            connection.end(TransientError("the server is stopping; connect again in a moment"))

    def __len__(self) -> int:
        return len(self._connections)
