from __future__ import annotations

from typing import Any

import pytest
from headwater_protocol.codec import decode_server_message, encode_change_body, encode_message
from headwater_protocol.errors import (
    ApplicationError,
    HeadwaterError,
    LocalProtocolError,
    ProtocolError,
    TransientError,
)
from headwater_protocol.limits import CONNECT_FRAME_BYTES, QUERIES_MAX, REQUESTS_IN_FLIGHT_MAX, ServerLimits
from headwater_protocol.messages import (
    Action,
    ActionAnswer,
    ActionCredit,
    ActionPiece,
    AddQuery,
    Authenticate,
    AuthError,
    CancelAction,
    Change,
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
    Transition,
    Value,
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
)
from headwater_protocol.server_session import SameTransitions, ServerSession, close_code

CONNECT = Connect((1,), b"s" * 16, 0, None, "test")
VALUE = encode_change_body(Value(b"\x90", b"d" * 16))
LIMITS = ServerLimits(frame_limit_bytes=100_000, heartbeat_ms=4_000, held_messages_max=3, held_bytes_max=100)


def query(number: int) -> AddQuery:
    return AddQuery(number, "a:b", b"\x80")


def opened() -> ServerSession:
    session = ServerSession(LIMITS)
    session.receive(encode_message(CONNECT))
    session.welcome(b"i" * 16, 100)
    return session


def send(session: ServerSession, *messages: ClientMessage) -> list[Any]:
    return [event for message in messages for event in session.receive(encode_message(message))]


def refused(session: ServerSession, *messages: ClientMessage) -> ProtocolError:
    *before, last = messages
    send(session, *before)
    frame = encode_message(last)
    with pytest.raises(ProtocolError) as caught:
        session.receive(frame)
    return caught.value


def test_connect_is_answered_by_welcome_and_raises_the_frame_limit() -> None:
    session = ServerSession(LIMITS)
    assert send(session, CONNECT) == [Connected(CONNECT, 1)]
    assert session.frame_limit_bytes == CONNECT_FRAME_BYTES
    assert not session.is_open
    assert decode_server_message(session.welcome(b"i" * 16, 7)) == Welcome(
        1, b"i" * 16, 7, 100_000, 4_000, 65_536
    )
    assert session.frame_limit_bytes == 100_000
    assert session.is_open


@pytest.mark.parametrize("opened_first", [False, True])
def test_frames_above_the_limit_are_refused_unread(opened_first: bool) -> None:
    session = opened() if opened_first else ServerSession(LIMITS)
    limit = session.frame_limit_bytes
    with pytest.raises(ProtocolError) as caught:
        session.receive(b"\xc1" * (limit + 1))
    assert caught.value.code == "frame_too_large"
    assert close_code(caught.value) == 1009


def test_the_first_message_is_connect_and_comes_once() -> None:
    assert "expected Connect" in refused(ServerSession(LIMITS), Ping(1)).message
    assert "expected nothing before Welcome" in refused(ServerSession(LIMITS), CONNECT, Ping(1)).message
    assert "only once" in refused(opened(), CONNECT).message


def test_a_version_from_the_future_is_refused_naming_both() -> None:
    session = ServerSession(LIMITS)
    error = refused(session, Connect((7, 9), b"s" * 16, 0, None, "new"))
    assert error.code == "unsupported_version"
    assert "7, 9" in error.message
    assert decode_server_message(session.fatal(error)) == FatalError(ErrorBody(error.code, error.message))
    assert close_code(error) == 4003


def test_a_session_id_has_sixteen_bytes() -> None:
    assert "Connect.session" in refused(ServerSession(LIMITS), Connect((1,), b"short", 0, None, "")).message


def test_query_set_events_and_the_transition_that_reflects_them() -> None:
    session = opened()
    assert send(session, ModifyQuerySet(0, 5, (query(1), query(2)), ())) == [
        QuerySetModified((query(1), query(2)), ())
    ]
    first = decode_server_message(session.transition(100, [(1, VALUE), (2, VALUE)]))
    assert first == Transition(
        Version(0, 0, 0),
        Version(5, 0, 100),
        (Change(1, Value(b"\x90", b"d" * 16)), Change(2, Value(b"\x90", b"d" * 16))),
    )
    assert send(session, ModifyQuerySet(5, 6, (), (1,))) == [QuerySetModified((), (1,))]
    second = decode_server_message(session.transition(100, [(1, encode_change_body(Removed()))]))
    assert second == Transition(Version(5, 0, 100), Version(6, 0, 100), (Change(1, Removed()),))
    with pytest.raises(LocalProtocolError, match="query 1"):
        session.transition(101, [(1, VALUE)])


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (ModifyQuerySet(0, 2, (), ()), "base: expected 1, got 0"),
        (ModifyQuerySet(1, 1, (), ()), "new: expected more than 1, got 1"),
        (ModifyQuerySet(1, 2, (query(1),), ()), "query 1 is already subscribed"),
        (ModifyQuerySet(1, 2, (query(2), query(2)), ()), "the same query twice"),
        (ModifyQuerySet(1, 2, (query(0),), ()), "query 0"),
        (ModifyQuerySet(1, 2, (query(1),), (1,)), "query 1 is already subscribed"),
        (ModifyQuerySet(1, 2, (), (9,)), "got 9, which is not subscribed"),
        (ModifyQuerySet(1, 2, (), (1, 1)), "the same query twice"),
    ],
)
def test_wrong_modifications_are_fatal(message: ModifyQuerySet, expected: str) -> None:
    assert expected in refused(opened(), ModifyQuerySet(0, 1, (query(1),), ()), message).message


def test_the_number_of_queries_is_bounded() -> None:
    session = opened()
    send(session, ModifyQuerySet(0, 1, tuple(map(query, range(1, 2001))), ()))
    send(session, ModifyQuerySet(1, 2, tuple(map(query, range(2001, QUERIES_MAX + 1))), ()))
    assert "more than" in refused(session, ModifyQuerySet(2, 3, (query(9999),), ())).message


def test_requests_rise_and_are_answered_once() -> None:
    session = opened()
    assert send(session, Mutation(3, "a:b", b"\x80"), Action(4, "a:c", b"\x80")) == [
        MutationRequested(3, "a:b", b"\x80", 0, 0),
        ActionRequested(4, "a:c", b"\x80"),
    ]
    assert session.awaits(3)
    answer = session.mutation_answer(3, 101, b"\x01", committed=True)
    assert decode_server_message(answer) == MutationAnswer(3, 101, b"\x01", None)
    failure = ErrorBody("internal_error", "no")
    assert decode_server_message(session.action_answer(4, None, failure)) == ActionAnswer(4, None, failure)
    assert not session.awaits(3)
    with pytest.raises(LocalProtocolError):
        session.mutation_answer(3, 101, b"\x01")
    with pytest.raises(LocalProtocolError):
        session.action_answer(4, b"\x01")
    assert "expected more than 4, got 4" in refused(session, Mutation(4, "a:b", b"\x80")).message


def test_pieces_are_counted_until_they_are_credited() -> None:
    session = opened()
    asked = send(session, Action(3, "a:b", b"\x80", 500), Action(4, "a:c", b"\x80", 10**9))
    assert asked == [
        ActionRequested(3, "a:b", b"\x80", 500),
        ActionRequested(4, "a:c", b"\x80", LIMITS.stream_window_bytes),
    ]
    assert decode_server_message(session.action_piece(3, b"\x01")) == ActionPiece(3, b"\x01")
    session.action_piece(3, b"\xa2ab")
    assert send(session, ActionCredit(3, 3), ActionCredit(3, 1)) == [
        ActionCredited(3, 3),
        ActionCredited(3, 1),
    ]
    session.action_answer(3, b"\xc0")
    assert send(session, ActionCredit(3, 9), CancelAction(3)) == [ActionCredited(3, 9), ActionCancelled(3)]
    with pytest.raises(LocalProtocolError):
        session.action_piece(3, b"\x01")
    assert "expected at most 0, got 1" in refused(session, ActionCredit(4, 1)).message


@pytest.mark.parametrize("message", [ActionCredit(4, 0), CancelAction(4)])
def test_what_was_never_asked_for_is_neither_credited_nor_cancelled(message: ClientMessage) -> None:
    assert "4 was never sent" in refused(opened(), Action(3, "a:b", b""), message).message


def test_a_stopping_server_still_hears_that_pieces_were_taken_or_are_not_wanted() -> None:
    session = opened()
    send(session, Action(3, "a:b", b"", 500))
    for message, event in ((ActionCredit(3, 0), ActionCredited(3, 0)), (CancelAction(3), ActionCancelled(3))):
        assert session.receive(encode_message(message), stopping=True) == [event]
    assert session.receive(encode_message(Action(4, "a:b", b"")), stopping=True) == []


def test_a_mutation_of_this_connection_is_told_from_one_that_may_be_a_resend() -> None:
    session = opened()
    assert send(session, Mutation(5, "a:b", b"", 3, 99), Mutation(6, "a:b", b"", 6, 100)) == [
        MutationRequested(5, "a:b", b"", 3, 99),
        MutationRequested(6, "a:b", b"", 6, None),
    ]
    assert "at most 7, got 8" in refused(session, Mutation(7, "a:b", b"", 8, 100)).message


def test_requests_without_an_answer_are_bounded() -> None:
    session = opened()
    send(session, *[Mutation(number, "a:b", b"") for number in range(REQUESTS_IN_FLIGHT_MAX)])
    session.mutation_answer(0, 1, b"\xc0")
    assert send(session, Action(10_000, "a:b", b""))
    assert "without an answer" in refused(session, Action(10_001, "a:b", b"")).message


def test_a_session_that_met_a_broken_rule_takes_nothing_more() -> None:
    session = opened()
    refused(session, ModifyQuerySet(7, 8, (), ()))
    with pytest.raises(LocalProtocolError, match="has ended"):
        session.receive(encode_message(Ping(1)))
    with pytest.raises(LocalProtocolError, match="broken, not open"):
        session.transition(100, [])
    assert session.fatal(ProtocolError("told"))


def test_rules_that_clients_rely_on_are_enforced_on_ourselves() -> None:
    session = opened()
    send(session, ModifyQuerySet(0, 1, (query(1),), ()), Mutation(1, "a:b", b""), Mutation(2, "a:b", b""))
    session.transition(100, [(1, VALUE)])
    with pytest.raises(LocalProtocolError, match="back to 99"):
        session.transition(99, [])
    with pytest.raises(LocalProtocolError, match="query 2"):
        session.transition(101, [(2, VALUE)])
    with pytest.raises(LocalProtocolError, match="behind the transition"):
        session.mutation_answer(1, 100, b"\xc0", committed=True)
    with pytest.raises(LocalProtocolError, match="either"):
        session.mutation_answer(1, 101, None)
    session.mutation_answer(1, 90, b"\xc0")
    session.mutation_answer(2, 101, b"\xc0", committed=True)
    assert session.version == Version(1, 0, 100)


def test_connections_that_stand_at_the_same_place_get_the_same_bytes_made_once() -> None:
    first, second, elsewhere, unasked = opened(), opened(), opened(), opened()
    send(first, ModifyQuerySet(0, 1, (query(1),), ()))
    send(second, ModifyQuerySet(0, 1, (query(1),), ()))
    send(elsewhere, ModifyQuerySet(0, 2, (query(1),), ()))
    for ts in (100, 101):
        same: SameTransitions = {}
        made = first.transition(ts, [(1, VALUE)], same)
        assert second.transition(ts, [(1, VALUE)], same) is made
        other = elsewhere.transition(ts, [(1, VALUE)], same)
        assert decode_server_message(other).end == Version(2, 0, ts)  # type: ignore[union-attr]
        assert decode_server_message(made).end == Version(1, 0, ts)  # type: ignore[union-attr]
        with pytest.raises(LocalProtocolError, match="query 1"):
            unasked.transition(ts, [(1, VALUE)], same)
    with pytest.raises(LocalProtocolError, match="back to 100"):
        second.transition(100, [(1, VALUE)], {})
    third, fourth, same = opened(), opened(), {}  # at the same version, on the way to another identity
    send(fourth, Authenticate(0, "token"))
    list(fourth.authenticated())
    third.transition(101, [], same)
    assert decode_server_message(fourth.transition(101, [], same)).end == Version(0, 1, 101)  # type: ignore[union-attr]
    send(second, ModifyQuerySet(1, 2, (), ()))
    same = {}
    assert first.transition(102, [], same) != second.transition(102, [], same)


def test_messages_behind_an_authenticate_wait_for_its_verdict() -> None:
    session = opened()
    mutation = Mutation(1, "a:b", b"")
    assert send(session, Authenticate(0, "token"), mutation, ModifyQuerySet(0, 1, (), ())) == [
        AuthenticateRequested(0, "token")
    ]
    assert decode_server_message(session.transition(100, [])).end == Version(0, 0, 100)  # type: ignore[union-attr]
    released = session.authenticated()
    assert decode_server_message(session.transition(100, [])).end == Version(0, 1, 100)  # type: ignore[union-attr]
    assert next(released) == MutationRequested(1, "a:b", b"", 0, 0)
    assert decode_server_message(session.transition(100, [])).end == Version(0, 1, 100)  # type: ignore[union-attr]
    assert next(released) == QuerySetModified((), ())
    assert list(released) == []
    assert decode_server_message(session.transition(100, [])).end == Version(1, 1, 100)  # type: ignore[union-attr]


def test_a_second_authenticate_holds_what_is_behind_it() -> None:
    session = opened()
    send(session, Authenticate(0, "bad"), Authenticate(1, "good"), Mutation(1, "a:b", b""))
    frame, released = session.authentication_refused("no")
    assert decode_server_message(frame) == AuthError(0, "no")
    assert list(released) == [AuthenticateRequested(1, "good")]
    assert list(session.authenticated()) == [MutationRequested(1, "a:b", b"", 0, 0)]
    assert decode_server_message(session.transition(5, [])).end == Version(0, 2, 5)  # type: ignore[union-attr]
    with pytest.raises(LocalProtocolError):
        session.authenticated()
    assert "expected 2, got 0" in refused(session, Authenticate(0, None)).message


def test_an_identity_that_is_lost_is_told_by_the_number_of_its_authenticate() -> None:
    session = opened()
    with pytest.raises(LocalProtocolError):
        session.identity_lost("it has ended")
    send(session, Authenticate(0, "good"))
    list(session.authenticated())
    send(session, Authenticate(1, "bad"))
    frame, _ = session.authentication_refused("no")
    assert decode_server_message(frame) == AuthError(1, "no")
    assert decode_server_message(session.identity_lost("it has ended")) == AuthError(0, "it has ended")
    assert decode_server_message(session.transition(5, [])).end == Version(0, 1, 5)  # type: ignore[union-attr]


def test_what_waits_for_a_verdict_is_bounded_in_number_and_bytes() -> None:
    many = [Mutation(number, "a", b"") for number in range(4)]
    error = refused(opened(), Authenticate(0, "t"), *many)
    assert error.code == "overloaded"
    assert close_code(error) == 1013
    assert refused(opened(), Authenticate(0, "t"), Mutation(0, "a", bytes(101))).code == "overloaded"


def test_a_held_message_that_breaks_the_protocol_ends_the_connection_when_its_turn_comes() -> None:
    session = opened()
    send(session, Authenticate(0, "t"), ModifyQuerySet(7, 8, (), ()))
    released = session.authenticated()
    with pytest.raises(ProtocolError, match="base"):
        next(released)


def test_heartbeats_are_answered_at_once_also_while_a_verdict_is_pending() -> None:
    session = opened()
    send(session, Authenticate(0, "t"))
    (event,) = send(session, Ping(5))
    assert isinstance(event, SendFrame)
    assert decode_server_message(event.frame) == Pong(5)
    assert send(session, Pong(6)) == [PongReceived(6)]


def test_a_server_that_stops_takes_heartbeats_and_nothing_else() -> None:
    session = opened()
    send(session, ModifyQuerySet(0, 1, (query(1),), ()))
    for message in (
        ModifyQuerySet(1, 2, (query(2),), (1,)),
        Mutation(1, "a:b", b"\x80"),
        Authenticate(0, None),
    ):
        assert session.receive(encode_message(message), stopping=True) == []
    (pong,) = session.receive(encode_message(Ping(7)), stopping=True)
    assert isinstance(pong, SendFrame)
    assert decode_server_message(pong.frame) == Pong(7)
    moved = decode_server_message(session.transition(101, [(1, VALUE)]))
    assert isinstance(moved, Transition)
    assert moved.end == Version(1, 0, 101), "it says nothing of what was not taken"


def test_ticks_ping_and_then_give_up() -> None:
    session = opened()
    found = [(second, event) for second in range(14) for event in session.tick(float(second))]
    pings = [second for second, event in found if isinstance(event, SendFrame)]
    assert pings[0] == 2
    assert found[-1] == (13, PeerSilent())
    assert next(second for second, event in found if event == PeerSilent()) == 12


def test_a_connection_that_never_says_connect_is_given_up_without_a_ping() -> None:
    session = ServerSession(LIMITS)
    assert [session.tick(float(second)) for second in range(13)] == [[]] * 12 + [[PeerSilent()]]


def test_after_fatal_nothing_is_taken_or_sent() -> None:
    session = opened()
    frame = session.fatal(TransientError("stopping", code="unavailable"))
    assert decode_server_message(frame) == FatalError(ErrorBody("unavailable", "stopping"))
    for late in (
        lambda: session.receive(encode_message(Ping(1))),
        lambda: session.transition(101, []),
        lambda: session.fatal(HeadwaterError()),
        session.ping,
    ):
        with pytest.raises(LocalProtocolError):
            late()


def test_errors_cross_with_their_data() -> None:
    session = opened()
    frame = session.fatal(ApplicationError({"a": 1}, message="m"))
    assert decode_server_message(frame) == FatalError(ErrorBody("application_error", "m", b"\x81\xa1a\x01"))
    assert close_code(ApplicationError()) == 1002
