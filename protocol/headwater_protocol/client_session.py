"""One client across its reconnects: calls in, frames out; frames in, events out.

Pure: no socket, no clock, no randomness. After every call the shell sends what
`take_frames` returns, in order. A connection begins with `connect` and ends with
`disconnected`; queries and undecided mutations outlive it.

    idle ──connect()──► greeting ──Welcome──► open ──disconnected()──► idle

- A mutation is in flight until it is *decided*. After a reconnect those without an answer
  are sent again under the same number and take effect once.
- A success resolves when a transition at or after its ts has been applied: whoever waits
  for it then sees its effect in every query. A failure resolves at once.
- A mutation may bring an optimistic update, which shows its change from its call to the step that
  resolves it; see `client_screen`.
- A `ProtocolError` from `receive` means that the server broke the protocol: cut the
  connection, call `disconnected`, connect again. All values are then fetched anew.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, assert_never

from headwater_protocol.client_events import (
    ActionResolved,
    AuthenticationFailed,
    ClientEvent,
    IdentityChanged,
    IdentityLost,
    Moved,
    MutationResolved,
    Opened,
    PeerSilent,
    QueryFailed,
)
from headwater_protocol.client_identity import Identity
from headwater_protocol.client_query_set import QuerySet
from headwater_protocol.client_requests import (
    Request,
    arrived,
    end_of_stranded,
    in_span,
    outcome_of,
    request_frame,
    stranded,
)
from headwater_protocol.client_screen import Query, Screen
from headwater_protocol.client_steps import Sent, check_session, check_step, check_welcome, fatal_event
from headwater_protocol.codec import decode_server_message, encode_message
from headwater_protocol.errors import (
    LocalProtocolError,
    OutcomeUnknown,
    ProtocolError,
    TransientError,
)
from headwater_protocol.failures import too_large
from headwater_protocol.heartbeat import Beat, Heartbeat
from headwater_protocol.limits import QUERIES_MAX, REQUESTS_IN_FLIGHT_MAX
from headwater_protocol.messages import (
    Action,
    ActionAnswer,
    ActionCredit,
    ActionPiece,
    AuthError,
    CancelAction,
    ChangeBody,
    ClientMessage,
    Connect,
    FatalError,
    Mutation,
    MutationAnswer,
    Ping,
    Pong,
    Transition,
    Version,
    Welcome,
)
from headwater_protocol.versions import SUPPORTED_VERSIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headwater_protocol.client_screen import Update
    from headwater_protocol.errors import HeadwaterError

_GREETING_INTERVAL_S = 5.0  # heartbeat until the server has told its own
_FRAME_LIMIT_BYTES = 16 * 1024 * 1024  # what a server is thought to take before it has told


class _State(Enum):
    IDLE = "idle"
    GREETING = "greeting"
    OPEN = "open"


class ClientSession:
    """State of one client.

    Attributes:
        session: 16 bytes that name it to the server.
        last_ts: Newest ts that its values have held at.
        incarnation: Incarnation of the log that the server last told, None before.
        version: Where the last transition of this connection left it.
    """

    def __init__(self, session: bytes, client: str) -> None:
        check_session(session)
        self.session = session
        self.calling_span: Callable[[], str] = str  # traceparent of the call at hand; set by who makes this
        self.last_ts = 0
        self.incarnation: bytes | None = None
        self.version = Version(0, 0, 0)
        self._client = client
        self._told_ts = 0  # newest ts the server has told in any message
        self._state = _State.IDLE
        self._heartbeat = Heartbeat(_GREETING_INTERVAL_S)
        self._pings = 0
        self._frame_limit_bytes = _FRAME_LIMIT_BYTES
        self._frames: list[bytes] = []
        self._screen = Screen()
        self._shown_ts = 0  # what is shown holds at
        self._behind = False  # more has arrived than is shown
        self._events: list[ClientEvent] = []
        self._next_query = 1
        self._query_set = QuerySet(self._append, self._frame_limit_bytes)
        self._requests: dict[int, Request] = {}  # by number, rising
        self._next_request = 1
        self._abandoned: set[int] = set()  # this connection still brings their answers
        self._server_streams = False  # the server of this connection takes `CancelAction`
        self._identity = Identity(self._send)
        self._resumed = 0  # query-set number that brings back everything from before this connection
        self._resent_below = 1  # requests below it are older than this connection

    # --------------------------------------------------------------------------------------- the caller

    @property
    def is_open(self) -> bool:
        """Whether the server has accepted the present connection."""
        return self._state is _State.OPEN

    @property
    def signed_in(self) -> bool:
        """Whether the server has accepted a token of the present sign-in, on this connection."""
        return self._identity.signed_in and self._identity.is_ready

    @property
    def in_flight(self) -> int:
        """Mutations and actions that are not resolved."""
        return len(self._requests)

    @property
    def settled(self) -> bool:
        """Whether all that was outstanding when this connection began is answered: time to reset the backoff."""
        if self._state is not _State.OPEN or self.version.query_set < self._resumed or self._identity.waits:
            return False
        return all(
            number >= self._resent_below or not request.waits for number, request in self._requests.items()
        )

    def take_events(self) -> list[ClientEvent]:
        """Return what calls of the caller have changed on the screen; each event is handed out once."""
        events, self._events = self._events, []
        return events

    def subscribe(self, name: str, arguments: bytes, *, confirmed: bool = False) -> int:
        """Subscribe to a query and return its number, which events carry.

        Args:
            name: Function.
            arguments: Encoded map, see `canonical_bytes`.
            confirmed: Pass by optimistic updates: show what the server has told, as soon as it tells.

        Raises:
            TransientError: `overloaded`, too many queries.
            RequestError: `frame_too_large`.
        """
        if len(self._screen.queries) >= QUERIES_MAX:
            raise TransientError(f"more than {QUERIES_MAX} queries in one session", code="overloaded")
        query = Query(name, arguments, confirmed)
        if query.size_bytes > self._frame_limit_bytes:
            raise too_large(query.size_bytes, self._frame_limit_bytes)
        number = self._next_query
        self._next_query += 1
        self._screen.queries[number] = query
        if self._state is _State.OPEN:
            self._query_set.add(number, query)
        self._show()
        return number

    def unsubscribe(self, query: int) -> None:
        """Forget a query; no event for it follows."""
        gone = self._screen.remove(query)
        if gone.carried:
            self._query_set.remove(query)

    def mutate(self, name: str, arguments: bytes, update: Update | None = None) -> int:
        """Run a mutation and return its number; `MutationResolved` follows, over as many connections as it takes.

        Args:
            name: Function.
            arguments: Encoded map.
            update: Shows its change at once. It is run again over every new result until the mutation is
                resolved; what it raises when it is run here is raised, and nothing is sent.

        Raises:
            TransientError: `overloaded`, too many in flight.
            RequestError: `frame_too_large`.
        """
        if update is not None:
            self._screen.attempt(self._updates(), update)
        number = self._request(Mutation(self._next_request, name, arguments), update)
        if update is not None:
            self._show()
        return number

    def act(self, name: str, arguments: bytes, window: int = 0) -> int:
        """Run an action and return its number; `ActionResolved` follows. It is never sent twice.

        Args:
            name: Function.
            arguments: Encoded map.
            window: Bytes of pieces that may be on their way, for one that streams: `PieceArrived` comes for
                each of them before the end. 0: one result is asked for.

        Raises:
            TransientError: `overloaded`, too many in flight.
            RequestError: `frame_too_large`.
        """
        return self._request(Action(self._next_request, name, arguments, window))

    def take(self, request: int, size: int) -> None:
        """Say that the caller has a piece of an action: as many more bytes may come."""
        found = self._requests.get(request)
        if found is not None and found.waits:
            self._send(ActionCredit(request, size))

    def abandon(self, request: int) -> None:
        """Stop caring for a request: no event for it follows, and it is not sent again.

        Whether it takes effect is open, unless it was never sent: then it does not. A mutation
        with an update goes on once it was sent: its change is on the screen, and soon in the results.
        """
        gone = self._requests.get(request)
        if gone is None:
            return
        if gone.update is not None and gone.sent:
            gone.cared_for = False
            return
        del self._requests[request]
        if gone.waits:
            self._abandoned.add(request)
            if self._server_streams and isinstance(gone.message, Action):
                self._send(CancelAction(request))
        if gone.update is not None:
            self._show()

    def authenticate(self, token: str | None, *, refresh: bool = False) -> None:
        """Change the identity; None signs out. `IdentityChanged` or `AuthenticationFailed` follows.

        Calls made from then on wait until the server has accepted a token: they are the new user's. Those of
        the user before that no connection carries any more end, as `unauthenticated` if they were never sent.

        Args:
            token: What the server is to check.
            refresh: It is another token of the same user: calls go on.
        """
        self._identity.ask(token, refresh=refresh, now=self._state is _State.OPEN)
        self._events += self._strand()

    def _show(self) -> None:
        self._events += self._screen.show(self._updates())

    def _request(self, message: Mutation | Action, update: Update | None = None) -> int:
        if len(self._requests) + len(self._abandoned) >= REQUESTS_IN_FLIGHT_MAX:
            raise TransientError(f"more than {REQUESTS_IN_FLIGHT_MAX} requests in flight", code="overloaded")
        identity = self._identity
        message = in_span(message, self.calling_span())
        request = Request(message, update=update, sign_in=identity.sign_in, signed_in=identity.signed_in)
        frame = request_frame(request, self._requests, self._told_ts)
        if len(frame) > self._frame_limit_bytes:
            raise too_large(len(frame), self._frame_limit_bytes)
        self._next_request += 1
        self._requests[message.request] = request
        if self._state is _State.OPEN and identity.is_ready:
            self._send_request(request, frame)
        return message.request

    # ---------------------------------------------------------------------------------- the connection

    def take_frames(self) -> list[bytes]:
        """Return the frames that are to be sent now, in order; each is handed out once."""
        self._query_set.flush()
        frames, self._frames = self._frames, []
        if frames:
            self._heartbeat.spoke = True
        return frames

    def connect(self) -> None:
        """Begin a connection; its first frame is then there to be taken."""
        if self._state is not _State.IDLE:
            raise LocalProtocolError("the session already has a connection")
        self._state = _State.GREETING
        self._heartbeat = Heartbeat(_GREETING_INTERVAL_S)
        self._frames = []
        self._send(Connect(SUPPORTED_VERSIONS, self.session, self.last_ts, self.incarnation, self._client))

    def disconnected(self) -> list[ClientEvent]:
        """End the connection: actions that it carried are lost, everything else waits for the next one."""
        if self._state is _State.IDLE:
            return []
        self._state = _State.IDLE
        self._frames = []
        self.version = Version(0, 0, 0)
        self._query_set.forget()
        self._abandoned.clear()
        for query in self._screen.queries.values():
            query.carried = False
        self._identity.disconnected()
        events: list[ClientEvent] = []
        for number, request in list(self._requests.items()):
            request.waits = False
            if request.sent and isinstance(request.message, Action):
                del self._requests[number]
                events.append(ActionResolved(number, None, OutcomeUnknown(code="connection_lost")))
        return events + self._strand()

    def renew(self, session: bytes) -> list[ClientEvent]:
        """Take a new session id, because another client uses the old one; only between connections.

        Mutations that were sent without an answer cannot be sent again under another name:
        they resolve as `outcome_unknown`.
        """
        if self._state is not _State.IDLE:
            raise LocalProtocolError("a session is renewed between connections")
        check_session(session)
        self.session = session
        unsure = [
            number for number, request in self._requests.items() if request.sent and not request.success
        ]
        cared_for = [number for number in unsure if self._requests[number].cared_for]
        for number in unsure:
            del self._requests[number]
        events = self._screen.show(self._updates())
        return events + [MutationResolved(number, None, OutcomeUnknown()) for number in cared_for]

    def tick(self, now_mono: float) -> list[ClientEvent]:
        """Do what is due at a monotonic time; call it at least four times a heartbeat."""
        if self._state is _State.IDLE:
            return []
        match self._heartbeat.tick(now_mono):
            case Beat.LOST:
                return [PeerSilent()]
            case Beat.PING if self._state is _State.OPEN:
                self._pings += 1
                self._send(Ping(self._pings))
        return []

    @property
    def heartbeat_s(self) -> float:
        """Interval of the heartbeat at present."""
        return self._heartbeat.interval_s

    def receive(self, frame: bytes) -> list[ClientEvent]:
        """Take one frame apart and apply it.

        Raises:
            ProtocolError: The server broke the protocol; nothing of the frame was applied.
        """
        if self._state is _State.IDLE:
            raise LocalProtocolError("a frame was handed to a session without a connection")
        try:
            message = decode_server_message(frame)
            self._heartbeat.heard = True
            if self._state is _State.GREETING and not isinstance(message, Welcome | FatalError):
                raise ProtocolError(f"{type(message).__name__}: expected Welcome first")
            match message:
                case Transition():
                    return self._transition(message)
                case MutationAnswer():
                    return self._mutation_answer(message)
                case ActionAnswer():
                    return self._action_answer(message)
                case ActionPiece():
                    return self._piece(message)
                case Welcome():
                    return self._welcome(message)
                case AuthError(base, text):
                    return self._auth_error(base, text)
                case FatalError(error):
                    return [fatal_event(error)]
                case Ping(nonce):
                    self._send(Pong(nonce))
                    return []
                case Pong():
                    return []
                case _:
                    assert_never(message)
        except ProtocolError:
            for query in self._screen.queries.values():
                query.digest = None
            raise

    # ------------------------------------------------------------------------------ what the server says

    def _welcome(self, message: Welcome) -> list[ClientEvent]:
        if self._state is not _State.GREETING:
            raise ProtocolError("Welcome: expected only once on a connection")
        check_welcome(message)
        self._state = _State.OPEN
        self.incarnation = message.incarnation
        self._told_ts = max(self._told_ts, message.ts)
        self._frame_limit_bytes = self._query_set.frame_limit_bytes = message.frame_limit_bytes
        self._heartbeat = Heartbeat(message.heartbeat_ms / 1000)
        self._server_streams = message.stream_window > 0
        return [Opened(message.incarnation, message.ts), *self._resume()]

    def _resume(self) -> list[ClientEvent]:
        """Bring the new connection to where the last one was: identity, query set, requests, in this order.

        Before that goes what was called while nobody was signed in. What the present user has called waits for
        the verdict on their token.
        """
        self._resent_below = self._next_request
        sign_in = self._identity.sign_in
        events = self._send_outstanding(lambda request: request.sign_in != sign_in)
        self._identity.resume()
        events += self._resubscribe()
        self._resumed = self._query_set.number
        if self._identity.is_ready:
            return events + self._send_outstanding()
        for request in self._requests.values():
            request.resent = request.sent
        return events

    def _send_outstanding(self, of: Callable[[Request], bool] = lambda _: True) -> list[ClientEvent]:
        """Send those of the requests that this connection has not carried, unless they are too large for it."""
        events: list[ClientEvent] = []
        for number, request in list(self._requests.items()):
            if not request.outstanding or not of(request):
                continue
            frame = request_frame(request, self._requests, self._told_ts)
            if len(frame) <= self._frame_limit_bytes:
                self._send_request(request, frame)
            else:
                events += self._drop(number, too_large(len(frame), self._frame_limit_bytes))
        return events

    def _strand(self) -> list[ClientEvent]:
        """End the calls of users who are not this client's any more, unless the connection carries them."""
        events: list[ClientEvent] = []
        for number, request in stranded(self._requests, self._identity.sign_in).items():
            events += self._drop(number, end_of_stranded(request))
        if events and self._behind and self._state is _State.OPEN:
            events += self._settle()
        return events

    def _drop(self, number: int, error: HeadwaterError) -> list[ClientEvent]:
        """End a call without an answer of the server."""
        request = self._requests.pop(number)
        kind = MutationResolved if isinstance(request.message, Mutation) else ActionResolved
        events = self._screen.show(self._updates()) if request.update is not None else []
        if request.cared_for:
            events.append(kind(number, None, error))
        return events

    def _resubscribe(self) -> list[ClientEvent]:
        """Send the query set, in as many messages as the frame limit asks for, and at least one."""
        events: list[ClientEvent] = []
        self._query_set.begin()
        for number, query in self._screen.queries.items():
            if query.size_bytes > self._frame_limit_bytes:
                query.digest = None
                events.append(QueryFailed(number, too_large(query.size_bytes, self._frame_limit_bytes)))
            else:
                self._query_set.add(number, query)
        return events

    def _transition(self, message: Transition) -> list[ClientEvent]:
        sent = Sent(self._query_set.number, self._identity.asked)
        check_step(message.start, message.end, self.version, self.last_ts, sent)
        updates: dict[int, tuple[ChangeBody, Any]] = {}
        for change in message.changes:
            number = change.query
            if number in updates or not 0 < number < self._next_query:
                raise ProtocolError(f"Transition.changes: query {number} comes twice or was never subscribed")
            query = self._screen.queries.get(number)
            if query is not None:
                updates[number] = change.body, query.value_after(number, change.body)
        events: list[ClientEvent] = []
        verdict = message.end.identity > message.start.identity
        if verdict and self._identity.accepted(message.end.identity):
            events.append(IdentityChanged())
        for number, (body, value) in updates.items():
            events += self._screen.apply(number, body, value)
        self.version = message.end
        self._told_ts = max(self._told_ts, message.end.ts)
        if message.end.query_set >= self._resumed:  # else some values are still those of the last connection
            self.last_ts = message.end.ts
        if verdict and self._identity.is_ready:
            events += self._send_outstanding()
        return events + self._settle()

    def _settle(self) -> list[ClientEvent]:
        """Show what has arrived, all of one moment, and resolve the mutations that it covers, in one step.

        Not while it is of no one moment, nor while a mutation that an earlier connection carried is
        in doubt: the results may have its change already, and its update would show it again. The
        answer to a resend tells a ts that its commit is not behind, so the results that reach it decide.
        """
        self._behind = self.version.query_set < self._resumed or any(
            request.resent and request.update and not request.decided_by(self.last_ts)
            for request in self._requests.values()
        )
        if self._behind:
            return self._resolve()
        self._shown_ts = self.last_ts
        resolved = self._covered()
        return [*self._screen.settle(self._updates()), Moved(self.last_ts), *resolved]

    def _resolve(self) -> list[ClientEvent]:
        """Resolve the mutations that what is shown covers already."""
        resolved = self._covered()
        return [*self._screen.show(self._updates()), *resolved] if resolved else []

    def _covered(self) -> list[ClientEvent]:
        """Forget the mutations whose effect is in what is shown, and return what there is to tell of them."""
        events: list[ClientEvent] = []
        for number, request in list(self._requests.items()):
            if request.success is not None and request.decided_by(self._shown_ts):
                del self._requests[number]
                if request.cared_for:
                    events.append(MutationResolved(number, request.success[1], None))
        return events

    def _updates(self) -> Iterator[tuple[int, Update]]:
        return (
            (number, request.update)
            for number, request in self._requests.items()
            if request.update is not None
        )

    def _mutation_answer(self, answer: MutationAnswer) -> list[ClientEvent]:
        value, error = outcome_of(answer)
        request = self._answered(answer, Mutation)
        if request is None:
            return []
        if error is None:
            request.success = answer.ts, value
            return self._settle() if self._behind else self._resolve()
        del self._requests[answer.request]
        events = self._screen.show(self._updates()) if request.update is not None else []
        if request.cared_for:
            events.append(MutationResolved(answer.request, None, error))
        return events + (self._settle() if self._behind else [])

    def _action_answer(self, answer: ActionAnswer) -> list[ClientEvent]:
        value, error = outcome_of(answer)
        if self._answered(answer, Action) is None:
            return []
        del self._requests[answer.request]
        return [ActionResolved(answer.request, value, error)]

    def _piece(self, piece: ActionPiece) -> list[ClientEvent]:
        if piece.request in self._abandoned:
            return []
        return [arrived(piece, self._requests.get(piece.request))]

    def _answered(self, answer: MutationAnswer | ActionAnswer, kind: type) -> Request | None:
        """Return the request that an answer is for, None if nobody cares for it any more."""
        if answer.request in self._abandoned:
            self._abandoned.remove(answer.request)
            return None
        request = self._requests.get(answer.request)
        if request is None or not request.waits or not isinstance(request.message, kind):
            raise ProtocolError(f"{type(answer).__name__}: request {answer.request} does not wait for one")
        request.waits = False
        return request

    def _auth_error(self, base: int, message: str) -> list[ClientEvent]:
        if self._identity.refused(base, self.version.identity):
            return [AuthenticationFailed(message)]
        return [IdentityLost(message)]

    # -------------------------------------------------------------------------------------------- frames

    def _send(self, message: ClientMessage) -> None:
        self._query_set.flush()
        self._append(message)

    def _append(self, message: ClientMessage) -> None:
        self._frames.append(encode_message(message))

    def _send_request(self, request: Request, frame: bytes) -> None:
        request.resent = request.sent
        if request.sent_ts is None:
            request.sent_ts = self._told_ts
        request.waits = True
        self._query_set.flush()
        self._frames.append(frame)
