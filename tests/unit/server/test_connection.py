"""Connections over a real hub, core and protocol session; sockets, mutations and workers are stood in for."""

from __future__ import annotations

import gc
import logging
import weakref
from typing import TYPE_CHECKING

import pytest
from headwater_protocol.errors import LocalProtocolError
from headwater_protocol.messages import (
    Action,
    ActionAnswer,
    ActionCredit,
    ActionPiece,
    AddQuery,
    Authenticate,
    AuthError,
    CancelAction,
    ClientMessage,
    Connect,
    ErrorBody,
    ModifyQuerySet,
    Mutation,
    MutationAnswer,
    Ping,
    Pong,
    Transition,
)
from headwater_protocol.values import pack_value
from headwater_server.functions.mutations import Decision
from headwater_server.reactive.moves import Moved
from support.hub_place import BUFFER, MemorySink, Place, say, subscribe

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater_server.net.connection import Connection

# ---------------------------------------------------------------------------------------- what is not read


def actions(number: int) -> ClientMessage:
    return Action(number, "n" * 100_000, b"\x80")


def pings(number: int) -> ClientMessage:
    return Ping(number)


def sign_ins(number: int) -> ClientMessage:
    return Authenticate(number, "token")


def test_signing_out_is_followed_by_a_transition_that_says_so() -> None:
    place = Place()
    connection, sink = place.client()
    say(connection, Authenticate(0, "token"), Authenticate(1, None), subscribe(1, "m:q"))
    refused, signed_out = sink.messages[1:3]
    assert isinstance(refused, AuthError)
    assert isinstance(signed_out, Transition)
    assert (signed_out.start.identity, signed_out.end.identity) == (0, 2)
    assert place.steps.rounds, "what came behind it was left out"


@pytest.mark.parametrize("message", [actions, pings, sign_ins])
def test_a_client_that_asks_and_does_not_read_is_cut_off(message: Callable[[int], ClientMessage]) -> None:
    place = Place()
    place.actions.refuses = True
    connection, sink = place.client()
    for number in range(5_000):
        say(connection, message(number))
        if sink.aborted:
            break
    assert sink.aborted
    assert sink.fatal is not None
    assert sink.fatal.code == "overloaded"
    assert sink.unsent < 7 * BUFFER
    assert len(place.hub) == 0
    place.steps.core.check()


def test_a_client_is_not_ended_for_a_large_transition_while_it_reads_it() -> None:
    place = Place()
    connection, sink = place.client()
    say(connection, subscribe(1, "m:q"))
    place.steps.open()
    place.steps.done(["x" * 100 * BUFFER])
    assert sink.unsent > 100 * BUFFER
    say(connection, *[Ping(number) for number in range(20)])
    assert isinstance(sink.messages[-1], Pong)
    assert connection.session is not None
    assert connection.session.blocked
    assert place.mutations.paused
    sink.unsent = 0
    place.hub.look_at_blocked()
    assert not connection.session.blocked
    assert not place.mutations.paused


def test_actions_are_answered_to_the_connection_that_asked_and_left_with_it() -> None:
    place = Place()
    connection, sink = place.client()
    say(connection, Action(1, "m:one", b"\x80"), Action(2, "m:two", b"\x80"))
    (_, _, one), (_, _, two) = place.actions.begun
    two.action_over(b"\x07", None)
    assert sink.messages[-1] == ActionAnswer(2, b"\x07", None)
    connection.lost()
    assert place.actions.left == ["m:one"]
    told = len(sink.messages)
    one.action_over(b"\x07", None)
    assert len(sink.messages) == told


def test_a_connection_that_has_ended_needs_no_collector_to_be_gone() -> None:
    """Cycles of 13 objects for each connection rose to megabytes between two full collections."""
    place = Place()
    connection, sink = place.client()
    say(connection, subscribe(1, "m:q"), Action(1, "m:one", b"\x80"))
    ((_, _, caller),) = place.actions.begun
    gone = weakref.ref(connection)
    gc.collect()
    gc.disable()
    try:
        connection.lost()
        caller.action_over(b"\x07", None)
        place.actions.begun.clear()
        del connection, caller, sink
        assert gone() is None
    finally:
        gc.enable()


def test_pieces_for_a_client_that_does_not_read_wait_and_keep_their_order() -> None:
    place = Place()
    connection, sink = place.client()
    say(connection, Action(1, "m:s", b"\x80", 10_000), subscribe(1, "m:q"))
    ((_, window, caller),) = place.actions.begun
    assert window == 10_000
    caller.action_piece(b"\x01")
    say(connection, ActionCredit(1, 1))
    assert place.actions.credits == [1]
    place.steps.open()
    place.steps.done(["x" * 2 * BUFFER])
    assert connection.stalled_since_s is not None
    told = len(sink.messages)
    for number in (2, 3):
        caller.action_piece(bytes([number]))
    caller.action_over(b"\xc0", None)
    assert len(sink.messages) == told
    sink.unsent = 0
    place.hub.look_at_blocked()
    pieces = [message for message in sink.messages[told:] if not isinstance(message, Transition)]
    assert pieces == [ActionPiece(1, b"\x02"), ActionPiece(1, b"\x03"), ActionAnswer(1, b"\xc0", None)]


def test_a_client_for_which_too_many_pieces_wait_is_ended() -> None:
    place = Place(kept_answers_bytes=5 * BUFFER)
    connection, sink = place.client()
    for number in range(20):
        say(connection, Action(number, "m:s", b"\x80", BUFFER))
    say(connection, subscribe(1, "m:q"))
    place.steps.open()
    place.steps.done(["x" * 2 * BUFFER])
    for _, _, caller in place.actions.begun:
        caller.action_piece(pack_value("x" * BUFFER))
    assert sink.fatal is not None
    assert sink.fatal.code == "overloaded"
    assert len(place.actions.left) == 20


def test_an_action_that_its_client_cancels_is_answered_all_the_same() -> None:
    place = Place()
    connection, sink = place.client()
    say(connection, Action(1, "m:s", b"\x80"), CancelAction(1))
    assert place.actions.left == ["m:s"]
    ((_, _, caller),) = place.actions.begun
    caller.action_over(None, ErrorBody("cancelled", "it was"))
    assert sink.messages[-1] == ActionAnswer(1, None, ErrorBody("cancelled", "it was"))
    say(connection, CancelAction(1))
    assert sink.fatal is None


def blocked(place: Place) -> tuple[Connection, MemorySink]:
    connection, sink = place.client()
    say(connection, subscribe(1, "m:q"), *[Mutation(number, "m:f", b"\x80") for number in range(20)])
    place.steps.open()
    place.steps.done(["x" * 2 * BUFFER])
    assert connection.session is not None
    assert connection.session.blocked
    return connection, sink


def commit(place: Place, connection: Connection, number: int, decision: Decision) -> None:
    assert connection.session is not None
    place.steps.commit(b"other", answers=[(connection.session, (number, decision), place.steps.ts + 1)])


@pytest.mark.parametrize("committed", [True, False])
def test_answers_kept_for_a_client_that_does_not_read_are_bounded_in_bytes(committed: bool) -> None:
    place = Place(kept_answers_bytes=10 * BUFFER)
    connection, sink = blocked(place)
    session = connection.session
    assert session is not None
    for number in range(20):
        decision = Decision(place.steps.ts + committed, b"\xc4" * 4 * BUFFER, None, committed=committed)
        if committed:
            commit(place, connection, number, decision)
        else:
            place.steps.core.answer(session, (number, decision), decision.ts)
        if sink.closed:
            break
        assert len(session.answers) <= 2
    assert sink.fatal is not None
    assert sink.fatal.code == "overloaded"
    assert not session.answers
    assert not sink.aborted, "it may read what is on its way"
    place.steps.core.check()


def test_what_was_kept_is_forgotten_once_it_is_read() -> None:
    place = Place(kept_answers_bytes=10 * BUFFER)
    connection, sink = blocked(place)
    for number in range(20):
        error = ErrorBody("application_error", "e" * 4 * BUFFER, None)
        commit(place, connection, number, Decision(place.steps.ts + 1, None, error, committed=True))
        if number % 2:
            sink.unsent = 0
            place.hub.look_at_blocked()
    sink.unsent = 0
    place.hub.look_at_blocked()
    assert sum(isinstance(message, MutationAnswer) for message in sink.messages) == 20
    assert sink.fatal is None


# ---------------------------------------------------------------------------------------- what is subscribed


@pytest.mark.parametrize(
    "query",
    [
        lambda number: subscribe(number, "m" * 3 * BUFFER),
        lambda number: subscribe(number, "m:q", b"a" * 10 * BUFFER),
        lambda number: subscribe(number, "m:q", journal=b"j" * 10 * BUFFER),
    ],
)
def test_the_queries_of_a_session_are_bounded_in_bytes(query: Callable[[int], ModifyQuerySet]) -> None:
    place = Place(subscribed_bytes=25 * BUFFER)
    connection, sink = place.client()
    say(connection, query(1), query(2))
    assert sink.fatal is None
    say(connection, query(3))
    assert sink.fatal is not None
    assert sink.fatal.code == "frame_too_large"
    assert str(25 * BUFFER) in sink.fatal.message
    assert sink.closed == 1009
    assert place.steps.core.live.by_key == {}


def test_a_query_that_was_removed_makes_room() -> None:
    place = Place(subscribed_bytes=25 * BUFFER)
    connection, sink = place.client()
    for number in range(1, 50):
        add = AddQuery(number, "m:q", bytes([number]) * 10 * BUFFER)
        say(connection, ModifyQuerySet(number - 1, number, (add,), (number - 2,) if number > 2 else ()))
    assert sink.fatal is None


def test_removals_that_no_transition_has_told_are_bounded() -> None:
    place = Place()
    connection, sink = place.client()
    for number in range(0, 20_000, 1_000):
        add = tuple(AddQuery(query, "m:q", b"\x80") for query in range(number + 1, number + 1_001))
        say(connection, ModifyQuerySet(2 * number, 2 * number + 1, add, ()))
        remove = tuple(range(number + 1, number + 1_001))
        blocked_session = connection.session
        if blocked_session is None:
            break
        place.steps.core.block(blocked_session)
        say(connection, ModifyQuerySet(2 * number + 1, 2 * number + 2_000, (), remove))
    assert sink.fatal is not None
    assert sink.fatal.code == "overloaded"


# ---------------------------------------------------------------------------------------- faults of ours


def test_a_fault_of_ours_is_logged_and_is_not_told_as_the_clients(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    place = Place()
    for fault in (LocalProtocolError("a rule of our own"), ValueError("a bug")):

        def fail(*_: object, fault: Exception = fault) -> None:
            raise fault

        with monkeypatch.context() as patched:
            patched.setattr(place.steps.core, "modify", fail)
            connection, sink = place.client()
            caplog.clear()
            say(connection, subscribe(1, "m:q"))
        assert sink.fatal is not None
        assert sink.fatal.code == "internal_error"
        assert str(fault) not in sink.fatal.message
        assert sink.closed == 1011
        [record] = caplog.records
        assert record.levelno == logging.ERROR
        assert record.exc_info is not None
        assert record.exc_info[1] is fault


def test_a_delivery_that_fails_ends_its_connection_and_not_the_step_of_the_core(
    caplog: pytest.LogCaptureFixture,
) -> None:
    place = Place()
    connection, sink = place.client(0)
    _, other = place.client(1)
    say(connection, subscribe(1, "m:q"))
    say(next(reversed(place.hub._connections)), subscribe(1, "m:q"))
    place.steps.open()
    place.steps.done([1])
    sink.fault = RuntimeError("the transport is broken")
    place.steps.commit(b"docs1")
    place.steps.open()
    place.steps.done([2])
    assert isinstance(other.messages[-1], Transition)
    assert connection.session is None
    assert sink.aborted
    assert len(place.hub) == 1
    assert all(record.exc_info for record in caplog.records)
    place.steps.core.check()


def test_a_transition_against_our_own_rules_does_not_escape() -> None:
    connection, sink = Place().client()
    connection.deliver([], Moved(5, []))
    connection.deliver([], Moved(4, []))
    assert sink.fatal is not None
    assert sink.fatal.code == "internal_error"


# ---------------------------------------------------------------------------------------- the hub


def test_sockets_beyond_twice_the_connections_are_cut_off_at_once() -> None:
    place = Place(connections_max=2)
    kept = [place.hub.accept(MemorySink()) for _ in range(4)]
    assert None not in kept
    assert place.hub.is_full
    sink = MemorySink()
    assert place.hub.accept(sink) is None
    assert sink.aborted
    assert len(place.hub) == 4
    assert kept[0] is not None
    kept[0].lost()
    assert place.hub.accept(MemorySink()) is not None


def test_clients_that_make_up_a_future_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    place = Place()
    for number in range(100):
        sink = MemorySink()
        connection = place.hub.accept(sink)
        assert connection is not None
        say(connection, Connect((1,), bytes([number]) * 16, 10_000 + number, None, "test"))
        assert sink.fatal is not None
        assert sink.fatal.message == f"{10_000 + number} is ahead"
        place.now_s += 1.0
    assert [record.message for record in caplog.records] == ["history_lost"] * 2
