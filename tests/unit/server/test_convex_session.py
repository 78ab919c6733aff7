"""The pure session of Convex's clients: what its messages become, what it may be asked, and when it says something by itself."""

from __future__ import annotations

import itertools
import json
import tracemalloc
from typing import Any

import pytest
from headwater_protocol.codec import encode_change_body
from headwater_protocol.errors import (
    InternalError,
    LocalProtocolError,
    ProtocolError,
    RequestError,
    TransientError,
)
from headwater_protocol.limits import ServerLimits
from headwater_protocol.messages import AddQuery, ErrorBody, Failed, Removed, Value
from headwater_protocol.server_events import (
    ActionRequested,
    AuthenticateRequested,
    Connected,
    KeyOffered,
    MutationRequested,
    QuerySetModified,
    SendFrame,
)
from headwater_protocol.values import pack_value
from headwater_server.convex import session as sessions
from headwater_server.convex.bodies import JsonBodies
from headwater_server.convex.messages import time_text
from headwater_server.convex.session import PING_S, RESENDING_S, ConvexSession
from headwater_server.json_bounds import JSON_VALUES_MAX

LIMITS = ServerLimits(held_messages_max=3, held_bytes_max=2_000)
SESSION = "d38b0c93-0000-4000-8000-000000000001"


def message(kind: str, **fields: Any) -> bytes:
    return json.dumps({"type": kind, **fields}).encode()


def connect(**more: Any) -> bytes:
    return message("Connect", sessionId=SESSION, connectionCount=0, lastCloseReason=None, clientTs=0, **more)


def opened(bodies: JsonBodies | None = None, **more: Any) -> ConvexSession:
    session = ConvexSession(LIMITS, bodies or JsonBodies(1 << 20))
    (event,) = session.receive(connect(**more))
    assert isinstance(event, Connected)
    assert session.welcome(b"i" * 16, 5) is None
    return session


def modify(base: int, *changes: dict[str, Any]) -> bytes:
    return message("ModifyQuerySet", baseVersion=base, newVersion=base + 1, modifications=changes)


def add(query: int, path: str = "m:q", **more: Any) -> dict[str, Any]:
    return {"type": "Add", "queryId": query, "udfPath": path, "args": [{}], **more}


def mutation(request: int, path: str = "m:f", args: Any = None) -> bytes:
    return message("Mutation", requestId=request, udfPath=path, args=[args or {}])


def value_body(value: Any, journal: bytes | None = None) -> bytes:
    return encode_change_body(Value(pack_value(value), b"d" * 16, journal))


def test_messages_become_the_events_of_our_own_protocol() -> None:
    session = opened()
    assert session.receive(modify(0, add(0, "dir/m.js:q", journal="AAE="), add(7, "m"))) == [
        QuerySetModified(
            (AddQuery(0, "dir/m:q", b"\x80", b"\x00\x01"), AddQuery(7, "m:default", b"\x80")), ()
        )
    ]
    assert session.receive(modify(1, {"type": "Remove", "queryId": 0}, add(0), add(1), {"type": "Remove", "queryId": 1})) == [
        QuerySetModified((AddQuery(0, "m:q", b"\x80"),), (0,))
    ]  # fmt: skip
    assert session.receive(mutation(3, args={"n": 2.0})) == [
        MutationRequested(3, "m:f", b"\x81\xa1n\x02", 0, None)
    ]
    action = message("Action", requestId=4, udfPath="m:a", args=[{}], componentPath="c", unknown=1)
    assert session.receive(action) == [ActionRequested(4, "c/m:a", b"\x80")]
    assert session.receive(message("Event", eventType="ClientConnect", event={})) == []
    assert session.in_flight == 2


def test_a_transition_begins_where_the_last_one_ended() -> None:
    session = opened()
    session.receive(modify(0, add(0), add(1)))
    failed = encode_change_body(Failed(ErrorBody("invalid_cursor", "old")))
    first = json.loads(session.transition(9, [(0, value_body([1], b"\xff")), (1, failed)]))
    assert first["startVersion"] == {"querySet": 0, "identity": 0, "ts": time_text(0)}
    assert first["endVersion"] == {"querySet": 1, "identity": 0, "ts": time_text(9)}
    updated, broken = first["modifications"]
    assert updated == {"type": "QueryUpdated", "queryId": 0, "value": [1], "logLines": [], "journal": "/w=="}
    assert broken.keys() == {"type", "queryId", "errorMessage", "logLines", "journal"}
    assert "\nInvalidCursor: old" in broken["errorMessage"]
    session.receive(modify(1, {"type": "Remove", "queryId": 0}))
    second = json.loads(session.transition(9, [(0, encode_change_body(Removed()))]))
    assert second["startVersion"] == first["endVersion"]
    assert second["endVersion"]["querySet"] == 2
    assert second["modifications"] == [{"type": "QueryRemoved", "queryId": 0}]
    with pytest.raises(LocalProtocolError, match="back to 8"):
        session.transition(8, [])
    with pytest.raises(LocalProtocolError, match="not subscribed"):
        session.transition(10, [(0, value_body(1))])


def test_equal_transitions_and_results_are_made_once() -> None:
    bodies = JsonBodies(1 << 20)
    one, two, three = opened(bodies), opened(bodies), opened(bodies)
    for session in (one, two):
        session.receive(modify(0, add(0)))
    three.receive(modify(0, add(5)))
    same: dict[Any, Any] = {}
    body = value_body({"rows": [1, 2]})
    assert one.transition(9, [(0, body)], same) is two.transition(9, [(0, body)], same)
    assert one.transition(10, [], {}) is not two.transition(10, [], {})
    held = bodies.held_bytes
    assert b'"queryId":5' in three.transition(9, [(5, body)])
    assert bodies.held_bytes == held
    assert bodies.text(body) is bodies.text(value_body({"rows": [1, 2]}))


def test_results_are_held_within_bounds() -> None:
    bodies = JsonBodies(10_000)
    for number in range(100):
        bodies.text(value_body("x" * 500 + str(number)))
        assert bodies.held_bytes <= 10_000
    large = value_body("x" * 50_000)
    assert bodies.text(large) is bodies.text(large)


def test_an_answer_may_not_come_behind_a_transition_that_shows_it() -> None:
    session = opened()
    session.receive(mutation(0))
    session.transition(9, [])
    with pytest.raises(LocalProtocolError, match="behind the transition"):
        session.mutation_answer(0, 9, b"\xc0", committed=True)
    assert session.awaits(0)
    assert json.loads(session.mutation_answer(0, 10, b"\xc0", committed=True))["ts"] == time_text(10)
    with pytest.raises(LocalProtocolError, match="does not wait"):
        session.mutation_answer(0, 10, b"\xc0")


@pytest.mark.parametrize(
    ("error", "head", "data"),
    [
        (ErrorBody("application_error", "", pack_value({"a": 1})), 'Uncaught ConvexError: {"a":1}', {"a": 1}),
        (ErrorBody("application_error", "full", None), "Uncaught ConvexError: full", None),
        (ErrorBody("invalid_arguments", "no"), "ArgumentValidationError: no", ...),
        (
            ErrorBody("internal_error", "Oops: x [request id ab12]\nTraceback"),
            "Uncaught Oops: x\nTraceback",
            ...,
        ),
        (ErrorBody("unique_violation", "twice"), "unique_violation: twice", ...),
    ],
)
def test_errors_are_told_as_the_clients_read_them(error: ErrorBody, head: str, data: Any) -> None:
    session = opened()
    session.receive(mutation(0))
    session.receive(message("Action", requestId=1, udfPath="m:a", args=[{}]))
    for text in (session.mutation_answer(0, 5, None, error), session.action_answer(1, None, error)):
        told = json.loads(text)
        assert told["success"] is False
        assert told["result"].startswith("[Request ID: ")
        assert f"] Server Error\n{head}" in told["result"]
        assert told.get("errorData", ...) == data


def test_a_fault_in_production_shows_its_request_id_alone() -> None:
    session = opened()
    session.receive(mutation(0))
    told = session.mutation_answer(0, 5, None, ErrorBody("internal_error", "Server error [request id ab12]"))
    assert json.loads(told)["result"] == "[Request ID: ab12] Server Error"


def test_it_says_something_every_ten_seconds_or_so_and_hears_nothing() -> None:
    found = [1.0, *pings(opened())]
    assert len(found) > 10
    assert all(PING_S <= later - earlier <= PING_S + 1 for earlier, later in itertools.pairwise(found))
    busy = opened()
    busy.tick(1.0)
    for second in range(2, 100):
        busy.transition(second, [])
        assert busy.tick(float(second)) == []


class _Mute(ConvexSession):
    def tick(self, now_mono: float) -> list[Any]:
        return []


def test_a_session_that_says_nothing_is_found() -> None:
    mute = _Mute(LIMITS, JsonBodies(1 << 20))
    mute.receive(connect())
    mute.welcome(b"i" * 16, 5)
    assert pings(mute) == []


def pings(session: ConvexSession) -> list[float]:
    """Return when it sends a ping within two minutes in which nothing else happens."""
    found = []
    for second in range(1, 120):
        for event in session.tick(float(second)):
            assert event == SendFrame(b'{"type":"Ping"}')
            found.append(float(second))
    return found


# ---------------------------------------------------------------------------------------- sending again


def test_what_was_sent_before_says_what_its_session_had_seen() -> None:
    session = opened(maxObservedTimestamp=time_text(40))
    session.tick(100.0)
    (event,) = session.receive(mutation(0))
    assert event == MutationRequested(0, "m:f", b"\x80", 0, 40)
    session.transition(50, [])  # it may overtake what is on its way
    (event,) = session.receive(mutation(1))
    assert event == MutationRequested(1, "m:f", b"\x80", 0, 40)
    session.receive(message("Authenticate", baseVersion=0, tokenType="User", value="t"))
    assert session.receive(mutation(2)) == []
    session.tick(100.0 + RESENDING_S)
    (event,) = session.authenticated()  # it came before
    assert event == MutationRequested(2, "m:f", b"\x80", 0, 40)
    (event,) = session.receive(mutation(3))
    assert event == MutationRequested(3, "m:f", b"\x80", 0, None)


def test_a_client_that_has_seen_nothing_sends_for_the_first_time() -> None:
    (event,) = opened().receive(mutation(0))
    assert event == MutationRequested(0, "m:f", b"\x80", 0, None)


def test_nothing_is_begun_while_the_server_stops() -> None:
    session = opened()
    assert session.receive(mutation(0), stopping=True) == []
    assert session.receive(mutation(0)) != []


# ---------------------------------------------------------------------------------------- who it is


def test_what_comes_behind_a_token_waits_for_its_verdict() -> None:
    session = opened()
    (event,) = session.receive(message("Authenticate", baseVersion=0, tokenType="User", value="t"))
    assert event == AuthenticateRequested(0, "t")
    assert session.receive(modify(0, add(0))) == []
    assert session.receive(message("Authenticate", baseVersion=1, tokenType="None")) == []
    released = session.authenticated()
    assert isinstance(next(released), QuerySetModified)
    assert next(released) == AuthenticateRequested(1, None)
    assert list(released) == []
    assert list(session.authenticated()) == []
    assert json.loads(session.transition(5, []))["endVersion"] == {
        "querySet": 1,
        "identity": 2,
        "ts": time_text(5),
    }


def test_keys_are_offered_with_the_user_to_be() -> None:
    session = opened()
    offered = message(
        "Authenticate", baseVersion=0, tokenType="Admin", value="k", impersonating={"subject": "a"}
    )
    (event,) = session.receive(offered)
    assert event == KeyOffered(0, "k", {"subject": "a"})
    assert "k" not in repr(event).replace("KeyOffered", "").replace("claims", "")


def test_refusals_name_the_authentication_before() -> None:
    session = opened()
    session.receive(message("Authenticate", baseVersion=0, tokenType="User", value="t"))
    text, waiting = session.authentication_refused("no")
    assert json.loads(text) == {
        "type": "AuthError",
        "error": "no",
        "baseVersion": 0,
        "authUpdateAttempted": True,
    }
    assert list(waiting) == []
    session = opened()
    session.receive(message("Authenticate", baseVersion=0, tokenType="User", value="t"))
    assert list(session.authenticated()) == []
    told = json.loads(session.identity_lost("over"))
    assert (told["baseVersion"], told["authUpdateAttempted"]) == (1, False)


# ---------------------------------------------------------------------------------------- bounds and ends


def test_what_waits_behind_a_token_is_bounded() -> None:
    for size, count in ((10, 4), (2 << 20, 1)):
        session = opened()
        session.receive(message("Authenticate", baseVersion=0, tokenType="User", value="t"))
        for number in range(count - 1):
            session.receive(mutation(number, args={"x": "y" * size}))
        with pytest.raises(ProtocolError) as refused:
            session.receive(mutation(count, args={"x": "y" * size}))
        assert refused.value.code == "overloaded"
        assert session.fatal(refused.value) is None


def test_a_message_is_measured_before_it_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = ConvexSession(LIMITS, JsonBodies(1))
    monkeypatch.setattr(sessions, "decode_message", lambda text: pytest.fail("it was parsed"))
    with pytest.raises(ProtocolError) as refused:
        fresh.receive(b"x" * 65_537)
    assert refused.value.code == "frame_too_large"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff",
        b"[]",
        b'{"type":"Mutation","requestId":0.5,"udfPath":"m:f","args":[{}]}',
        b'{"type":"Mutation","requestId":9007199254740992,"udfPath":"m:f","args":[{}]}',
        b'{"type":"Mutation","requestId":0,"udfPath":"m:f","args":[{"x":"\\ud800"}]}',
        b'{"type":"ModifyQuerySet","baseVersion":0,"newVersion":0,"modifications":[]}',
        b'{"type":"ModifyQuerySet","baseVersion":0,"newVersion":1,"modifications":[{"type":"Remove","queryId":1}]}',
        b'{"type":"Connect","sessionId":"d38b0c93-0000-4000-8000-000000000001"}',
    ],
)
def test_what_no_client_sends_ends_the_connection_for_good(text: bytes) -> None:
    session = opened()
    with pytest.raises(ProtocolError) as refused:
        session.receive(text)
    last = session.fatal(refused.value)
    assert last is not None
    assert json.loads(last)["type"] == "FatalError"
    with pytest.raises(LocalProtocolError):
        session.receive(mutation(0))


def test_too_many_queries_and_requests_out_of_order_are_refused() -> None:
    session = opened()
    with pytest.raises(ProtocolError, match="more than 4096"):
        session.receive(modify(0, *[add(number) for number in range(4_097)]))
    session = opened()
    session.receive(mutation(4))
    with pytest.raises(ProtocolError, match="expected more than 4"):
        session.receive(mutation(4))


def test_arguments_that_are_none_are_answered() -> None:
    session = opened()
    for request, args in enumerate([{"x": {"$integer": "!"}}, {"x": nested(70)}]):
        (event,) = session.receive(mutation(request, args=args))
        assert isinstance(event, SendFrame)
        assert json.loads(event.frame)["success"] is False
        assert not session.awaits(request)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (TransientError("full", code="overloaded"), 1013, "TooManyConcurrentRequests: full"),
        (TransientError("stopping"), 1013, "stopping"),
        (TransientError("lost", code="conflict"), 1013, "TooManyConcurrentRequests: lost"),
        (InternalError(), 1011, "InternalServerError"),
        (RequestError("no", code="unauthenticated"), 1000, "AuthError"),
    ],
)
def test_other_ends_are_told_by_their_close_code_alone(error: Any, code: int, reason: str) -> None:
    session = opened()
    assert session.fatal(error) is None
    assert session.closing(error) == (code, reason)


@pytest.mark.parametrize(
    ("text", "is_refused"),
    [
        ("[" + ",".join(["[]"] * (JSON_VALUES_MAX // 2)) + "]", True),
        ("[" + ",".join(["1"] * (JSON_VALUES_MAX + 1)) + "]", True),
        ("[" + ",".join(["1"] * (JSON_VALUES_MAX - 8)) + "]", False),
        ("[" + ",".join(['"' + ',[{' * 100 + '"'] * 10_000) + "]", False),
        ('"' + ',' * (2 * JSON_VALUES_MAX) + '"', False),
        ('"' + r'\\\",' * JSON_VALUES_MAX + '"', False),
        ('{"x":"' + "\\\\" + '","y":[' + ",".join(["{}"] * JSON_VALUES_MAX) + "]}", True),
        ("[" + ",".join(['"a"'] * (3 * JSON_VALUES_MAX)) + "]", True),
    ],
)  # fmt: skip
def test_a_message_of_too_many_values_is_refused_before_they_are_made(text: str, is_refused: bool) -> None:
    session = opened()
    session.frame_limit_bytes = len(text) + 1000
    whole = b'{"type":"Mutation","requestId":0,"udfPath":"m:f","args":[{"v":%b}]}' % text.encode()
    if not is_refused:
        ((event,), _) = session.receive(whole), json.loads(whole)
        assert isinstance(event, MutationRequested)
        return
    with pytest.raises(ProtocolError, match="values") as refused:
        session.receive(whole)
    assert refused.value.code == "frame_too_large"


def test_a_query_whose_arguments_are_none_fails_by_itself_and_can_be_left() -> None:
    """A `FatalError` would end the application."""
    session = opened()
    deep: Any = 0
    for _ in range(70):
        deep = [deep]
    wrong = [{**add(number), "args": [args]} for number, args in ((1, {"a": deep}), (2, {"$integer": 5}))]
    assert session.receive(modify(0, add(0), *wrong)) == [
        QuerySetModified((AddQuery(0, "m:q", b"\x80"),), ())
    ]
    shared: dict[Any, Any] = {}
    first = json.loads(session.transition(9, [(0, value_body(1))], shared))
    assert [(change["queryId"], change["type"]) for change in first["modifications"]] == [
        (0, "QueryUpdated"),
        (1, "QueryFailed"),
        (2, "QueryFailed"),
    ]
    assert "ArgumentValidationError: more than 64" in first["modifications"][1]["errorMessage"]
    assert not shared, "others have no such queries"
    assert json.loads(session.transition(10, []))["modifications"] == []
    assert session.receive(modify(1, {"type": "Remove", "queryId": 1}, {"type": "Remove", "queryId": 2}, add(2))) == [
        QuerySetModified((AddQuery(2, "m:q", b"\x80"),), ())
    ]  # fmt: skip
    last = json.loads(session.transition(11, [(2, value_body(2))]))
    assert [(change["queryId"], change["type"]) for change in last["modifications"]] == [
        (2, "QueryUpdated"),
        (1, "QueryRemoved"),
    ]
    assert session.receive(modify(2, {"type": "Remove", "queryId": 2})) == [QuerySetModified((), (2,))]


def test_queries_that_come_and_go_unseen_leave_nothing() -> None:
    session = opened()
    for number in range(50):
        session.receive(modify(2 * number, {**add(number), "args": [{"$integer": 5}]}))
        session.receive(modify(2 * number + 1, {"type": "Remove", "queryId": number}))
    assert json.loads(session.transition(9, []))["modifications"] == []


def test_what_waits_behind_an_authentication_takes_no_more_memory_than_was_counted() -> None:
    session = ConvexSession(ServerLimits(), JsonBodies(1 << 20))
    session.receive(connect())
    session.welcome(b"i" * 16, 5)
    session.receive(message("Authenticate", tokenType="User", value="token", baseVersion=0))
    text = b"[" + b",".join([b"[]"] * 100_000) + b"]"
    frames = [
        b'{"type":"Mutation","requestId":%d,"udfPath":"m:f","args":[{"v":%b}]}' % (number, text)
        for number in range(4)
    ]
    tracemalloc.start()
    try:
        for frame in frames:
            assert session.receive(bytes(bytearray(frame))) == []
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held_bytes < 2 * sum(map(len, frames))
    events = list(session.authenticated())
    assert [event.request for event in events if isinstance(event, MutationRequested)] == [0, 1, 2, 3]
