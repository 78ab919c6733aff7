"""One connection of a Convex client seen from the server: JSON text in, the events of our own protocol out.

Pure: no socket, no clock. What `ServerSession` is for clients of our protocol, with the same rules where both have one:
each frame is handed over, the events are handled in order, and what the methods return is sent in that order.

    fresh ──Connect──► greeting ──welcome()──► open ──fatal()──► closed
                                                 └─ Authenticate: later messages wait for the verdict

Other than ours, these clients say nothing of what they hold and take no deltas; they send on without waiting to be
accepted; they answer no pings; they take every `FatalError` for the end of the application, so that it is kept for
faults of the client, and come back by themselves from anything else.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, Any, assert_never
from uuid import UUID

import orjson
from headwater_protocol.codec import encode_change_body
from headwater_protocol.errors import LocalProtocolError, ProtocolError, RequestError
from headwater_protocol.heartbeat import Beat, Heartbeat
from headwater_protocol.limits import CONNECT_FRAME_BYTES, QUERIES_MAX, ServerLimits
from headwater_protocol.messages import AddQuery, ErrorBody, Failed, Removed
from headwater_protocol.messages import Connect as Introduction
from headwater_protocol.server_events import (
    ActionRequested,
    AuthenticateRequested,
    Connected,
    KeyOffered,
    MutationRequested,
    QuerySetModified,
    SendFrame,
    ServerEvent,
)

from headwater_server.convex.failures import close_of, told
from headwater_server.convex.messages import (
    PING,
    REMOVED,
    START,
    Action,
    Add,
    Authenticate,
    ClientMessage,
    Connect,
    Event,
    ModifyQuerySet,
    Mutation,
    Place,
    canonical_name,
    decode_message,
    journal_of,
    modification_text,
    only_argument,
    response_text,
    time_of,
    time_text,
    transition_text,
)
from headwater_server.convex.values import encoded_value, json_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from headwater_protocol.errors import HeadwaterError

    from headwater_server.convex.bodies import JsonBodies

PING_S = 10.0
"""Without another message a ping goes out so often: Python's client gives up after 30 s, JavaScript's after 60."""

RESENDING_S = 10.0
"""For so long after `Connect` a mutation may be one that was sent before: all of them come behind it, at once. Nothing
says so; one that is taken for it is refused only if its client has been away for longer than outcomes are kept."""

ENVELOPE_BYTES = 1 << 20
"""What a message may have beside arguments that are as large as may be."""

_FATAL = frozenset({"protocol_error", "frame_too_large"})


class _State(Enum):
    FRESH = "fresh"
    GREETING = "greeting"
    OPEN = "open"
    BROKEN = "broken"  # the client broke a rule, and has not been told yet
    CLOSED = "closed"


class ConvexSession:
    """State of one connection.

    Args:
        limits: Bounds.
        bodies: Makes JSON of results, once for all connections.

    Attributes:
        frame_limit_bytes: Largest message that may come next.
    """

    def __init__(self, limits: ServerLimits, bodies: JsonBodies) -> None:
        self._limits = limits
        self._bodies = bodies
        self._state = _State.FRESH
        self._heartbeat = Heartbeat(2 * PING_S)  # which asks for a ping after half of it
        self.frame_limit_bytes = CONNECT_FRAME_BYTES
        self._place = START
        self._query_set = 0  # number of the last modification that the next transition will reflect
        self._identity = 0  # number of the last authentication that was accepted by then
        self._seen_ts: int | None = None  # what the client has seen before, while it may be sending again
        self._seen_until_mono: float | None = None
        self._attempts = 0
        self._verdict_pending = False
        self._held: deque[tuple[bytes, int | None]] = deque()  # as text: taken apart they may be much larger
        self._held_bytes = 0
        self._queries: set[int] = set()
        self._misfits: set[int] = set()  # those of them whose arguments are none: nobody else knows of these
        self._untold: dict[int, bytes] = {}  # what the next transition says of them, encoded
        self._last_request = -1
        self._mutations: set[int] = set()
        self._actions: set[int] = set()

    @property
    def in_flight(self) -> int:
        """How many requests have no answer."""
        return len(self._mutations) + len(self._actions)

    # -------------------------------------------------------------------------------- from the client

    def receive(self, frame: bytes, *, stopping: bool = False) -> list[ServerEvent]:
        """Take one message apart; see `ServerSession.receive`."""
        if self._state in (_State.BROKEN, _State.CLOSED):
            raise LocalProtocolError("a message was handed to a connection that has ended")
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
        message = decode_message(frame)
        if self._state is not _State.OPEN:
            return [self._connect(message)]
        if stopping or isinstance(message, Event):
            return []
        if self._verdict_pending:
            self._hold(frame)
            return []
        return self._accept(message, self._seen_ts)

    def _connect(self, message: ClientMessage) -> Connected:
        if self._state is _State.GREETING or not isinstance(message, Connect):
            raise ProtocolError(f"{type(message).__name__}: expected Connect as the first message")
        try:
            session = UUID(message.session_id).bytes
        except ValueError:
            raise ProtocolError("Connect.sessionId: expected a UUID") from None
        if message.max_observed is not None:
            self._seen_ts = time_of(message.max_observed)
        self._state = _State.GREETING
        return Connected(Introduction((), session, self._seen_ts or 0, None, "convex"), 0)

    def _hold(self, frame: bytes) -> None:
        limits = self._limits
        if (
            len(self._held) >= limits.held_messages_max
            or self._held_bytes + len(frame) > limits.held_bytes_max + ENVELOPE_BYTES
        ):
            raise ProtocolError(
                f"more than {limits.held_messages_max} messages or {limits.held_bytes_max} bytes"
                " wait behind an Authenticate",
                code="overloaded",
            )
        self._held.append((frame, self._seen_ts))
        self._held_bytes += len(frame)

    def _accept(self, message: ClientMessage, seen_ts: int | None) -> list[ServerEvent]:
        match message:
            case Mutation(request_id=request):
                self._begin_request(request)
                self._mutations.add(request)
                try:
                    arguments = encoded_value(only_argument(message.args))
                except RequestError as wrong:
                    return [SendFrame(self.mutation_answer(request, 0, None, _body(wrong)))]
                name = canonical_name(message.path, message.component)
                return [MutationRequested(request, name, arguments, 0, seen_ts)]
            case Action(request_id=request):
                self._begin_request(request)
                self._actions.add(request)
                try:
                    arguments = encoded_value(only_argument(message.args))
                except RequestError as wrong:
                    return [SendFrame(self.action_answer(request, None, _body(wrong)))]
                return [ActionRequested(request, canonical_name(message.path, message.component), arguments)]
            case ModifyQuerySet():
                return [self._modify(message)]
            case Authenticate():
                return [self._authenticate(message)]
            case Connect():
                raise ProtocolError("Connect: expected only once on a connection")
            case Event():
                return []
            case _:
                assert_never(message)

    def _begin_request(self, request: int) -> None:
        if request <= self._last_request:
            raise ProtocolError(f"requestId: expected more than {self._last_request}, got {request}")
        self._last_request = request

    def _authenticate(self, message: Authenticate) -> ServerEvent:
        if message.base_version != self._attempts:
            raise ProtocolError(
                f"Authenticate.baseVersion: expected {self._attempts}, got {message.base_version}"
            )
        self._attempts += 1
        self._verdict_pending = True
        token = message.value or ""
        if message.token_type == "Admin":
            return KeyOffered(message.base_version, token, message.impersonating)
        return AuthenticateRequested(message.base_version, token if message.token_type == "User" else None)

    def _modify(self, message: ModifyQuerySet) -> QuerySetModified:
        if message.base_version != self._query_set:
            raise ProtocolError(
                f"ModifyQuerySet.baseVersion: expected {self._query_set}, got {message.base_version}"
            )
        if message.new_version <= message.base_version:
            raise ProtocolError(f"ModifyQuerySet.newVersion: expected more than {message.base_version}")
        queries, add, remove = self._queries.copy(), dict[int, Add](), list[int]()
        for change in message.modifications:  # in their order: one that is added may be removed again
            number = change.query_id
            if isinstance(change, Add):
                if number in queries:
                    raise ProtocolError(f"ModifyQuerySet: query {number} is subscribed already")
                queries.add(number)
                add[number] = change
            elif number not in queries:
                raise ProtocolError(f"ModifyQuerySet: query {number} is not subscribed")
            else:
                queries.remove(number)
                if add.pop(number, None) is None and not self._forget(number):
                    remove.append(number)
        if len(queries) > QUERIES_MAX:
            raise ProtocolError(f"ModifyQuerySet: more than {QUERIES_MAX} queries in one session")
        self._queries = queries
        self._query_set = message.new_version
        return QuerySetModified(tuple(filter(None, map(self._added, add.values()))), tuple(remove))

    def _added(self, query: Add) -> AddQuery | None:
        """Return what is asked of the core; None: its arguments are none, which the next transition says."""
        number = query.query_id
        self._untold.pop(number, None)
        try:
            arguments = encoded_value(only_argument(query.args))
        except RequestError as wrong:
            self._misfits.add(number)
            self._untold[number] = encode_change_body(Failed(_body(wrong)))
            return None
        name = canonical_name(query.path, query.component)
        return AddQuery(number, name, arguments, journal_of(query.journal))

    def _forget(self, number: int) -> bool:
        """Forget a query whose arguments were none; tell whether it was one."""
        if number not in self._misfits:
            return False
        self._misfits.remove(number)
        if self._untold.pop(number, None) is None:  # else its client has not heard of it
            self._untold[number] = encode_change_body(Removed())
        return True

    # ---------------------------------------------------------------------------------- to the client

    def welcome(self, incarnation: bytes, ts: int) -> None:
        """Accept the connection; its client is not told, and has sent on already."""
        if self._state is not _State.GREETING:
            raise LocalProtocolError("welcome answers a Connect, once")
        self._state = _State.OPEN
        self.frame_limit_bytes = self._limits.frame_limit_bytes + ENVELOPE_BYTES

    def transition(
        self, ts: int, changes: Sequence[tuple[int, bytes]], same: dict[Any, Any] | None = None
    ) -> bytes:
        """Move the client to `ts`; see `ServerSession.transition`."""
        self._require_open()
        if self._untold:
            changes, same = [*changes, *self._untold.items()], None
            self._untold.clear()
        start, key = self._place, (self._place, self._query_set, self._identity, "convex")
        made = None if same is None else same.get(key)
        if made is None:
            made = self._transition(ts, changes)
            if same is not None:
                same[key] = made
        self._place, text = made
        self._heartbeat.spoke = True
        assert start.ts <= self._place.ts
        return text

    def _transition(self, ts: int, changes: Sequence[tuple[int, bytes]]) -> tuple[Place, bytes]:
        start = self._place
        if ts < start.ts:
            raise LocalProtocolError(f"a transition from {start.ts} back to {ts}")
        parts = []
        for query, body in changes:
            text = self._bodies.text(body)
            if query not in self._queries and text != REMOVED:
                raise LocalProtocolError(f"a transition for query {query}, which is not subscribed")
            parts.append(modification_text(query, text))
        end = Place(self._query_set, self._identity, ts)
        return end, transition_text(start, end, parts)

    def mutation_answer(
        self,
        request: int,
        ts: int,
        value: bytes | None,
        error: ErrorBody | None = None,
        *,
        committed: bool = False,
    ) -> bytes:
        """Answer a mutation; a transition to `ts` or later must follow. See `ServerSession.mutation_answer`."""
        self._require_open()
        if committed and ts <= self._place.ts:
            raise LocalProtocolError(f"the answer of ts {ts} comes behind the transition to {self._place.ts}")
        if request not in self._mutations:
            raise LocalProtocolError(f"mutation {request} does not wait for an answer")
        self._mutations.remove(request)
        return self._response("MutationResponse", request, ts, value, error)

    def action_answer(self, request: int, value: bytes | None, error: ErrorBody | None = None) -> bytes:
        """Answer an action."""
        self._require_open()
        if request not in self._actions:
            raise LocalProtocolError(f"action {request} does not wait for an answer")
        self._actions.remove(request)
        return self._response("ActionResponse", request, None, value, error)

    def action_piece(self, request: int, content: bytes) -> bytes:
        """These clients ask for no pieces."""
        raise LocalProtocolError("a piece for a client that takes none")

    def _response(
        self, kind: str, request: int, ts: int | None, value: bytes | None, error: ErrorBody | None
    ) -> bytes:
        if (value is None) == (error is None):
            raise LocalProtocolError("an answer has either a value or an error")
        self._heartbeat.spoke = True
        fields: dict[str, Any] = {"type": kind, "requestId": request, "success": True, "logLines": []}
        if value is not None:
            try:
                result = json_text(value)
            except RequestError as misfit:
                error = _body(misfit)
            else:
                if ts is not None:
                    fields["ts"] = time_text(ts)
                return response_text(fields, result=result)
        assert error is not None
        failure = told(error)
        fields["success"] = False
        if ts is not None:
            fields["ts"] = None
        return response_text(fields, result=orjson.dumps(failure.message), data=failure.data)

    def awaits(self, request: int) -> bool:
        """Tell whether this connection still waits for the answer of a request."""
        return request in self._mutations or request in self._actions

    def authenticated(self) -> Iterator[ServerEvent]:
        """Accept the pending authentication; see `ServerSession.authenticated`."""
        self._decide()
        self._identity = self._attempts
        return self._release()

    def authentication_refused(self, message: str) -> tuple[bytes, Iterator[ServerEvent]]:
        """Refuse the pending authentication; the connection must end behind it."""
        self._decide()
        return self._auth_error(message, self._attempts - 1, attempted=True), iter(())

    def identity_lost(self, message: str) -> bytes:
        """Take back the last authentication that was accepted; the connection must end behind it."""
        self._require_open()
        return self._auth_error(message, self._identity, attempted=False)

    def _auth_error(self, message: str, base: int, *, attempted: bool) -> bytes:
        self._heartbeat.spoke = True
        fields = {"type": "AuthError", "error": message, "baseVersion": base}
        return orjson.dumps(fields | {"authUpdateAttempted": attempted})

    def _decide(self) -> None:
        self._require_open()
        if not self._verdict_pending:
            raise LocalProtocolError("a verdict without an Authenticate")
        self._verdict_pending = False

    def _release(self) -> Iterator[ServerEvent]:
        while self._held and not self._verdict_pending and self._state is _State.OPEN:
            frame, seen_ts = self._held.popleft()
            self._held_bytes -= len(frame)
            try:
                events = self._accept(decode_message(frame), seen_ts)
            except ProtocolError:
                self._state = _State.BROKEN
                raise
            yield from events

    def tick(self, now_mono: float) -> list[ServerEvent]:
        """Return what is due at a monotonic time. That a client is silent tells nothing: the shell sends it WebSocket's pings."""
        self._heartbeat.heard = True
        if self._seen_until_mono is None:
            self._seen_until_mono = now_mono + RESENDING_S
        elif now_mono >= self._seen_until_mono:
            self._seen_ts = None
        if self._heartbeat.tick(now_mono) is Beat.PING and self._state is _State.OPEN:
            self._heartbeat.spoke = True
            return [SendFrame(PING)]
        return []

    def fatal(self, error: HeadwaterError) -> bytes | None:
        """End the connection; return its last message, None if the close code says enough."""
        if self._state is _State.CLOSED:
            raise LocalProtocolError("the connection has ended")
        self._state = _State.CLOSED
        self._held.clear()
        if error.code not in _FATAL:
            return None
        return orjson.dumps({"type": "FatalError", "error": error.message})

    def closing(self, error: HeadwaterError) -> tuple[int, str]:
        """Return the close code and reason for an error that ends the connection."""
        return close_of(error)

    def _require_open(self) -> None:
        if self._state is not _State.OPEN:
            raise LocalProtocolError(f"the connection is {self._state.value}, not open")


def _body(error: HeadwaterError) -> ErrorBody:
    return ErrorBody(error.code, error.message)
