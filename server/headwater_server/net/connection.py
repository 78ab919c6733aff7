"""One client: its pure session, its sink, its place in the reactive core and its mutation queue."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol, assert_never

from headwater_protocol.errors import (
    ERROR_CODES,
    HeadwaterError,
    InternalError,
    LocalProtocolError,
    ProtocolError,
    RequestError,
    Retry,
    TransientError,
    error_for,
)
from headwater_protocol.failures import error_body
from headwater_protocol.limits import LIST_ITEMS_MAX, QUERIES_MAX
from headwater_protocol.messages import ErrorBody
from headwater_protocol.server_events import (
    ActionCancelled,
    ActionCredited,
    ActionRequested,
    AuthenticateRequested,
    Connected,
    KeyOffered,
    MutationRequested,
    PeerSilent,
    PongReceived,
    QuerySetModified,
    SendFrame,
    ServerEvent,
)

from headwater_server.convex.identity import claims_of
from headwater_server.functions.mutations import Decision
from headwater_server.identity.sign_ins import REFUSED, UNVERIFIABLE
from headwater_server.net.convex_system import Asker, SessionSystemQueries
from headwater_server.net.keys import Right, hash_key
from headwater_server.net.session_actions import SessionActions
from headwater_server.reactive.sessions import QueryKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from headwater_protocol.messages import AddQuery

    from headwater_server.functions.actions import Actions
    from headwater_server.functions.mutations import KnownUser, MutationCall, Mutations, SessionQueue
    from headwater_server.identity.claims import VerifiedToken
    from headwater_server.identity.sign_ins import ActedUser, Check, Pace, SignIns
    from headwater_server.net.admission import Allowance, TooSoon
    from headwater_server.net.connection_limits import ConnectionLimits
    from headwater_server.net.convex_system import SystemFunctions
    from headwater_server.net.dialect import Dialect
    from headwater_server.net.keys import AdminKeys
    from headwater_server.net.sinks import SharedFrames, Sink
    from headwater_server.observe.metrics import Metrics
    from headwater_server.reactive.core import ReactiveCore
    from headwater_server.reactive.moves import Moved
    from headwater_server.reactive.sessions import Session

logger = logging.getLogger("headwater.connection")

_UNREAD_FACTOR = 2
_LOST = "the token does not hold any more"
_REMOVED_MAX = LIST_ITEMS_MAX - QUERIES_MAX  # so that a transition can name them beside all that are left


class ConnectionHost(Protocol):
    """What a connection needs of the daemon; the hub offers it."""

    core: ReactiveCore
    mutations: Mutations
    actions: Actions
    metrics: Metrics
    limits: ConnectionLimits
    incarnation: bytes
    frames: SharedFrames
    mono_s: Callable[[], float]
    sign_ins: SignIns
    keys: AdminKeys
    system: SystemFunctions | None
    draining: bool

    def refusal(self, last_ts: int) -> HeadwaterError | None:
        """Return why a client cannot be accepted now, None if it can."""

    def take_over(self, connection: Connection) -> None:
        """Make a connection the one of its session."""

    def blocked(self, connection: Connection) -> None:
        """A client has too much unread."""

    def left(self, connection: Connection) -> None:
        """Forget a connection that has ended."""

    def gone(self, connection: Connection) -> None:
        """Forget a socket that has ended."""


class Connection:
    """What the shells drive: they hand over frames and say when the socket has ended.

    Attributes:
        session: The core's view; None until the client's `Connect` is accepted and after the end.
        session_id: The client's name across connections, b"" before `Connect`.
        stalled_since_s: Since when the socket has taken nothing, monotonic; None while it does.
        verified: The token by which the client is known, None if it is nobody.
        key_hash: Of the key of the deployment that it has shown; b"" if none.
        origin: Address of the server as its client has written it; "" if nobody can tell.
        has_room: Called when more may be taken of a client that had too much in flight.
    """

    def __init__(self, hub: ConnectionHost, sink: Sink, dialect: Dialect, allowance: Allowance) -> None:
        self._hub = hub
        self._allowance = allowance
        allowance.earned = self._offer_room
        self._sink = sink
        self._traffic = hub.metrics.traffic
        self._dialect = dialect
        self._wire = dialect.session()
        self._queue: SessionQueue | None = None
        self._actions: SessionActions | None = None  # from the first one on; refers to this
        self._system: SessionSystemQueries | None = (
            None  # likewise, from `Connect` on, if its dialect has any
        )
        self._ended = False
        self._unsent_bytes = 0
        self._unsent_max_bytes = 0
        self._kept_bytes = 0
        self._subscribed_bytes = 0
        self._pace: Pace | None = None
        self._check: Check | None = None
        self._identity_lost = False
        self._acted: ActedUser | None = None  # as whom the holder of a key acts
        self._rights: frozenset[Right] = frozenset()
        self.key_hash = b""
        self.origin = ""
        self.has_room: Callable[[], None] | None = None
        self.verified: VerifiedToken | None = None
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
        if not self._ended:
            self._guarded(lambda: self._handle(self._wire.receive(frame, stopping=self._hub.draining)))

    def _guarded(self, step: Callable[[], None]) -> None:
        """Do something that may find the protocol broken, or one of our faults: it costs the one connection that met it."""
        try:
            step()
        except LocalProtocolError as fault:
            self._fail(fault)
        except ProtocolError as error:
            self.end(error)
        except Exception as fault:
            self._fail(fault)

    def refuse(self, message: str) -> None:
        """End a connection that sent something which is no frame of the protocol."""
        self.end(ProtocolError(message))

    @property
    def is_full(self) -> bool:
        """Whether no more may be taken of this client until something of it is answered; `has_room` is called then."""
        limit = self._dialect.in_flight_max
        return (self._allowance.owes or (limit > 0 and self._wire.in_flight >= limit)) and not self._ended

    def _offer_room(self) -> None:
        if self.has_room is not None and not self.is_full:
            self.has_room()

    def cut(self) -> None:
        """End the socket without a word; `lost` follows."""
        self._sink.abort()

    def lost(self) -> None:
        """The socket has ended."""
        self._hub.gone(self)
        if not self._ended:
            self._ended = True
            self._leave()

    def _handle(self, events: Iterable[ServerEvent]) -> None:
        for event in events:
            if self._ended:
                return
            too_soon = self._allowance.judge(event)
            if too_soon is not None:
                self._refuse_event(event, too_soon)
                continue
            match event:
                case QuerySetModified(add, remove):
                    self._modify(add, remove)
                case MutationRequested():
                    self._mutate(event)
                case ActionRequested():
                    self._act(event)
                case ActionCredited(request, size):
                    if self._actions is not None:
                        self._actions.credit(request, size)
                case ActionCancelled(request):
                    if self._actions is not None:
                        self._actions.cancel(request)
                case Connected(connect):
                    self._connect(connect.session, connect.last_ts)
                case AuthenticateRequested(_, token):
                    self._authenticate(token)
                case KeyOffered(_, key, claims):
                    self._take_key(key, claims)
                case SendFrame(frame):
                    self._send((frame,))
                case PongReceived():
                    pass
                case PeerSilent():
                    self.lost()
                    self._sink.abort()
                case _:
                    assert_never(event)

    def _refuse_event(self, event: ServerEvent, too_soon: TooSoon) -> None:
        """Answer what comes too soon, or end the connection of a client that goes on so."""
        body = error_body(too_soon.error)
        if too_soon.ends:
            self.end(too_soon.error)
        elif isinstance(event, MutationRequested):
            self._answer(event.request, Decision(self._hub.core.published_ts, None, body))
        elif isinstance(event, ActionRequested):
            self._send((self._wire.action_answer(event.request, None, body),))

    def _connect(self, session_id: bytes, last_ts: int) -> None:
        hub = self._hub
        refusal = hub.refusal(last_ts)
        if refusal is not None:
            self.end(refusal)
            return
        self.session_id = session_id
        hub.take_over(self)
        self._queue = hub.mutations.attach(session_id, self)
        welcome = self._wire.welcome(hub.incarnation, hub.core.published_ts)
        if welcome is not None:
            self._send((welcome,))
        self.session = hub.core.connect(self, kept_back=self._keep_back, whole=self._dialect.whole_results)
        if self._dialect.asks_system and hub.system is not None:
            self._system = SessionSystemQueries(hub.system, self._asker, self._make_due)

    def _modify(self, add: Sequence[AddQuery], remove: Sequence[int]) -> None:
        session = self.session
        if session is None:
            return
        if self._system is not None:
            add, remove = self._system.take(add, remove)
        size = self._subscribed_bytes
        size -= sum(session.subscriptions[number].size_bytes for number in remove)
        size += sum(QueryKey(query.name, query.arguments, query.journal).size_bytes for query in add)
        limit = self._hub.limits.subscribed_bytes
        if size > limit:
            message = (
                f"the queries of this session take {size} bytes of names and arguments, more than {limit}"
            )
            self.end(RequestError(message, code="frame_too_large"))
        elif len(session.removed) + len(remove) > _REMOVED_MAX:
            message = f"more than {_REMOVED_MAX} queries were removed before a transition could say so"
            self.end(TransientError(message, code="overloaded"))
        else:
            self._subscribed_bytes = size
            self._hub.core.modify(session, add, remove)

    def _mutate(self, asked: MutationRequested) -> None:
        if self._queue is None:
            return
        if not self._identity_lost:
            internal = Right.RUN in self._rights
            refusal = self._hub.mutations.request(self._queue, asked, self._user, internal=internal)
        elif asked.sent_ts is None:
            refusal = None
            error = ErrorBody("unauthenticated", _LOST)
            self._answer(asked.request, Decision(self._hub.core.published_ts, None, error))
        else:  # it may have taken effect: no answer would be right
            refusal = TransientError(_LOST)
        if refusal is None:
            return
        if refusal.code == "session_in_use":
            error = ErrorBody(refusal.code, refusal.message)
            self._decided(asked.request, Decision(self._hub.core.published_ts, None, error))
        else:
            self.end(refusal)

    def _act(self, asked: ActionRequested) -> None:
        if self._identity_lost:
            error = ErrorBody("unauthenticated", _LOST)
            self._send((self._wire.action_answer(asked.request, None, error),))
        else:
            if self._actions is None:
                self._actions = self._session_actions()
            user = self._user
            internal = Right.RUN in self._rights
            self._actions.begin(asked, None if user is None else user.identity, internal=internal)

    def _session_actions(self) -> SessionActions:
        return SessionActions(
            self._hub.actions,
            self._wire,
            self.session_id,
            self._send,
            lambda: self.stalled_since_s is not None,
            self._hub.limits.kept_answers_bytes,
            self._pieces_unread,
            self._action_answered,
            self._dialect.with_lines,
        )

    def _action_answered(self) -> None:
        if self._dialect.covers_actions:
            self._make_due()
        self._offer_room()

    def _make_due(self) -> None:
        """Have a transition follow, whether anything changes or not."""
        if self.session is not None:
            self._hub.core.modify(self.session, (), ())

    # ------------------------------------------------------------------ who it is

    @property
    def _user(self) -> KnownUser | None:
        return self.verified or self._acted

    def _take_key(self, key: str, claims: dict[str, Any] | None) -> None:
        """Let the holder of a key do what it opens, as a user if it says so."""
        keys, acted, digest = self._hub.keys, None, hash_key(key)
        try:
            name, rights = keys.opened_by(digest)
            if claims is not None:
                keys.require(key, Right.ACT_AS)
                acted = self._hub.sign_ins.acting_as(claims_of(claims), name)
        except RequestError as refusal:
            self._refuse_token(refusal.message)
            return
        self._accept(None, acted, digest, rights)

    def _asker(self) -> Asker:
        return Asker(self._rights, self.origin)

    def review_key(self) -> None:
        """Other keys are valid now: a client whose key is not any more is nobody."""
        if not self.key_hash or self._ended:
            return
        try:
            _, rights = self._hub.keys.opened_by(self.key_hash)
        except RequestError:
            self.lose_identity()
            return
        if rights != self._rights:
            self.lose_identity()

    def _authenticate(self, token: str | None) -> None:
        if token is None:
            # What waits behind it, if something does, is being handled already: once more here, inside of that,
            # as many sign-outs as may wait would be too deep.
            self._accept(None)
            return
        sign_ins = self._hub.sign_ins
        if self._pace is None:
            self._pace = sign_ins.pace()
        self._check = sign_ins.begin(token, self._pace, self._judge)

    def _judge(self, verified: VerifiedToken | None, may_pass_later: bool) -> None:
        """Take the verdict on the client's token; what it has sent meanwhile is handled then."""
        self._check = None
        if self._ended or self._hub.draining:
            return
        if verified is not None:
            self._guarded(lambda: self._handle(self._accept(verified)))
        elif may_pass_later:
            # To refuse it would sign the user out, though nothing was found wrong with it.
            self.end(TransientError(UNVERIFIABLE))
        else:
            self._guarded(self._refuse_token)

    def _accept(
        self,
        verified: VerifiedToken | None,
        acted: ActedUser | None = None,
        key_hash: bytes = b"",
        rights: frozenset[Right] = frozenset(),
    ) -> Iterable[ServerEvent]:
        """Be whoever a token is from, or a key opens; return what waits behind it."""
        waiting = self._wire.authenticated()
        self._identity_lost = False
        self._acted, self.key_hash, self._rights = acted, key_hash, rights
        self._become(verified)
        if verified is not None:
            self._hub.sign_ins.watch(self, verified)
        return waiting

    def _refuse_token(self, why: str = REFUSED) -> None:
        frame, waiting = self._wire.authentication_refused(why)
        self._send((frame,))
        if self._dialect.ends_unidentified:
            self.end(RequestError(why, code="unauthenticated"))
        else:
            self._handle(waiting)

    def lose_identity(self) -> None:
        """The client's token does not hold any more: it is nobody until it brings another one."""
        if self._ended:
            return
        self._identity_lost = True
        self._guarded(lambda: self._send((self._wire.identity_lost(_LOST),)))
        if self._dialect.ends_unidentified:
            self.end(RequestError(_LOST, code="unauthenticated"))
        else:
            self._become(None)

    def _become(self, verified: VerifiedToken | None) -> None:
        self.verified = verified
        self._allowance.be(None if verified is None else verified.token_identifier)
        if self.session is not None:
            user, internal = self._user, Right.READ in self._rights
            self._hub.core.identify(self.session, None if user is None else user.identity, internal=internal)

    # ------------------------------------------------------------------ to the client

    def receive_decision(self, call: MutationCall, decision: Decision) -> None:
        """A call was decided without a commit of its own at this moment."""
        self._decided(call.number, decision)

    def _decided(self, number: int, decision: Decision) -> None:
        """Answer, or end the connection where an answer would not be right."""
        error = decision.error
        if error is None:
            self._answer(number, decision)
        elif error.code == "session_in_use" and not self._dialect.ends_on_faults:
            self.end(RequestError(error.message, code="session_in_use"))  # it takes another session id
        elif (
            error.code != "session_in_use"
            and self._dialect.ends_on_faults
            and ERROR_CODES[error.code].retry is not Retry.NEVER
        ):
            self.end(error_for(error.code, error.message))
        else:
            self._answer(number, decision)

    def _answer(self, number: int, decision: Decision) -> None:
        if self.session is not None:
            self._hub.core.answer(self.session, (number, decision), decision.ts)

    def deliver(self, answers: Sequence[tuple[int, Decision]], moved: Moved | None) -> None:
        """Send answers, then the transition; called by the core, in whose step nothing may be raised."""
        if self._ended:
            return
        try:
            if answers or moved is None:
                self._deliver(answers, moved)
            else:  # most of what a daemon sends: an update for very many
                self._send((self._transition(moved),))
        except Exception as fault:  # it would end the engine, and every client with it
            self._fail(fault)

    def _deliver(self, answers: Sequence[tuple[int, Decision]], moved: Moved | None) -> None:
        messages = [self._message(*answer) for answer in answers if self._wire.awaits(answer[0])]
        if moved is not None:
            messages.append(self._transition(moved))
        self._send(messages)
        self._offer_room()

    def _message(self, number: int, decision: Decision) -> bytes:
        value, error, committed = decision.value, decision.error, decision.committed
        message = self._wire.mutation_answer(number, decision.ts, value, error, committed=committed)
        add = self._dialect.with_lines
        return message if add is None or not decision.lines else add(message, decision.lines)

    def _transition(self, moved: Moved) -> bytes:
        self._traffic.transitions += 1
        if self._system is not None and (own := self._system.bodies()):
            return self._wire.transition(moved.ts, [*moved.changes, *own])
        if moved.made is None:
            moved.made = self._hub.frames.transitions(moved)
        return self._wire.transition(moved.ts, moved.changes, moved.made)

    def _keep_back(self, answer: tuple[int, Decision]) -> None:
        """The core keeps an answer since this client does not read; called by the core."""
        _, decision = answer
        self._kept_bytes += len(decision.value or b"") + sum(len(text) for _, text in decision.lines)
        if decision.error is not None:
            self._kept_bytes += len(decision.error.message) + len(decision.error.data or b"")
        if self._kept_bytes > self._hub.limits.kept_answers_bytes:
            self.end(TransientError("the client did not read its answers", code="overloaded"))

    def _pieces_unread(self) -> None:
        """More pieces of actions wait for this client than may."""
        self.end(TransientError("the client did not read the pieces of its actions", code="overloaded"))

    def look_again(self, now_s: float) -> bool:
        """See whether a blocked client reads again.

        Returns:
            Whether it can be sent to; a client that took nothing for too long is ended.
        """
        unsent = self._sink.unsent_bytes()
        if unsent <= self._hub.limits.send_buffer_bytes // 2:
            self.stalled_since_s = None
            self._kept_bytes = 0
            if self._queue is not None:
                self._hub.mutations.resume(self._queue)
            if self._actions is not None:
                self._actions.resume()
            return self.stalled_since_s is None
        if unsent < self._unsent_bytes or self.stalled_since_s is None:
            self._unsent_bytes, self.stalled_since_s = unsent, now_s
        elif now_s - self.stalled_since_s > self._hub.limits.stall_limit_s:
            self.end(TransientError("the client did not read what it was sent", code="overloaded"))
            self._sink.abort()
        return False

    def tick(self, now_s: float) -> None:
        """Send what the heartbeat asks for."""
        if self._ended:
            return
        try:
            self._handle(self._wire.tick(now_s))
        except Exception as fault:  # the others want their heartbeats
            self._fail(fault)

    def end(self, error: HeadwaterError) -> None:
        """Tell the client why and close; nothing is handled or sent after it."""
        if self._ended:
            return
        self._ended = True
        self._hub.metrics.sessions_refused.labels(error.code).inc()
        try:
            last_words = self._wire.fatal(error)
            if last_words is not None:
                self._send((last_words,))
            self._sink.close(*self._wire.closing(error))
        except Exception:  # whatever it is, it must reach neither the core's step nor other clients
            logger.exception("connection_failed")
            self._sink.abort()
        self._leave()

    def _fail(self, fault: Exception) -> None:
        """End the connection for a fault of ours; its trace is in the log alone."""
        logger.error("connection_failed", exc_info=fault)
        self.end(InternalError())

    def _send(self, messages: Sequence[bytes]) -> None:
        for message in messages:
            self._traffic.bytes += len(message)
        self._sink.send(messages)
        unsent = self._sink.unsent_bytes()
        if unsent > self._hub.limits.send_buffer_bytes and self.session is not None and not self._ended:
            self._stall(unsent)

    def _stall(self, unsent: int) -> None:
        """The client has too much unread. From here on it gets no transitions, and only so much of the rest."""
        if self.stalled_since_s is None:
            self.stalled_since_s = self._hub.mono_s()
            self._unsent_bytes = unsent
            self._unsent_max_bytes = unsent + _UNREAD_FACTOR * self._hub.limits.send_buffer_bytes
            self._hub.blocked(self)
            if self._queue is not None:
                self._hub.mutations.pause(self._queue)
        elif unsent > self._unsent_max_bytes:
            self.end(TransientError("the client did not read what it was sent", code="overloaded"))
            self._sink.abort()

    def _leave(self) -> None:
        # What refers back to this goes, or it would stay in memory until the collector of cycles comes by.
        actions, self._actions = self._actions, None
        system, self._system = self._system, None
        check, self._check = self._check, None
        session, self.session = self.session, None
        queue, self._queue = self._queue, None
        self.verified = self._acted = None
        self.has_room = self._allowance.earned = None
        if actions is not None:
            actions.leave()
        if system is not None:
            system.leave()
        if check is not None:
            check.cancel()
        if session is not None:
            self._hub.core.disconnect(session)
        if queue is not None:
            self._hub.mutations.detach(queue, self)
        self._hub.left(self)
