"""One client: its pure session, its sink, its place in the reactive core and its mutation queue."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, assert_never

from headwater_protocol.errors import HeadwaterError, ProtocolError, RequestError, TransientError
from headwater_protocol.failures import error_body
from headwater_protocol.limits import ServerLimits
from headwater_protocol.server_session import (
    ActionRequested,
    AuthenticateRequested,
    Connected,
    MutationRequested,
    PeerSilent,
    PongReceived,
    QuerySetModified,
    SendFrame,
    ServerEvent,
    ServerSession,
    close_code,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from headwater_server.functions.mutations import Decision, MutationCall, Mutations, SessionQueue
    from headwater_server.net.sinks import SharedFrames, Sink
    from headwater_server.observe.metrics import Metrics
    from headwater_server.reactive.core import ReactiveCore
    from headwater_server.reactive.sessions import Moved, Session


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Bounds of connections.

    Attributes:
        wire: What the protocol session enforces.
        connections_max: Connections at one time.
        send_buffer_bytes: Unsent bytes after which a client gets no transitions.
        stall_limit_s: Time without reading after which a client is closed.
    """

    wire: ServerLimits = field(default_factory=ServerLimits)
    connections_max: int = 20_000
    send_buffer_bytes: int = 1024 * 1024
    stall_limit_s: float = 60.0


class ConnectionHost(Protocol):
    """What a connection needs of the daemon; the hub offers it."""

    core: ReactiveCore
    mutations: Mutations
    metrics: Metrics
    limits: ConnectionLimits
    incarnation: bytes
    frames: SharedFrames
    mono_s: Callable[[], float]

    def refusal(self, last_ts: int) -> HeadwaterError | None:
        """Return why a client cannot be accepted now, None if it can."""

    def take_over(self, connection: Connection) -> None:
        """Make a connection the one of its session."""

    def blocked(self, connection: Connection) -> None:
        """A client has too much unread."""

    def left(self, connection: Connection) -> None:
        """Forget a connection that has ended."""


class Connection:
    """What the shells drive: they hand over frames and say when the socket has ended.

    Attributes:
        session: The core's view; None until the client's `Connect` is accepted and after the end.
        session_id: The client's name across connections, b"" before `Connect`.
        stalled_since_s: Since when the socket has taken nothing, monotonic; None while it does.
    """

    def __init__(self, hub: ConnectionHost, sink: Sink) -> None:
        self._hub = hub
        self._sink = sink
        self._traffic = hub.metrics.traffic
        self._wire = ServerSession(hub.limits.wire)
        self._queue: SessionQueue | None = None
        self._ended = False
        self._unsent_bytes = 0
        self.session: Session | None = None
        self.session_id = b""
        self.stalled_since_s: float | None = None

    @property
    def frame_limit_bytes(self) -> int:
        """Largest frame that may come next."""
        return self._wire.frame_limit_bytes

    # ------------------------------------------------------------------ from the client

    def receive(self, frame: bytes) -> None:
        """Handle one frame; a client that breaks the protocol is told and cut off."""
        if self._ended:
            return
        try:
            self._handle(self._wire.receive(frame))
        except ProtocolError as error:
            self.end(error)

    def refuse(self, message: str) -> None:
        """End a connection that sent something which is no frame of the protocol."""
        self.end(ProtocolError(message))

    def lost(self) -> None:
        """The socket has ended."""
        if not self._ended:
            self._ended = True
            self._leave()

    def _handle(self, events: Iterable[ServerEvent]) -> None:
        for event in events:
            if self._ended:
                return
            match event:
                case QuerySetModified(add, remove):
                    if self.session is not None:
                        self._hub.core.modify(self.session, add, remove)
                case MutationRequested(request, name, arguments):
                    self._mutate(request, name, arguments)
                case ActionRequested(request, name, _):
                    error = RequestError(f"there is no action {name!r}", code="unknown_function")
                    self._send(self._wire.action_answer(request, None, error_body(error)))
                case Connected(connect):
                    self._connect(connect.session, connect.last_ts)
                case AuthenticateRequested(_, token):
                    self._authenticate(token)
                case SendFrame(frame):
                    self._send(frame)
                case PongReceived():
                    pass
                case PeerSilent():
                    self.lost()
                    self._sink.abort()
                case _:
                    assert_never(event)

    def _connect(self, session_id: bytes, last_ts: int) -> None:
        hub = self._hub
        refusal = hub.refusal(last_ts)
        if refusal is not None:
            self.end(refusal)
            return
        self.session_id = session_id
        hub.take_over(self)
        self._queue = hub.mutations.attach(session_id, self)
        self._send(self._wire.welcome(hub.incarnation, hub.core.published_ts))
        self.session = hub.core.connect(self)

    def _mutate(self, request: int, name: str, arguments: bytes) -> None:
        if self._queue is None:
            return
        refusal = self._hub.mutations.request(self._queue, request, name, arguments, None, internal=False)
        if refusal is not None:
            self.end(refusal)

    def _authenticate(self, token: str | None) -> None:
        if token is None:
            waiting = self._wire.authenticated()
            if self.session is not None:
                self._hub.core.identify(self.session, None)
        else:
            frame, waiting = self._wire.authentication_refused("this deployment has no sign-in configured")
            self._send(frame)
        self._handle(waiting)

    # ------------------------------------------------------------------ to the client

    def receive_decision(self, call: MutationCall, decision: Decision) -> None:
        """A call was decided without a commit of its own at this moment."""
        if self.session is not None:
            self._hub.core.answer(self.session, (call.number, decision), decision.ts)

    def deliver(self, answers: Iterable[tuple[int, Decision]], moved: Moved | None) -> None:
        """Send answers, then the transition; called by the core."""
        if self._ended:
            return
        messages = [
            self._wire.mutation_answer(
                number, decision.ts, decision.value, decision.error, committed=decision.committed
            )
            for number, decision in answers
            if self._wire.awaits(number)
        ]
        if moved is not None:
            self._traffic.transitions += 1
            messages.append(self._wire.transition(moved.ts, moved.changes, self._hub.frames.transitions))
        self._send(*messages)
        unsent = self._sink.unsent_bytes()
        if unsent > self._hub.limits.send_buffer_bytes and self.session is not None:
            self._unsent_bytes = unsent
            self.stalled_since_s = self._hub.mono_s()
            self._hub.blocked(self)

    def look_again(self, now_s: float) -> bool:
        """See whether a blocked client reads again.

        Returns:
            Whether it can be sent to; a client that took nothing for too long is ended.
        """
        unsent = self._sink.unsent_bytes()
        if unsent <= self._hub.limits.send_buffer_bytes // 2:
            self.stalled_since_s = None
            return True
        if unsent < self._unsent_bytes or self.stalled_since_s is None:
            self._unsent_bytes, self.stalled_since_s = unsent, now_s
        elif now_s - self.stalled_since_s > self._hub.limits.stall_limit_s:
            self.end(TransientError("the client did not read what it was sent", code="overloaded"))
            self._sink.abort()
        return False

    def tick(self, now_s: float) -> None:
        """Send what the heartbeat asks for."""
        if not self._ended:
            self._handle(self._wire.tick(now_s))

    def end(self, error: HeadwaterError) -> None:
        """Tell the client why and close; nothing is handled or sent after it."""
        if self._ended:
            return
        self._hub.metrics.sessions_refused.labels(error.code).inc()
        self._send(self._wire.fatal(error))
        self._ended = True
        self._sink.close(close_code(error), error.message)
        self._leave()

    def _send(self, *messages: bytes) -> None:
        for message in messages:
            self._traffic.bytes += len(message)
        self._sink.send(messages)

    def _leave(self) -> None:
        session, self.session = self.session, None
        queue, self._queue = self._queue, None
        if session is not None:
            self._hub.core.disconnect(session)
        if queue is not None:
            self._hub.mutations.detach(queue, self)
        self._hub.left(self)
