"""Where a connection treats clients of Convex otherwise than our own: faults, answers of actions, floods."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from headwater_protocol.messages import ErrorBody
from headwater_protocol.messages import Mutation as OurMutation
from headwater_server.functions.mutations import Decision, MutationCall
from headwater_server.worker.messages import Request
from support.hub_place import Place, convex_client, say, tell

if TYPE_CHECKING:
    from headwater_server.net.connection import Connection


def mutate(connection: Connection, request: int) -> None:
    tell(connection, "Mutation", requestId=request, udfPath="m:f", args=[{}])


def call(number: int) -> MutationCall:
    request = Request(b"s" * 16, number, b"proof", 0, None)
    return MutationCall("m:f", b"\x80", None, internal=False, decided=lambda *_: None, request=request)


@pytest.mark.parametrize("code", ["overloaded", "conflict", "unavailable", "no_bundle", "disk_full"])
def test_a_fault_of_the_system_ends_the_connection_and_is_no_answer(code: str) -> None:
    place = Place()
    connection, sink = convex_client(place)
    mutate(connection, 0)
    connection.receive_decision(call(0), Decision(1, None, ErrorBody(code, "later")))
    assert (sink.messages, sink.closed) == ([], 1013)
    ours, our_sink = place.client(7)
    say(ours, OurMutation(0, "m:f", b"\x80"))
    ours.receive_decision(call(0), Decision(1, None, ErrorBody(code, "later")))
    assert our_sink.closed is None


def test_a_number_that_stood_for_another_call_is_answered_since_the_client_cannot_take_another_session() -> (
    None
):
    place = Place()
    connection, sink = convex_client(place)
    mutate(connection, 0)
    decision = Decision(1, None, ErrorBody("session_in_use", "taken"))
    connection.receive_decision(call(0), decision)
    assert sink.closed is None
    assert [(m["type"], m.get("success")) for m in sink.messages] == [
        ("MutationResponse", False),
        ("Transition", None),
    ]
    ours, our_sink = place.client(7)
    say(ours, OurMutation(0, "m:f", b"\x80"))
    ours.receive_decision(call(0), decision)
    assert our_sink.closed == 4002


def test_a_transition_follows_the_answer_of_an_action() -> None:
    place = Place()
    connection, sink = convex_client(place)
    tell(connection, "Action", requestId=0, udfPath="m:a", args=[{}])
    ((_, _, caller),) = place.actions.begun
    caller.action_over(b"\xc0", None)
    assert [m["type"] for m in sink.messages] == ["ActionResponse", "Transition"]


def test_no_more_is_taken_of_a_client_that_has_much_in_flight_until_something_is_answered() -> None:
    place = Place()
    connection, _ = convex_client(place)
    offered: list[None] = []
    connection.has_room = lambda: offered.append(None)
    for request in range(256):
        assert not connection.is_full
        mutate(connection, request)
    assert connection.is_full
    assert not offered
    connection.receive_decision(call(3), Decision(1, b"\xc0", None))
    assert not connection.is_full
    assert offered
    connection.lost()
    assert connection.has_room is None
