"""What one address and one user may have open and ask for, on a clock that is moved by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from headwater_protocol.errors import TransientError
from headwater_protocol.messages import (
    Action,
    ActionAnswer,
    ModifyQuerySet,
    Mutation,
    MutationAnswer,
)
from headwater_protocol.values import unpack_value
from headwater_server.net.admission import Admission, AdmissionLimits, Arrival, Place
from headwater_server.net.client_address import TrustedProxies
from headwater_server.net.token_bucket import Rate
from headwater_server.observe.metrics import Metrics
from support import hub_place
from support.hub_place import say, subscribe

if TYPE_CHECKING:
    from headwater_server.net.admission import Account, Seat

STRANGER = "203.0.113.7"


class Clocked:
    """An admission and the clock that it looks at."""

    def __init__(self, **limits: Any) -> None:
        self.now_s = 0.0
        self.metrics = Metrics()
        self.admission = Admission(AdmissionLimits(**limits), self.metrics.limits, lambda: self.now_s)

    def arrive(self, peer: str = STRANGER, place: Place = Place.SESSION) -> Arrival | TransientError:
        return self.admission.arrive(peer, place)

    def let_in(self, peer: str = STRANGER, place: Place = Place.SESSION) -> Arrival:
        arrival = self.arrive(peer, place)
        assert isinstance(arrival, Arrival)
        return arrival

    def refusals(self, limit: str) -> float:
        found = self.metrics.registry.get_sample_value("headwater_limit_refusals_total", {"limit": limit})
        return found or 0.0


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses for documentation, of which no real one is a client's, count as public."""
    monkeypatch.setattr("ipaddress.IPv4Address.is_global", property(lambda address: not address.is_loopback))


pytestmark = pytest.mark.usefixtures("public")


def wait_of(refusal: object) -> float:
    assert isinstance(refusal, TransientError)
    assert refusal.code == "rate_limited"
    told: float = refusal.data["retry_after_s"]
    return told


def test_places_are_counted_for_each_address_and_kind_and_given_back() -> None:
    clocked = Clocked(places={Place.SESSION: 2, Place.HTTP: 1})
    seats: list[Seat] = [clocked.let_in().seat for _ in range(2)]
    assert wait_of(clocked.arrive()) == 1
    clocked.let_in(place=Place.HTTP)
    assert wait_of(clocked.arrive(place=Place.HTTP)) == 1
    clocked.let_in("203.0.113.8")
    seats[0].leave()
    seats[0].leave()
    clocked.let_in()
    assert wait_of(clocked.arrive()) == 1
    assert clocked.refusals("address_sessions_limit") == 2
    assert clocked.refusals("address_http_connections_limit") == 1


def test_all_of_a_subscribers_network_is_one_address() -> None:
    clocked = Clocked(places={Place.SESSION: 1})
    clocked.let_in("2a00:1450:4001:8::1")
    wait_of(clocked.arrive("2a00:1450:4001:8:ffff::2"))
    clocked.let_in("2a00:1450:4001:9::1")


def test_new_connections_come_at_a_rate() -> None:
    clocked = Clocked(connections=Rate(2, 2))
    for _ in range(4):
        clocked.let_in().seat.leave()
    assert wait_of(clocked.arrive()) == 0.5
    clocked.let_in("203.0.113.8")
    clocked.now_s = 0.5
    clocked.let_in()
    assert wait_of(clocked.arrive()) == 0.5


def test_private_addresses_are_not_counted_unless_that_is_said() -> None:
    clocked = Clocked(places={Place.SESSION: 1}, connections=Rate(1, 1))
    for _ in range(5):
        assert clocked.let_in("127.0.0.1").account is None
    counted = Clocked(places={Place.SESSION: 1}, private_counted=True)
    counted.let_in("127.0.0.1")
    wait_of(counted.arrive("127.0.0.1"))


def test_of_a_trusted_proxy_its_clients_are_counted() -> None:
    clocked = Clocked(requests=Rate(1, 1), proxies=TrustedProxies.parse("127.0.0.1"), private_counted=True)
    arrival = clocked.let_in("127.0.0.1")
    assert arrival.forwards
    assert arrival.account is None
    assert clocked.admission.account_behind([]) is None
    account = clocked.admission.account_behind(["198.51.100.9, 203.0.113.7"])
    assert account is not None
    assert account.name == STRANGER
    assert account is clocked.admission.account_behind(["10.0.0.1, 203.0.113.7"])
    assert clocked.admission.client_behind(["203.0.113.7"]) == STRANGER


def test_a_user_has_a_rate_of_all_their_addresses_together() -> None:
    clocked = Clocked(user_requests=Rate(2, 1))
    ask, user = clocked.admission.ask, clocked.admission.user
    first = clocked.let_in().account
    second = clocked.let_in("203.0.113.8").account
    assert ask(first, user("ada")) is None
    assert ask(second, user("ada")) is None
    assert wait_of(ask(first, user("ada"))) == 0.5
    assert ask(first, user("bob")) is None
    assert clocked.refusals("user_requests_limit_per_second") == 1


def test_what_the_user_is_refused_is_not_taken_from_the_address() -> None:
    clocked = Clocked(requests=Rate(3, 1), user_requests=Rate(1, 1))
    account, user = clocked.let_in().account, clocked.admission.user("ada")
    assert clocked.admission.ask(account, user) is None
    for _ in range(10):
        wait_of(clocked.admission.ask(account, user))
    assert clocked.admission.ask(account, None) is None
    assert clocked.admission.ask(account, None) is None
    wait_of(clocked.admission.ask(account, None))


def test_accounts_without_a_connection_are_bounded_and_others_are_kept() -> None:
    clocked = Clocked(connections=Rate(1, 3), user_requests=Rate(1, 1), idle_accounts_max=100)
    kept = clocked.let_in("198.51.100.1")
    for number in range(1, 2_001):
        clocked.let_in(f"198.{number // 250 + 60}.{number % 250}.1").seat.leave()
        clocked.admission.user(f"user {number}")
    sample = clocked.metrics.registry.get_sample_value("headwater_limit_accounts")
    assert sample == 1 + 100 + 100
    assert kept.account is clocked.let_in("198.51.100.1").account


def test_handshakes_are_bounded_in_all_and_for_one_address() -> None:
    clocked = Clocked(handshakes_max=8)
    one: list[Account | None] = [clocked.let_in().account for _ in range(3)]
    begin, end = clocked.admission.begin_handshake, clocked.admission.end_handshake
    assert [begin(account) for account in one] == [True, True, False]
    end(one[0])
    assert begin(one[0])
    others = [clocked.let_in(f"198.51.100.{number}").account for number in range(7)]
    assert [begin(account) for account in others] == [True] * 6 + [False]
    assert not begin(None)
    end(others[0])
    assert begin(None)
    assert clocked.refusals("tls_handshakes_limit") == 3


# ---------------------------------------------------------------------------- of a session


class Session:
    """One client of an address that may ask for 4 at once and 2 a second."""

    def __init__(self) -> None:
        self.place = hub_place.Place(admitted=AdmissionLimits(requests=Rate(2, 2)))
        arrival = self.place.hub.admission.arrive(STRANGER, Place.SESSION)
        assert isinstance(arrival, Arrival)
        self.account = arrival.account
        self.connection, self.sink = self.place.client(account=self.account)
        self.sink.messages.clear()
        self._request = 0

    def mutate(self, sent_ts: int = 1 << 50) -> None:
        self._request += 1
        say(self.connection, Mutation(self._request, "notes:add", b"\x80", 0, sent_ts))

    def act(self) -> None:
        self._request += 1
        say(self.connection, Action(self._request, "notes:send", b"\x80"))

    @property
    def asked(self) -> int:
        return len(self.place.mutations.asked)


def test_requests_beyond_the_rate_are_answered_and_the_session_goes_on() -> None:
    session = Session()
    for _ in range(5):
        session.mutate()
    session.act()
    assert session.asked == 4
    assert session.place.actions.begun == []
    refused = [message for message in session.sink.messages if isinstance(message, ActionAnswer)]
    assert [answer.error.code for answer in refused if answer.error is not None] == ["rate_limited"]
    assert refused[0].error is not None
    assert refused[0].error.data is not None
    assert unpack_value(refused[0].error.data) == {"retry_after_s": 0.5}
    session.place.now_s = 1.0
    session.mutate()
    session.mutate()
    assert session.asked == 6
    assert session.sink.fatal is None


def test_a_refused_mutation_is_answered_as_without_effect() -> None:
    session = Session()
    for _ in range(5):
        session.mutate()
    answers = [message for message in session.sink.messages if isinstance(message, MutationAnswer)]
    assert [answer.request for answer in answers] == [5]
    assert answers[0].error is not None
    assert answers[0].error.code == "rate_limited"


def test_a_session_that_goes_on_in_spite_of_being_told_is_ended() -> None:
    session = Session()
    for _ in range(8):
        session.act()
    assert session.sink.fatal is None
    session.act()
    assert session.sink.fatal is not None
    assert session.sink.fatal.code == "rate_limited"
    assert session.sink.closed == 1013


def test_at_twice_the_rate_a_session_is_refused_half_and_never_ended() -> None:
    session = Session()
    for _ in range(2_000):
        session.place.now_s += 0.25
        session.sink.unsent = 0
        session.act()
    begun = len(session.place.actions.begun)
    assert 1_000 <= begun <= 1_010
    assert session.sink.fatal is None


def test_a_mutation_that_may_have_been_sent_before_is_let_in_and_counts() -> None:
    session = Session()
    for _ in range(6):
        session.mutate(sent_ts=0)
    assert session.asked == 6
    session.mutate()
    assert session.asked == 6
    assert session.sink.fatal is None


def test_queries_are_let_in_and_others_wait_for_them() -> None:
    session = Session()
    add = tuple(subscribe(number + 1, "notes:list").add[0] for number in range(10))
    say(session.connection, ModifyQuerySet(0, 10, add, ()))
    assert session.connection.session is not None
    assert len(session.connection.session.subscriptions) == 10
    session.mutate()
    assert session.asked == 0
    assert session.sink.fatal is None


def test_of_a_client_that_owes_no_more_is_read_until_that_is_earned() -> None:
    session = Session()
    offered: list[float] = []
    session.connection.has_room = lambda: offered.append(session.place.now_s)
    for _ in range(6):
        assert not session.connection.is_full
        session.mutate(sent_ts=0)
        if session.asked <= 4:
            assert not session.connection.is_full
        else:
            assert session.connection.is_full, "5 and more came, 4 may"
            ((pause_s, go_on),) = session.place.timers
            assert pause_s == 0.5
            session.place.timers.clear()
            session.place.now_s += pause_s
            go_on()
    assert offered == [0.5, 1.0]
    assert session.asked == 6


def test_of_a_client_that_owes_much_something_is_read_in_each_heartbeat() -> None:
    """It would be taken for silent, and would come back with all of it."""
    session = Session()
    add = tuple(subscribe(number + 1, "notes:list").add[0] for number in range(1000))
    say(session.connection, ModifyQuerySet(0, 1000, add, ()))
    ((pause_s, _),) = session.place.timers
    assert pause_s == session.place.hub.limits.wire.heartbeat_ms / 1000
