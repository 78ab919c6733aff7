from __future__ import annotations

from typing import Any

import pytest
from headwater_protocol.client_events import (
    ActionResolved,
    Fatal,
    Moved,
    MutationResolved,
    Opened,
    PeerSilent,
    PieceArrived,
    QueryFailed,
    ValueChanged,
)
from headwater_protocol.client_session import ClientSession
from headwater_protocol.codec import decode_client_message
from headwater_protocol.errors import (
    HeadwaterError,
    LocalProtocolError,
    ProtocolError,
    RequestError,
    TransientError,
)
from headwater_protocol.limits import QUERIES_MAX, REQUESTS_IN_FLIGHT_MAX
from headwater_protocol.messages import (
    Action,
    ActionAnswer,
    ActionCredit,
    ActionPiece,
    AddQuery,
    AuthError,
    CancelAction,
    Change,
    Connect,
    Delta,
    ErrorBody,
    Failed,
    FatalError,
    ModifyQuerySet,
    Mutation,
    MutationAnswer,
    Ping,
    Pong,
    Removed,
    ServerMessage,
    Transition,
    Unchanged,
    Value,
    Version,
    Welcome,
)
from headwater_protocol.values import pack_value
from support.told_session import ARGUMENTS, LOG, SESSION, move, open_it, opened, sent, tell, value

REFUSED = ErrorBody("application_error", "refused", pack_value({"why": "no"}))


def test_a_connection_begins_with_connect_and_an_empty_query_set() -> None:
    client = ClientSession(SESSION, "test")
    client.connect()
    assert sent(client) == [Connect((1,), SESSION, 0, None, "test")]
    assert not client.is_open
    assert tell(client, Welcome(1, LOG, 100, 1 << 20, 4_000)) == [Opened(LOG, 100)]
    assert sent(client) == [ModifyQuerySet(0, 1, (), ())]
    assert client.is_open
    assert not client.settled
    assert move(client, 100) == [Moved(100)]
    assert client.settled
    assert client.heartbeat_s == 4.0


def test_values_deltas_failures() -> None:
    client = opened()
    query = client.subscribe("a:b", ARGUMENTS)
    assert sent(client) == [ModifyQuerySet(1, 2, (AddQuery(query, "a:b", ARGUMENTS),), ())]
    assert move(client, 100, q1=value([1, 2])) == [ValueChanged(1, [1, 2]), Moved(100)]
    delta = Delta(pack_value([0, [[0, 1, 1], [1, [3]]]]), b"e")
    assert move(client, 101, q1=delta) == [ValueChanged(1, [2, 3]), Moved(101)]
    failed, moved = move(client, 102, q1=Failed(REFUSED))
    assert isinstance(failed, QueryFailed)
    assert failed.error.data == {"why": "no"}
    assert moved == Moved(102)
    with pytest.raises(ProtocolError, match="no value"):
        move(client, 103, q1=delta)


def test_changes_for_a_query_that_was_removed_meanwhile_are_ignored() -> None:
    client = opened()
    client.subscribe("a:b", ARGUMENTS)
    sent(client)
    client.unsubscribe(1)
    assert sent(client)[-1] == ModifyQuerySet(2, 3, (), (1,))
    assert move(client, 100, query_set=2, q1=value(1)) == [Moved(100)]
    assert move(client, 101, q1=Removed()) == [Moved(101)]


def test_a_success_resolves_when_a_transition_covers_it() -> None:
    client = opened()
    move(client, 100)
    request = client.mutate("a:m", ARGUMENTS)
    assert sent(client) == [Mutation(request, "a:m", ARGUMENTS, request, 100)]
    assert tell(client, MutationAnswer(request, 105, pack_value("done"), None)) == []
    assert move(client, 104) == [Moved(104)]
    assert client.in_flight == 1
    assert move(client, 105) == [Moved(105), MutationResolved(request, "done", None)]
    assert client.in_flight == 0


def test_what_values_hold_already_resolves_at_once_and_failures_do_too() -> None:
    client = opened()
    move(client, 100)
    old, failing = client.mutate("a:m", ARGUMENTS), client.mutate("a:m", ARGUMENTS)
    assert tell(client, MutationAnswer(old, 100, pack_value(None), None)) == [
        MutationResolved(old, None, None)
    ]
    (event,) = tell(client, MutationAnswer(failing, 500, None, REFUSED))
    assert event.request == failing
    assert event.error.code == "application_error"
    assert event.error.data == {"why": "no"}


def test_what_is_subscribed_to_together_travels_together_and_before_what_follows() -> None:
    client = opened()
    for number in range(1, 4):
        client.subscribe("m:q", bytes([0x91, number]))
    client.unsubscribe(2)
    request = client.mutate("m:f", b"\x80")
    client.subscribe("m:q", b"\x91\x04")
    client.unsubscribe(1)
    client.unsubscribe(4)
    first, mutation, second = sent(client)
    assert first == ModifyQuerySet(
        1, 2, (AddQuery(1, "m:q", b"\x91\x01"), AddQuery(3, "m:q", b"\x91\x03")), ()
    ), "the server has never heard of the second"
    assert isinstance(mutation, Mutation)
    assert mutation.request == request
    assert second == ModifyQuerySet(2, 3, (), (1,))
    assert not sent(client)


def test_what_is_too_much_for_one_message_travels_in_several() -> None:
    client = opened()
    arguments = bytes(700_000)
    client.subscribe("m:q", arguments)
    client.subscribe("m:q", arguments + b"1")
    assert [(message.base, message.new, len(message.add)) for message in sent(client)] == [
        (1, 2, 1),
        (2, 3, 1),
    ]


def test_undecided_mutations_are_sent_again_and_answered_ones_are_not() -> None:
    client = opened()
    first, second, third = (client.mutate(f"a:{n}", ARGUMENTS) for n in "xyz")
    tell(client, MutationAnswer(first, 105, pack_value(1), None))
    tell(client, MutationAnswer(second, 0, pack_value(2), None))
    assert client.disconnected() == []
    later = client.mutate("a:late", ARGUMENTS)
    open_it(client)
    assert [m.request for m in sent(client) if isinstance(m, Mutation)] == [third, later]
    assert move(client, 106) == [Moved(106), MutationResolved(first, 1, None)]
    assert not client.settled
    tell(client, MutationAnswer(third, 100, pack_value(3), None))
    assert not client.settled, "a call made before the reconnect has no answer"
    tell(client, MutationAnswer(later, 100, pack_value(3), None))
    assert client.settled


def test_a_transition_without_the_resumed_queries_covers_nothing() -> None:
    client = opened()
    client.subscribe("a:b", ARGUMENTS)
    request = client.mutate("a:m", ARGUMENTS)
    move(client, 100, q1=value(1))
    tell(client, MutationAnswer(request, 105, pack_value(None), None))
    client.disconnected()
    open_it(client)
    assert move(client, 105, query_set=0) == []
    assert client.last_ts == 100
    changed = move(client, 105, q1=value(2))
    assert changed == [ValueChanged(1, 2), Moved(105), MutationResolved(request, None, None)]


def test_actions_are_never_sent_twice() -> None:
    client = opened()
    lost = client.act("a:act", ARGUMENTS)
    done = client.act("a:act", ARGUMENTS)
    assert tell(client, ActionAnswer(done, pack_value(7), None)) == [ActionResolved(done, 7, None)]
    (event,) = client.disconnected()
    assert isinstance(event, ActionResolved)
    assert event.request == lost
    assert event.error is not None
    assert event.error.code == "connection_lost"
    waiting = client.act("a:act", ARGUMENTS)
    open_it(client)
    assert [m for m in sent(client) if isinstance(m, Action)] == [Action(waiting, "a:act", ARGUMENTS)]


def streaming(window: int = 1000, frame_limit_bytes: int = 1 << 20) -> ClientSession:
    client = ClientSession(SESSION, "test")
    client.connect()
    tell(client, Welcome(1, LOG, 100, frame_limit_bytes, 4_000, window))
    sent(client)
    return client


def test_pieces_come_before_the_end_and_are_credited_when_they_are_taken() -> None:
    client = streaming()
    request = client.act("a:act", ARGUMENTS, 1000)
    assert sent(client) == [Action(request, "a:act", ARGUMENTS, 1000)]
    piece = pack_value("word")
    assert tell(client, ActionPiece(request, piece)) == [PieceArrived(request, "word", len(piece))]
    assert sent(client) == []
    client.take(request, len(piece))
    assert sent(client) == [ActionCredit(request, len(piece))]
    assert tell(client, ActionAnswer(request, b"\xc0", None)) == [ActionResolved(request, None, None)]
    client.take(request, 1)
    assert sent(client) == [], "it is over"


def test_an_action_that_is_abandoned_is_cancelled_and_its_pieces_are_dropped() -> None:
    client = streaming()
    request = client.act("a:act", ARGUMENTS, 1000)
    sent(client)
    client.abandon(request)
    assert sent(client) == [CancelAction(request)]
    assert tell(client, ActionPiece(request, b"\x01"), ActionAnswer(request, b"\xc0", None)) == []


def test_a_server_without_streams_is_sent_nothing_it_does_not_know() -> None:
    client = opened()
    request = client.act("a:act", ARGUMENTS)
    assert client.take_frames() == [b"\x94\x04\x01\xa5a:act\xc4\x04" + ARGUMENTS]
    client.abandon(request)
    assert sent(client) == []


def test_a_cut_ends_a_stream() -> None:
    client = streaming()
    request = client.act("a:act", ARGUMENTS, 1000)
    sent(client)
    tell(client, ActionPiece(request, b"\x01"))
    (event,) = client.disconnected()
    assert isinstance(event, ActionResolved)
    assert event.error is not None
    assert event.error.code == "connection_lost"
    client.take(request, 1)
    open_it(client)
    assert not any(isinstance(message, Action | ActionCredit) for message in sent(client))


def test_a_piece_that_nobody_asked_for_breaks_the_protocol() -> None:
    client = streaming()
    request = client.act("a:act", ARGUMENTS)
    for number in (request, request + 1):
        with pytest.raises(ProtocolError, match="does not wait"):
            tell(client, ActionPiece(number, b"\x01"))


def test_resuming_brings_journals_and_digests_and_unchanged_keeps_the_value() -> None:
    client = opened()
    client.subscribe("a:b", ARGUMENTS)
    client.subscribe("a:c", ARGUMENTS)
    client.subscribe("a:d", ARGUMENTS)
    rows = Value(pack_value([1]), b"d1", b"journal")
    move(client, 100, q1=rows, q2=Failed(REFUSED))
    client.disconnected()
    client.connect()
    assert sent(client) == [Connect((1,), SESSION, 100, LOG, "test")]
    tell(client, Welcome(1, LOG, 100, 1 << 20, 4_000))
    assert sent(client) == [
        ModifyQuerySet(
            0,
            1,
            (
                AddQuery(1, "a:b", ARGUMENTS, b"journal", b"d1"),
                AddQuery(2, "a:c", ARGUMENTS),
                AddQuery(3, "a:d", ARGUMENTS),
            ),
            (),
        )
    ]
    assert move(client, 100, q1=Unchanged(b"d1", b"j2"), q2=value(5)) == [ValueChanged(2, 5), Moved(100)]
    assert move(client, 101, q1=Delta(pack_value([0, [[0, 0, 1], [1, [2]]]]), b"d2"))[0] == ValueChanged(
        1, [1, 2]
    )


@pytest.mark.parametrize(
    ("start", "end", "changes", "expected"),
    [
        ((1, 0, 99), (1, 0, 101), (), "start"),
        ((0, 0, 100), (1, 0, 101), (), "start"),
        ((1, 0, 100), (1, 0, 99), (), "expected ts 100 or later"),
        ((1, 0, 100), (2, 0, 101), (), "query set 2 was never sent"),
        ((1, 0, 100), (0, 0, 101), (), "query set 0"),
        ((1, 0, 100), (1, 1, 101), (), "identity 1 was never sent"),
        ((1, 0, 100), (1, 0, 101), ((9, value(1)),), "query 9"),
        ((1, 0, 100), (1, 0, 101), ((1, value(1)), (1, value(2))), "query 1 comes twice"),
        ((1, 0, 100), (1, 0, 101), ((1, Unchanged(b"other")),), "unchanged"),
        ((1, 0, 100), (1, 0, 101), ((1, value(5)), (2, Value(b"\xc1", b"d"))), "value"),
    ],
)
def test_a_wrong_transition_is_refused_whole_and_values_are_fetched_anew(
    start: tuple[int, int, int], end: tuple[int, int, int], changes: tuple[Any, ...], expected: str
) -> None:
    client = ClientSession(SESSION, "test")
    client.subscribe("a:b", ARGUMENTS)
    client.subscribe("a:c", ARGUMENTS)
    open_it(client)
    move(client, 100, q1=value([1], b"d1"), q2=value([2], b"d2"))
    message = Transition(Version(*start), Version(*end), tuple(Change(*change) for change in changes))
    with pytest.raises(ProtocolError, match=expected):
        tell(client, message)
    assert client.version == Version(1, 0, 100)
    client.disconnected()
    open_it(client)
    (modify,) = sent(client)
    assert isinstance(modify, ModifyQuerySet)
    assert [added.digest for added in modify.add] == [None, None]


def test_ts_never_goes_back_across_connections() -> None:
    client = opened()
    move(client, 100)
    client.disconnected()
    open_it(client, ts=50)
    with pytest.raises(ProtocolError, match="100 or later"):
        move(client, 99)


@pytest.mark.parametrize(
    "answer",
    [
        MutationAnswer(9, 1, b"\xc0", None),
        MutationAnswer(2, 1, b"\xc0", None),
        ActionAnswer(1, b"\xc0", None),
        MutationAnswer(1, 1, None, None),
        MutationAnswer(1, 1, b"\xc0", REFUSED),
        MutationAnswer(1, 1, b"\xc1", None),
        MutationAnswer(1, 1, None, ErrorBody("application_error", "", b"\xc1")),
        Welcome(1, LOG, 1, 1 << 20, 1000),
        AuthError(0, "no"),
    ],
)
def test_answers_nobody_asked_for_are_refused_and_change_nothing(answer: ServerMessage) -> None:
    client = opened()
    client.mutate("a:m", ARGUMENTS)
    client.act("a:a", ARGUMENTS)
    with pytest.raises(ProtocolError):
        tell(client, answer)
    assert client.in_flight == 2


def test_an_answer_comes_once_per_connection() -> None:
    client = opened()
    client.mutate("a:m", ARGUMENTS)
    tell(client, MutationAnswer(1, 500, b"\xc0", None))
    with pytest.raises(ProtocolError, match="does not wait"):
        tell(client, MutationAnswer(1, 500, b"\xc0", None))


def test_an_abandoned_request_is_forgotten_and_its_answer_ignored() -> None:
    client = opened()
    request = client.mutate("a:m", ARGUMENTS)
    client.abandon(request)
    assert client.in_flight == 0
    assert tell(client, MutationAnswer(request, 1, b"\xc0", None)) == []
    again = client.mutate("a:m", ARGUMENTS)
    client.abandon(again)
    client.disconnected()
    never = client.mutate("a:m", ARGUMENTS)
    client.abandon(never)
    open_it(client)
    assert not [m for m in sent(client) if isinstance(m, Mutation)]
    lost = client.mutate("a:m", ARGUMENTS)
    client.disconnected()
    client.abandon(lost)
    open_it(client)
    with pytest.raises(ProtocolError, match="does not wait"):
        tell(client, MutationAnswer(lost, 1, b"\xc0", None))


def test_calls_too_large_for_the_server_are_refused_alone() -> None:
    client = ClientSession(SESSION, "test")
    query, big_query = client.subscribe("a:b", ARGUMENTS), client.subscribe("a:b", bytes(200_000))
    small, big = client.mutate("a:m", ARGUMENTS), client.mutate("a:m", bytes(200_000))
    _, failed, resolved = open_it(client, frame_limit_bytes=100_000)
    assert isinstance(failed, QueryFailed)
    assert (failed.query, failed.error.code) == (big_query, "frame_too_large")
    assert isinstance(resolved, MutationResolved)
    assert (resolved.request, resolved.error and resolved.error.code) == (big, "frame_too_large")
    modify, mutation = sent(client)
    assert modify == ModifyQuerySet(0, 1, (AddQuery(query, "a:b", ARGUMENTS),), ())
    assert mutation == Mutation(small, "a:m", ARGUMENTS, small, 100)
    client.unsubscribe(big_query)
    assert sent(client) == []
    with pytest.raises(RequestError):
        client.mutate("a:m", bytes(100_000))
    with pytest.raises(RequestError):
        client.subscribe("a:m", bytes(100_000))


def test_a_large_query_set_is_resumed_in_several_messages() -> None:
    client = ClientSession(SESSION, "test")
    for _ in range(5):
        client.subscribe("a:b", bytes(40_000))
    client.connect()
    sent(client)
    tell(client, Welcome(1, LOG, 1, 100_000, 4_000))
    frames = client.take_frames()
    assert [len(frame) < 100_000 for frame in frames] == [True] * 3
    modifications = [decode_client_message(frame) for frame in frames]
    assert [m.add[0].query for m in modifications if isinstance(m, ModifyQuerySet)] == [1, 3, 5]
    move(client, 100, query_set=2)
    assert not client.settled
    assert client.last_ts == 0
    move(client, 100)
    assert client.settled


def test_what_a_caller_can_have_outstanding_is_bounded() -> None:
    client = ClientSession(SESSION, "test")
    for _ in range(REQUESTS_IN_FLIGHT_MAX):
        client.mutate("a:m", b"")
    with pytest.raises(TransientError) as caught:
        client.act("a:m", b"")
    assert caught.value.code == "overloaded"
    for _ in range(QUERIES_MAX):
        client.subscribe("a:b", b"")
    with pytest.raises(TransientError):
        client.subscribe("a:b", b"")


def test_fatal_errors_say_whether_to_come_back() -> None:
    client = opened()
    for code, again in [
        ("overloaded", True),
        ("session_in_use", True),
        ("internal_error", True),
        ("new", True),
    ]:
        (event,) = tell(client, FatalError(ErrorBody(code, "m")))
        assert isinstance(event, Fatal)
        assert event.reconnect is again
    for code in ("unsupported_version", "protocol_error", "unauthenticated", "frame_too_large"):
        (event,) = tell(client, FatalError(ErrorBody(code, "m")))
        assert isinstance(event, Fatal)
        assert not event.reconnect
        assert event.error.code == code


def test_a_session_in_use_is_renewed_and_unsure_mutations_are_not_repeated() -> None:
    client = opened()
    unsure = client.mutate("a:m", ARGUMENTS)
    answered = client.mutate("a:m", ARGUMENTS)
    tell(client, MutationAnswer(answered, 500, b"\xc0", None))
    with pytest.raises(LocalProtocolError):
        client.renew(b"t" * 16)
    client.disconnected()
    fresh = client.mutate("a:m", ARGUMENTS)
    (event,) = client.renew(b"t" * 16)
    assert isinstance(event, MutationResolved)
    assert event.request == unsure
    assert event.error is not None
    assert event.error.code == "outcome_unknown"
    client.connect()
    (connect,) = sent(client)
    assert isinstance(connect, Connect)
    assert connect.session == b"t" * 16
    tell(client, Welcome(1, LOG, 1, 1 << 20, 1000))
    assert [m.request for m in sent(client) if isinstance(m, Mutation)] == [fresh]


def test_heartbeat() -> None:
    client = opened()
    assert tell(client, Ping(5)) == []
    assert sent(client) == [Pong(5)]
    assert tell(client, Pong(5)) == []
    found = [(second, event) for second in range(13) for event in client.tick(float(second))]
    assert found == [(12, PeerSilent())]
    assert isinstance(sent(client)[0], Ping)
    client.disconnected()
    assert client.tick(99.0) == []


def test_a_server_that_does_not_greet_is_refused_or_given_up() -> None:
    client = ClientSession(SESSION, "test")
    client.connect()
    with pytest.raises(ProtocolError, match="expected Welcome first"):
        tell(client, Ping(1))
    with pytest.raises(ProtocolError, match="version"):
        tell(client, Welcome(2, LOG, 1, 1 << 20, 1000))
    with pytest.raises(ProtocolError, match="frame_limit_bytes"):
        tell(client, Welcome(1, LOG, 1, 5, 1000))
    assert client.tick(0.0) == []
    assert client.tick(20.0) == [PeerSilent()]


def test_misuse_is_a_fault_of_our_own() -> None:
    with pytest.raises(LocalProtocolError):
        ClientSession(b"short", "test")
    client = ClientSession(SESSION, "test")
    with pytest.raises(LocalProtocolError):
        client.receive(b"")
    client.connect()
    with pytest.raises(LocalProtocolError):
        client.connect()
    with pytest.raises(HeadwaterError):
        client.receive(b"")


def test_a_mutation_tells_what_the_server_may_forget() -> None:
    client = opened()
    numbers = [client.mutate("a:m", ARGUMENTS) for _ in range(3)]
    assert [m.forget_below for m in sent(client) if isinstance(m, Mutation)] == [numbers[0]] * 3
    tell(client, MutationAnswer(numbers[1], 105, b"\xc0", None))  # held until a transition covers it
    client.mutate("a:m", ARGUMENTS)
    tell(client, MutationAnswer(numbers[0], 1, None, REFUSED))
    client.mutate("a:m", ARGUMENTS)
    client.abandon(numbers[2])
    last = client.mutate("a:m", ARGUMENTS)
    below = [m.forget_below for m in sent(client) if isinstance(m, Mutation)]
    assert below == [numbers[0], numbers[2], last - 2]


def test_a_resend_tells_what_the_session_had_seen_when_it_was_first_sent() -> None:
    client = opened()
    first = client.mutate("a:m", ARGUMENTS)
    move(client, 150)
    second = client.mutate("a:m", ARGUMENTS)
    assert [m.sent_ts for m in sent(client) if isinstance(m, Mutation)] == [100, 150]
    client.disconnected()
    third = client.mutate("a:m", ARGUMENTS)
    open_it(client, ts=200)
    again = [(m.request, m.sent_ts) for m in sent(client) if isinstance(m, Mutation)]
    assert again == [(first, 100), (second, 150), (third, 200)]
