"""Who a connection is: tokens are verified while its messages wait, and end; nobody gets what was another's."""

from __future__ import annotations

import asyncio
import heapq
from typing import TYPE_CHECKING, Any

import pytest
from headwater_protocol.manifest import ProviderManifest
from headwater_protocol.messages import (
    Action,
    ActionAnswer,
    Authenticate,
    AuthError,
    Connect,
    Mutation,
    MutationAnswer,
    Ping,
    Pong,
    Transition,
)
from headwater_protocol.server_events import AuthenticateRequested
from headwater_server.identity.claims import VerifiedToken
from headwater_server.identity.refusal import RefusedTokenError
from headwater_server.identity.sign_ins import Check, PassingTime, SignInLimits, SignIns
from headwater_server.observe.metrics import Metrics
from support.hub_place import WALL_S, MemorySink, Place, say, subscribe

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater_server.net.connection import Connection

PROVIDER = ProviderManifest("jwt", "https://id.example", "app", "{}", ("ES256",), ())


def verified(user: str, ends_s: float = 3600.0, email: str = "") -> VerifiedToken:
    return VerifiedToken(f"{user} {email}".encode(), f"id|{user}", WALL_S + ends_s, PROVIDER)


class Judge:
    """Verifies tokens when the test says so: by number of its turn, unless the token itself says how it ends."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.verdicts: dict[str, asyncio.Future[VerifiedToken]] = {}
        self.trusted = True
        self.running = 0
        self.running_max = 0

    async def verify(self, token: str) -> VerifiedToken:
        self.asked.append(token)
        self.running += 1
        self.running_max = max(self.running, self.running_max)
        future = self.verdicts.setdefault(token, asyncio.get_running_loop().create_future())
        try:
            return await future
        finally:
            self.running -= 1

    def trusts(self, verified: VerifiedToken) -> bool:
        return self.trusted

    async def accept(self, token: str, as_: VerifiedToken) -> None:
        await settle()
        self.verdicts[token].set_result(as_)
        await settle()

    async def refuse(self, token: str, *, may_pass_later: bool = False) -> None:
        await settle()
        self.verdicts[token].set_exception(RefusedTokenError("why", may_pass_later=may_pass_later))
        await settle()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def heard(sink: MemorySink) -> list[Any]:
    """Return what the client was sent since the last look."""
    messages, sink.messages = sink.messages, []
    sink.unsent = 0
    return messages


@pytest.fixture
def judge() -> Judge:
    return Judge()


@pytest.fixture
def place(judge: Judge) -> Place:
    return Place(judge)


def run_queries(place: Place, value: object, *, private: bool) -> list[bytes | None]:
    """Run what the core wants; return the identities it was run for."""
    asked = []
    while place.steps.rounds or place.steps.calls:
        while place.steps.calls:
            if place.steps.rounds:
                place.steps.open()
            asked.append(place.steps.calls[0][3])
            place.steps.done(value, private=private)
        if place.steps.rounds:
            place.steps.open()
    return asked


async def test_what_comes_behind_a_token_waits_for_its_verdict(place: Place, judge: Judge) -> None:
    connection, sink = place.client()
    say(connection, Authenticate(0, "ada"), Mutation(1, "m:f", b"\x80"), subscribe(1, "m:q"), Ping(7))
    assert heard(sink)[1:] == [Pong(7)], "heartbeats go on"
    assert place.mutations.asked == []
    await judge.accept("ada", verified("ada"))
    assert place.mutations.asked == [(1, "id|ada")]
    assert run_queries(place, 1, private=True) == [b"ada "]
    assert [message.end.identity for message in heard(sink) if isinstance(message, Transition)] == [1, 1]


async def test_one_that_is_refused_is_told_only_that_and_changes_nothing(place: Place, judge: Judge) -> None:
    connection, sink = place.client()
    say(connection, Authenticate(0, "ada"))
    await judge.accept("ada", verified("ada"))
    heard(sink)
    say(connection, Authenticate(1, "bad"), Mutation(1, "m:f", b"\x80"))
    await judge.refuse("bad")
    assert heard(sink) == [AuthError(1, "the token was refused")]
    assert place.mutations.asked == [(1, "id|ada")]


async def test_a_refreshed_token_runs_nothing_again_and_is_followed_by_a_transition(
    place: Place, judge: Judge
) -> None:
    connection, sink = place.client()
    say(connection, Authenticate(0, "first"), subscribe(1, "m:q"))
    await judge.accept("first", verified("ada"))
    run_queries(place, 1, private=True)
    heard(sink)
    say(connection, Authenticate(1, "second"))
    await judge.accept("second", verified("ada", 7200))
    (moved,) = heard(sink)
    assert isinstance(moved, Transition)
    assert (moved.end.identity, moved.changes) == (2, ())
    assert run_queries(place, 1, private=True) == []
    place.now_s = 3601
    place.sign_ins.look()
    assert heard(sink) == [], "the first one's end is of no account any more"


async def test_another_user_gets_runs_of_their_own_and_a_query_of_nobodys_does_not_run_again(
    place: Place, judge: Judge
) -> None:
    connection, _ = place.client()
    say(connection, Authenticate(0, "ada"), subscribe(1, "m:private"))
    await judge.accept("ada", verified("ada"))
    assert run_queries(place, "ada's", private=True) == [b"ada "]
    say(connection, subscribe(2, "m:shared"))
    run_queries(place, "everybody's", private=False)
    say(connection, Authenticate(1, "bob"))
    await judge.accept("bob", verified("bob"))
    assert run_queries(place, "bob's", private=True) == [b"bob "], "one query alone"
    say(connection, Authenticate(2, None))
    assert run_queries(place, "nobody's", private=True) == [None]


async def test_a_token_that_ends_takes_the_identity_along(place: Place, judge: Judge) -> None:
    connection, sink = place.client()
    say(connection, Authenticate(0, "ada"), subscribe(1, "m:q"))
    await judge.accept("ada", verified("ada", 100))
    run_queries(place, "ada's", private=True)
    heard(sink)
    place.now_s = 99
    place.sign_ins.look()
    assert heard(sink) == []
    place.now_s = 100
    place.sign_ins.look()
    assert run_queries(place, "nobody's", private=True) == [None]
    told, moved = heard(sink)
    assert told == AuthError(0, "the token does not hold any more")
    assert isinstance(moved, Transition)
    assert moved.end.identity == 1
    assert connection.verified is None


async def test_calls_of_a_user_whose_token_has_ended_are_not_run_as_nobodys(
    place: Place, judge: Judge
) -> None:
    connection, sink = place.client()
    say(connection, Authenticate(0, "ada"))
    await judge.accept("ada", verified("ada", 100))
    place.now_s = 101
    place.sign_ins.look()
    heard(sink)
    say(connection, Mutation(1, "m:f", b"\x80", 1, place.steps.ts))
    (answer, _) = heard(sink)
    assert isinstance(answer, MutationAnswer)
    assert answer.error is not None
    assert answer.error.code == "unauthenticated"
    say(connection, Authenticate(1, "bad"))
    await judge.refuse("bad")
    say(connection, Mutation(2, "m:f", b"\x80", 1, place.steps.ts))
    say(connection, Authenticate(2, "fresh"), Mutation(3, "m:f", b"\x80", 3, place.steps.ts))
    await judge.accept("fresh", verified("ada"))
    assert place.mutations.asked == [(3, "id|ada")]


async def test_actions_run_as_the_user_and_not_at_all_once_their_token_has_ended(
    place: Place, judge: Judge
) -> None:
    connection, sink = place.client()
    say(connection, Authenticate(0, "ada"), Action(1, "m:a", b"\x80"))
    await judge.accept("ada", verified("ada", 100))
    assert place.actions.identities == [b"ada "]
    place.now_s = 101
    place.sign_ins.look()
    say(connection, Action(2, "m:a", b"\x80"))
    answer = heard(sink)[-1]
    assert isinstance(answer, ActionAnswer)
    assert answer.error is not None
    assert (answer.request, answer.error.code) == (2, "unauthenticated")
    say(connection, Authenticate(1, None), Action(3, "m:a", b"\x80"))
    assert place.actions.identities == [b"ada ", None]


async def test_where_such_a_call_may_have_taken_effect_before_the_connection_ends(
    place: Place, judge: Judge
) -> None:
    place.steps.commit(b"k")
    connection, sink = place.client()
    say(connection, Authenticate(0, "ada"))
    await judge.accept("ada", verified("ada", 100))
    place.now_s = 101
    place.sign_ins.look()
    say(connection, Mutation(1, "m:f", b"\x80", 1, 0))
    assert sink.fatal is not None
    assert sink.fatal.code == "unavailable"
    assert place.mutations.asked == []


async def test_a_deploy_that_removes_a_provider_takes_the_identities_of_its_users(
    place: Place, judge: Judge
) -> None:
    connection, sink = place.client()
    say(connection, Authenticate(0, "ada"))
    await judge.accept("ada", verified("ada"))
    late, late_sink = place.client(1)
    say(late, Authenticate(0, "late"))
    await settle()
    heard(sink)
    place.sign_ins.providers_changed()
    place.sign_ins.look()
    assert heard(sink) == [], "the provider is still there"
    judge.trusted = False
    place.sign_ins.providers_changed()
    place.sign_ins.look()
    assert heard(sink)[0] == AuthError(0, "the token does not hold any more")
    await judge.accept("late", verified("bob"))
    assert heard(late_sink)[-1] == AuthError(0, "the token was refused"), "it was verified before the deploy"


async def test_keys_that_cannot_be_had_sign_nobody_out(place: Place, judge: Judge) -> None:
    connection, sink = place.client()
    say(connection, Authenticate(0, "ada"))
    await judge.refuse("ada", may_pass_later=True)
    assert sink.fatal is not None
    assert sink.fatal.code == "unavailable"


# ------------------------------------------------------------------------------------------- ends of connections


def socket_ends(_: Place, connection: Connection) -> None:
    connection.lost()


def another_takes_over(place: Place, connection: Connection) -> None:
    sink = MemorySink()
    other = place.hub.accept(sink)
    assert other is not None
    say(other, Connect((1,), connection.session_id, 0, None, "test"))


def server_drains(place: Place, _: Connection) -> None:
    place.hub.drain()


@pytest.mark.parametrize("ends", [socket_ends, another_takes_over, server_drains])
async def test_a_connection_that_ends_during_verification_is_nobodys(
    place: Place, judge: Judge, ends: Callable[[Place, Connection], None]
) -> None:
    connection, _ = place.client()
    say(connection, Authenticate(0, "ada"), Mutation(1, "m:f", b"\x80"))
    await settle()
    ends(place, connection)
    await settle()
    assert judge.running == 0, "nobody waits for it"
    assert place.sign_ins.pending == 0
    assert place.mutations.asked == []
    assert connection.verified is None
    place.steps.core.check()


async def test_a_server_that_begins_nothing_more_takes_no_verdict(place: Place, judge: Judge) -> None:
    connection, _ = place.client()
    say(connection, Authenticate(0, "ada"), Mutation(1, "m:f", b"\x80"))
    place.hub.refuse_new()
    await judge.accept("ada", verified("ada"))
    assert place.mutations.asked == []


async def test_another_connection_of_the_session_is_nobody_until_it_signs_in(
    place: Place, judge: Judge
) -> None:
    connection, _ = place.client()
    say(connection, Authenticate(0, "ada"), subscribe(1, "m:q"))
    await judge.accept("ada", verified("ada"))
    assert run_queries(place, "ada's", private=True) == [b"ada "]
    sink = MemorySink()
    other = place.hub.accept(sink)
    assert other is not None
    say(other, Connect((1,), connection.session_id, 0, None, "test"), subscribe(1, "m:q"))
    assert run_queries(place, "nobody's", private=True) == [None]
    say(other, Mutation(1, "m:f", b"\x80"))
    assert place.mutations.asked == [(1, None)]


async def test_a_token_that_ends_after_its_connection_does_no_harm(place: Place, judge: Judge) -> None:
    connection, _ = place.client()
    say(connection, Authenticate(0, "ada"))
    await judge.accept("ada", verified("ada", 100))
    connection.lost()
    place.now_s = 200
    place.sign_ins.look()


# ------------------------------------------------------------------------------------------- bounds


class SignInsByHand:
    """Sign-ins whose pauses the test ends."""

    def __init__(self, judge: Judge, **limits: Any) -> None:
        self.now_s = 0.0
        self.pauses: list[tuple[float, int, Callable[[], None]]] = []
        self.ended: list[tuple[str, bool]] = []
        metrics = Metrics().identity
        self.sign_ins = SignIns(
            judge, SignInLimits(**limits), metrics, lambda: self.now_s, lambda: self.now_s, later=self.later
        )

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self.pauses, (self.now_s + seconds, len(self.pauses), action))

    def begin(self, token: str, pace: Any) -> Any:
        return self.sign_ins.begin(token, pace, lambda who, _: self.ended.append((token, who is not None)))

    def until(self, now_s: float) -> None:
        while self.pauses and self.pauses[0][0] <= now_s:
            self.now_s, _, action = heapq.heappop(self.pauses)
            action()
        self.now_s = now_s


async def test_only_so_many_tokens_are_verified_at_a_time(judge: Judge) -> None:
    hand = SignInsByHand(judge, checks_max=3)
    for number in range(10):
        hand.begin(str(number), hand.sign_ins.pace())
    await settle()
    assert judge.asked == ["0", "1", "2"]
    for number in range(10):
        await judge.accept(str(number), verified("ada"))
    assert hand.ended == [(str(number), True) for number in range(10)]
    assert judge.running_max == 3


async def test_a_client_has_only_so_many_verified_in_a_minute(judge: Judge) -> None:
    hand = SignInsByHand(judge, per_minute=6)
    flood, other = hand.sign_ins.pace(), hand.sign_ins.pace()
    for number in range(12):
        hand.begin(f"flood {number}", flood)
    hand.begin("other", other)
    await settle()
    assert len(judge.asked) == 7, "the others are not held up"
    hand.until(30)
    await settle()
    assert len(judge.asked) == 10
    hand.until(120)
    await settle()
    assert len(judge.asked) == 13
    hand.begin("later", flood)
    await settle()
    assert judge.asked[-1] == "later"


async def test_a_check_whose_client_is_gone_is_never_begun(judge: Judge) -> None:
    hand = SignInsByHand(judge, checks_max=1, per_minute=1)
    pace = hand.sign_ins.pace()
    hand.begin("first", hand.sign_ins.pace())
    waits, paced = hand.begin("waits", pace), hand.begin("paced", pace)
    waits.cancel()
    paced.cancel()
    hand.until(120)
    await judge.accept("first", verified("ada"))
    assert judge.asked == ["first"]
    assert hand.ended == [("first", True)]


async def test_clients_that_are_gone_before_their_check_takes_its_first_step_leave_its_place(
    place: Place, judge: Judge
) -> None:
    for number in [*range(2, 256)] * 2:
        connection, _ = place.client(number)
        say(connection, Authenticate(0, "token"))
        connection.refuse("garbage, in the same packet")
    await settle()
    assert judge.asked == [], "as cheap as that"
    assert place.sign_ins.pending == 0
    connection, _ = place.client(1)
    say(connection, Authenticate(0, "ada"))
    await judge.accept("ada", verified("ada"))
    assert connection.verified is not None


async def test_as_many_sign_outs_as_may_wait_behind_a_token_are_handled(place: Place, judge: Judge) -> None:
    connection, sink = place.client()
    say(connection, Authenticate(0, "ada"), *[Authenticate(base, None) for base in range(1, 1001)])
    say(connection, Mutation(1, "m:f", b"\x80"), Authenticate(1001, "bob"), Mutation(2, "m:f", b"\x80"))
    await judge.accept("ada", verified("ada"))
    assert not sink.closed
    assert place.mutations.asked == [(1, None)]
    await judge.accept("bob", verified("bob"))
    assert place.mutations.asked == [(1, None), (2, "id|bob")]


def test_nothing_that_holds_a_token_shows_it() -> None:
    """Such things stand in traces, and in what asyncio says of its tasks and their callbacks."""
    check = Check("s3cret", lambda who, later: None)
    for holder in (Authenticate(0, "s3cret"), AuthenticateRequested(0, "s3cret"), check):
        assert "s3cret" not in repr(holder)


async def test_a_verification_that_takes_too_long_gives_its_place_to_others(judge: Judge) -> None:
    hand = SignInsByHand(judge, checks_max=1, check_s=0.01)
    hand.begin("slow", hand.sign_ins.pace())
    hand.begin("next", hand.sign_ins.pace())
    async with asyncio.timeout(10):
        while len(hand.ended) < 2:
            await asyncio.sleep(0.001)
    assert hand.ended == [("slow", False), ("next", False)]
    assert judge.running == 0


async def test_a_verifier_that_fails_refuses(judge: Judge, caplog: pytest.LogCaptureFixture) -> None:
    hand = SignInsByHand(judge)
    hand.begin("bad", hand.sign_ins.pace())
    await settle()
    judge.verdicts["bad"].set_exception(ZeroDivisionError())
    await settle()
    assert hand.ended == [("bad", False)]
    assert "token_check_failed" in caplog.text


async def test_tokens_that_were_replaced_are_not_kept_until_their_end(judge: Judge) -> None:
    hand = SignInsByHand(judge)

    class Holder:
        verified: VerifiedToken | None = None

        def lose_identity(self) -> None:
            raise AssertionError("its token holds")

    holder = Holder()
    for _ in range(10_000):
        holder.verified = verified("ada")
        hand.sign_ins.watch(holder, holder.verified)
    assert len(hand.sign_ins._ends) < 200


@pytest.mark.parametrize(
    ("mono_s", "wall_s", "passed_s"),
    [
        pytest.param(10, 10, 10, id="both go"),
        pytest.param(10, -1000, 10, id="the wall clock is set back"),
        pytest.param(1, 600, 600, id="the machine slept, or the wall clock was set ahead"),
    ],
)
def test_no_clock_lengthens_a_tokens_life(mono_s: float, wall_s: float, passed_s: float) -> None:
    clocks = {"mono": 5.0, "wall": WALL_S}
    passed = PassingTime(lambda: clocks["mono"], lambda: clocks["wall"])
    clocks["mono"] += mono_s
    clocks["wall"] += wall_s
    assert passed() == pytest.approx(passed_s)
    clocks["mono"] += 1
    assert passed() == pytest.approx(passed_s + 1)
