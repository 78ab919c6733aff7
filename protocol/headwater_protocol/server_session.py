"""One connection seen from the server: frames in, events out; what is sent back is made and checked here.

Pure: no socket, no clock. The shell hands over each frame, handles the events in order and
each before anything else happens to the connection, and sends the frames that the methods
return in the order in which it got them.

    fresh ──Connect──► greeting ──welcome()──► open ──fatal()──► closed
                          │                      └─ Authenticate: later messages wait for the verdict
                          └─ any message: protocol error

A `ProtocolError` from `receive` or from an iterator of events ends the connection: nothing
but `fatal` is possible any more. Send `fatal(error)`, close with `close_code(error)`. A `LocalProtocolError` is a fault of the
server's own: it would have broken a rule that clients rely on.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, Any, assert_never

from headwater_protocol.codec import (
    decode_client_message,
    encode_change_body,
    encode_message,
    encode_version,
    join_transition,
)
from headwater_protocol.errors import HeadwaterError, LocalProtocolError, ProtocolError
from headwater_protocol.failures import error_body
from headwater_protocol.heartbeat import Beat, Heartbeat
from headwater_protocol.limits import (
    CONNECT_FRAME_BYTES,
    QUERIES_MAX,
    REQUESTS_IN_FLIGHT_MAX,
    SESSION_BYTES,
    ServerLimits,
)
from headwater_protocol.messages import (
    Action,
    ActionAnswer,
    ActionCredit,
    ActionPiece,
    Authenticate,
    AuthError,
    CancelAction,
    ClientMessage,
    Connect,
    ErrorBody,
    FatalError,
    ModifyQuerySet,
    Mutation,
    MutationAnswer,
    Ping,
    Pong,
    Removed,
    Version,
    Welcome,
)
from headwater_protocol.server_events import (
    ActionCancelled,
    ActionCredited,
    ActionRequested,
    AuthenticateRequested,
    Connected,
    MutationRequested,
    PeerSilent,
    PongReceived,
    QuerySetModified,
    SendFrame,
    ServerEvent,
)
from headwater_protocol.versions import negotiate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_REMOVED_BODY = encode_change_body(Removed())
_CLOSE_CODE = 1002  # close code of an error whose line in the table names none


class Position:
    """Where a client stands. Never changed: clients that were moved there together share one.

    Attributes:
        version: Where the last transition left it.
        encoded: That, encoded.
        query_set: Number of the last modification that the next transition will reflect.
        identity: Number of the last authentication that was accepted by then.
    """

    __slots__ = ("encoded", "identity", "query_set", "version")

    def __init__(self, version: Version, encoded: bytes, query_set: int, identity: int) -> None:
        self.version = version
        self.encoded = encoded
        self.query_set = query_set
        self.identity = identity

    @property
    def content(self) -> tuple[bytes, int, int]:
        """What makes two of them equal."""
        return self.encoded, self.query_set, self.identity


SameTransitions = dict[object, tuple[Any, bytes]]
"""For one ts and certain changes: from where it starts, where it ends and the encoded transition."""

_START = Position(Version(0, 0, 0), encode_version(Version(0, 0, 0)), 0, 0)


class _State(Enum):
    FRESH = "fresh"
    GREETING = "greeting"
    OPEN = "open"
    BROKEN = "broken"  # the client broke a rule, and has not been told yet
    CLOSED = "closed"


class ServerSession:
    """State of one connection.

    Attributes:
        frame_limit_bytes: Largest frame that may come next; a shell that reads a stream
            checks it before it buffers one.
    """

    def __init__(self, limits: ServerLimits) -> None:
        self._limits = limits
        self._state = _State.FRESH
        self._heartbeat = Heartbeat(limits.heartbeat_ms / 1000)
        self._pings = 0
        self.frame_limit_bytes = CONNECT_FRAME_BYTES
        self._protocol_version = 0
        self._welcome_ts = 0
        self._position = _START
        self._attempts = 0  # authentications asked for
        self._verdict_pending = False  # set by an Authenticate, cleared by its verdict
        self._held: deque[tuple[ClientMessage, int]] = deque()
        self._held_bytes = 0
        self._queries: set[int] = set()
        self._last_request = -1
        self._mutations: set[int] = set()  # requests without an answer
        self._actions: dict[
            int, int
        ] = {}  # without an answer, with the bytes of pieces that are on their way

    @property
    def version(self) -> Version:
        """Where the last transition left the client."""
        return self._position.version

    @property
    def in_flight(self) -> int:
        """How many requests have no answer."""
        return len(self._mutations) + len(self._actions)

    @property
    def is_open(self) -> bool:
        """Whether `welcome` was sent and nothing has ended the connection."""
        return self._state is _State.OPEN

    # -------------------------------------------------------------------------------- from the client

    def receive(self, frame: bytes, *, stopping: bool = False) -> list[ServerEvent]:
        """Take one frame apart.

        Args:
            frame: A whole message.
            stopping: The server begins nothing more: only heartbeats count. The client sends the rest
                again on its next connection.

        Returns:
            What the server has to do; empty for a message that waits for a verdict.

        Raises:
            ProtocolError: The client broke the protocol; end the connection.
        """
        if self._state in (_State.BROKEN, _State.CLOSED):
            raise LocalProtocolError("a frame was handed to a connection that has ended")
        try:
            return self._receive(frame, stopping)
        except ProtocolError:
            self._state = _State.BROKEN
            raise

    def _receive(self, frame: bytes, stopping: bool) -> list[ServerEvent]:
        if len(frame) > self.frame_limit_bytes:
            raise ProtocolError(
                f"a message of {len(frame)} bytes is larger than the limit of {self.frame_limit_bytes}",
                code="frame_too_large",
            )
        message = decode_client_message(frame)
        self._heartbeat.heard = True
        if self._state is not _State.OPEN:
            return [self._connect(message)]
        if isinstance(message, Ping):
            return [SendFrame(self._out(encode_message(Pong(message.nonce))))]
        if isinstance(message, Pong):
            return [PongReceived(message.nonce)]
        if stopping and not isinstance(message, ActionCredit | CancelAction):
            return []
        if self._verdict_pending:
            self._hold(message, len(frame))
            return []
        return [self._accept(message)]

    def _connect(self, message: ClientMessage) -> Connected:
        name = type(message).__name__
        if self._state is _State.GREETING:
            raise ProtocolError(f"{name}: expected nothing before Welcome")
        if not isinstance(message, Connect):
            raise ProtocolError(f"{name}: expected Connect as the first message")
        version = negotiate(message.versions)
        if len(message.session) != SESSION_BYTES:
            raise ProtocolError(
                f"Connect.session: expected {SESSION_BYTES} bytes, got {len(message.session)}"
            )
        self._state = _State.GREETING
        self._protocol_version = version
        return Connected(message, version)

    def _hold(self, message: ClientMessage, size_bytes: int) -> None:
        limits = self._limits
        held_bytes = self._held_bytes + size_bytes
        if len(self._held) >= limits.held_messages_max or held_bytes > limits.held_bytes_max:
            raise ProtocolError(
                f"more than {limits.held_messages_max} messages or {limits.held_bytes_max} bytes"
                " wait behind an Authenticate",
                code="overloaded",
            )
        self._held.append((message, size_bytes))
        self._held_bytes = held_bytes

    def _accept(self, message: ClientMessage) -> ServerEvent:
        match message:
            case Mutation():
                return self._mutation(message)
            case Action(request, name, arguments, window, traceparent):
                self._begin_request(request, "Action")
                self._actions[request] = 0
                window = min(window, self._limits.stream_window_bytes)
                return ActionRequested(request, name, arguments, window, traceparent)
            case ActionCredit(request, size):
                self._credit(request, size)
                return ActionCredited(request, size)
            case CancelAction(request):
                self._require_begun(request, "CancelAction")
                return ActionCancelled(request)
            case ModifyQuerySet():
                return self._modify(message)
            case Authenticate(base, token):
                if base != self._attempts:
                    raise ProtocolError(f"Authenticate.base: expected {self._attempts}, got {base}")
                self._attempts += 1
                self._verdict_pending = True
                return AuthenticateRequested(base, token)
            case Connect():
                raise ProtocolError("Connect: expected only once on a connection")
            case Ping() | Pong():
                raise LocalProtocolError("heartbeats are never held")
            case _:
                assert_never(message)

    def _mutation(self, message: Mutation) -> MutationRequested:
        request, below = message.request, message.forget_below
        if below > request:
            raise ProtocolError(f"Mutation.forget_below: expected at most {request}, got {below}")
        self._begin_request(request, "Mutation")
        self._mutations.add(request)
        # What was first sent before this connection was sent when the session had seen less than
        # this Welcome, or nothing has been committed since.
        sent_ts = message.sent_ts if message.sent_ts < self._welcome_ts else None
        return MutationRequested(
            request, message.name, message.arguments, below, sent_ts, message.traceparent
        )

    def _begin_request(self, request: int, kind: str) -> None:
        if request <= self._last_request:
            raise ProtocolError(f"{kind}.request: expected more than {self._last_request}, got {request}")
        if self.in_flight >= REQUESTS_IN_FLIGHT_MAX:
            raise ProtocolError(f"{kind}: more than {REQUESTS_IN_FLIGHT_MAX} requests without an answer")
        self._last_request = request

    def _credit(self, request: int, size: int) -> None:
        """Count what the client has taken; never more than it was sent, or nothing would bound what comes."""
        self._require_begun(request, "ActionCredit")
        on_their_way = self._actions.get(request)
        if on_their_way is None:  # it is over
            return
        if size > on_their_way:
            raise ProtocolError(f"ActionCredit.size: expected at most {on_their_way}, got {size}")
        self._actions[request] = on_their_way - size

    def _require_begun(self, request: int, kind: str) -> None:
        if request > self._last_request:
            raise ProtocolError(f"{kind}.request: {request} was never sent")

    def _modify(self, message: ModifyQuerySet) -> QuerySetModified:
        position = self._position
        if message.base != position.query_set:
            raise ProtocolError(f"ModifyQuerySet.base: expected {position.query_set}, got {message.base}")
        if message.new <= message.base:
            raise ProtocolError(f"ModifyQuerySet.new: expected more than {message.base}, got {message.new}")
        removed = set(message.remove)
        unknown = removed - self._queries
        if unknown or len(removed) != len(message.remove):
            which = f"{min(unknown)}, which is not subscribed" if unknown else "the same query twice"
            raise ProtocolError(f"ModifyQuerySet.remove: expected subscribed queries, got {which}")
        numbers = [query.query for query in message.add]
        added = set(numbers)
        twice = added & self._queries
        if twice or len(added) != len(numbers):
            which = f"query {min(twice)} is already subscribed" if twice else "the same query twice"
            raise ProtocolError(f"ModifyQuerySet.add: {which}")
        if 0 in added:
            raise ProtocolError("ModifyQuerySet.add: expected numbers above 0, got query 0")
        if len(self._queries) - len(removed) + len(added) > QUERIES_MAX:
            raise ProtocolError(f"ModifyQuerySet.add: more than {QUERIES_MAX} queries in one session")
        self._queries |= added
        self._queries -= removed
        self._position = Position(position.version, position.encoded, message.new, position.identity)
        return QuerySetModified(message.add, message.remove)

    # ---------------------------------------------------------------------------------- to the client

    def welcome(self, incarnation: bytes, ts: int) -> bytes:
        """Accept the connection; from here on frames may be as large as the limits say."""
        if self._state is not _State.GREETING:
            raise LocalProtocolError("welcome answers a Connect, once")
        self._state = _State.OPEN
        self._welcome_ts = ts
        self.frame_limit_bytes = self._limits.frame_limit_bytes
        limits = self._limits
        return self._out(
            encode_message(
                Welcome(
                    self._protocol_version,
                    incarnation,
                    ts,
                    limits.frame_limit_bytes,
                    limits.heartbeat_ms,
                    limits.stream_window_bytes,
                )
            )
        )

    def transition(
        self, ts: int, changes: Sequence[tuple[int, bytes]], same: SameTransitions | None = None
    ) -> bytes:
        """Move the client to `ts`: everything handed out as an event so far is reflected in it.

        Args:
            ts: Commit ts that all its queries hold at.
            changes: `(query, encoded change body)` for each query whose result differs from
                what this connection was sent last.
            same: Filled with what was made of this ts and these changes, to be handed in again for other
                connections that get them and number the queries alike: those that stand at the same place
                get the same bytes, made once.

        Raises:
            LocalProtocolError: It would go back, or names a query that is not subscribed.
        """
        if self._state is not _State.OPEN:  # each of the next lines costs with each update of each client
            self._require_open()
        made = same.get(self._position) if same is not None else None
        if made is None:
            made = self._transition(ts, changes, {} if same is None else same)
        self._position, frame = made
        self._heartbeat.spoke = True
        return frame

    def _transition(
        self, ts: int, changes: Sequence[tuple[int, bytes]], same: SameTransitions
    ) -> tuple[Position, bytes]:
        for query, body in changes:
            if query not in self._queries and body != _REMOVED_BODY:
                raise LocalProtocolError(f"a transition for query {query}, which is not subscribed")
        start = self._position
        made = same.get(start.content)
        if made is None:
            if ts < start.version.ts:
                raise LocalProtocolError(f"a transition from {start.version.ts} back to {ts}")
            version = Version(start.query_set, start.identity, ts)
            end = Position(version, encode_version(version), start.query_set, start.identity)
            made = same[start.content] = (end, join_transition(start.encoded, end.encoded, changes))
        same[start] = made
        return made

    def mutation_answer(
        self,
        request: int,
        ts: int,
        value: bytes | None,
        error: ErrorBody | None = None,
        *,
        committed: bool = False,
    ) -> bytes:
        """Answer a mutation; a transition to `ts` or later must follow.

        Args:
            request: Number of the mutation.
            ts: Commit ts, or the snapshot that a read-only success or a failure saw.
            value: Encoded result, None when it failed.
            error: What failed, None on success.
            committed: It was committed now, at `ts`; then no transition may have reached `ts`
                before. (A stored outcome or what a snapshot saw may well be older.)

        Raises:
            LocalProtocolError: Not asked for, already answered, or too late.
        """
        self._require_open()
        if (value is None) == (error is None):
            raise LocalProtocolError("an answer has either a value or an error")
        if committed and ts <= self.version.ts:
            raise LocalProtocolError(
                f"the answer of ts {ts} comes behind the transition to {self.version.ts}"
            )
        if request not in self._mutations:
            raise LocalProtocolError(f"mutation {request} does not wait for an answer")
        self._mutations.remove(request)
        return self._out(encode_message(MutationAnswer(request, ts, value, error)))

    def action_answer(self, request: int, value: bytes | None, error: ErrorBody | None = None) -> bytes:
        """Answer an action.

        Raises:
            LocalProtocolError: Not asked for or already answered.
        """
        self._require_open()
        if (value is None) == (error is None):
            raise LocalProtocolError("an answer has either a value or an error")
        if request not in self._actions:
            raise LocalProtocolError(f"action {request} does not wait for an answer")
        del self._actions[request]
        return self._out(encode_message(ActionAnswer(request, value, error)))

    def action_piece(self, request: int, content: bytes) -> bytes:
        """Send a piece of an action that streams.

        Raises:
            LocalProtocolError: The action is not asked for, or answered.
        """
        self._require_open()
        if request not in self._actions:
            raise LocalProtocolError(f"action {request} does not wait for a piece")
        self._actions[request] += len(content)
        return self._out(encode_message(ActionPiece(request, content)))

    def awaits(self, request: int) -> bool:
        """Tell whether this connection still waits for the answer of a request."""
        return request in self._mutations or request in self._actions

    def authenticated(self) -> Iterator[ServerEvent]:
        """Accept the pending authentication: the next transition announces it.

        Returns:
            The messages that waited for the verdict. Change the identity first, then take
            them one by one, each handled before the next is asked for; they end where
            another authentication begins.
        """
        self._decide()
        position = self._position
        self._position = Position(position.version, position.encoded, position.query_set, self._attempts)
        return self._release()

    def authentication_refused(self, message: str) -> tuple[bytes, Iterator[ServerEvent]]:
        """Refuse the pending authentication: the identity stays what it was.

        Returns:
            The frame that says so, and the messages that waited; see `authenticated`.
        """
        self._decide()
        return self._out(encode_message(AuthError(self._attempts - 1, message))), self._release()

    def identity_lost(self, message: str) -> bytes:
        """Take back the last authentication that was accepted: its token does not hold any more.

        Returns:
            The frame that says so; the next transition shows what nobody sees.
        """
        self._require_open()
        if not self._position.identity:
            raise LocalProtocolError("nobody was authenticated")
        return self._out(encode_message(AuthError(self._position.identity - 1, message)))

    def _decide(self) -> None:
        self._require_open()
        if not self._verdict_pending:
            raise LocalProtocolError("a verdict without an Authenticate")
        self._verdict_pending = False

    def _release(self) -> Iterator[ServerEvent]:
        while self._held and not self._verdict_pending and self._state is _State.OPEN:
            message, size_bytes = self._held.popleft()
            self._held_bytes -= size_bytes
            try:
                event = self._accept(message)
            except ProtocolError:
                self._state = _State.BROKEN
                raise
            yield event

    def ping(self) -> bytes:
        """Ask the client to say something."""
        self._require_open()
        self._pings += 1
        return self._out(encode_message(Ping(self._pings)))

    def tick(self, now_mono: float) -> list[ServerEvent]:
        """Return what is due at a monotonic time; call it at least four times a heartbeat."""
        match self._heartbeat.tick(now_mono):
            case Beat.LOST:
                return [PeerSilent()]
            case Beat.PING if self._state is _State.OPEN:
                return [SendFrame(self.ping())]
        return []

    def fatal(self, error: HeadwaterError) -> bytes:
        """Return the last message of the connection; close it with `close_code(error)` then."""
        if self._state is _State.CLOSED:
            raise LocalProtocolError("the connection has ended")
        self._state = _State.CLOSED
        self._held.clear()
        return encode_message(FatalError(error_body(error)))

    def closing(self, error: HeadwaterError) -> tuple[int, str]:
        """Return the close code and reason for an error that ends the connection."""
        return close_code(error), error.message

    def _require_open(self) -> None:
        if self._state is not _State.OPEN:
            raise LocalProtocolError(f"the connection is {self._state.value}, not open")

    def _out(self, frame: bytes) -> bytes:
        self._heartbeat.spoke = True
        return frame


def close_code(error: HeadwaterError) -> int:
    """Return the WebSocket close code for an error that ends a connection."""
    return error.entry.close_code or _CLOSE_CODE
