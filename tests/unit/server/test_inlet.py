"""How clients' messages are let in, step by step: the event loop's turns and timers are the test's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headwater_server.net.inlet import Inflow, Inlet, InletLimits

if TYPE_CHECKING:
    from collections.abc import Callable

COST_S = 0.001


class Client:
    """One client: what was taken of it, and whether it is read."""

    def __init__(self, place: Place, name: str) -> None:
        self._place = place
        self._name = name
        self.reads = True
        self.is_full = False
        self.has_room: Callable[[], None] | None = None
        connection: Any = self
        self.inflow = Inflow(place.inlet, connection, self._pause, self._read_on)

    def receive(self, message: bytes) -> None:
        self._place.now_s += COST_S
        self._place.taken.append(f"{self._name}{message.decode()}")

    def send(self, *messages: str) -> None:
        assert self.reads, "it was read although messages of it wait"
        self.inflow.feed([message.encode() for message in messages])

    def _pause(self) -> None:
        self.reads = False

    def _read_on(self) -> None:
        self.reads = True


class Broken(Client):
    """A client whose connection raises what nobody expects."""

    was_cut = False

    def receive(self, message: bytes) -> None:
        if message == b"bad":
            raise RuntimeError("broken")
        super().receive(message)

    def cut(self) -> None:
        self.was_cut = True


class Place:
    def __init__(self, **limits: Any) -> None:
        self.taken: list[str] = []
        self.turns: list[Callable[[], None]] = []
        self.timers: list[Callable[[], None]] = []
        self.full = False
        self.now_s = 100.0
        self.inlet = Inlet(
            InletLimits(**limits),
            lambda: self.full,
            lambda: self.now_s,
            self.turns.append,
            lambda pause_s, action: self.timers.append(action),
        )

    def turn(self) -> list[str]:
        """Let a turn of the loop pass and return what was taken in it."""
        before = len(self.taken)
        turns, self.turns[:] = list(self.turns), []
        for action in turns:
            action()
        return self.taken[before:]

    def timer(self, late_s: float) -> list[str]:
        """Let the timer go off, so late, and return what was taken."""
        before = len(self.taken)
        self.now_s += 0.01 + late_s
        (action,) = self.timers
        self.timers.clear()
        action()
        return self.taken[before:]


def test_of_a_flood_so_many_are_taken_in_a_turn_and_each_client_in_its_turn() -> None:
    place = Place(turn_max=4)
    flood, polite = Client(place, "f"), Client(place, "p")
    flood.send(*map(str, range(9)))
    assert place.taken == ["f0", "f1", "f2", "f3"]
    assert not flood.reads
    polite.send("0", "1")
    assert place.turn() == ["f4", "p0", "f5", "p1"]
    assert polite.reads
    assert place.turn() == ["f6", "f7", "f8"]
    assert flood.reads
    assert place.turn() == []
    assert not place.turns, "nothing goes on when nothing waits"
    polite.send("2")
    assert place.taken[-1] == "p2"


def test_while_the_daemon_is_full_taking_has_its_share_of_the_time() -> None:
    place = Place(turn_max=100, full_share=0.2)
    place.full = True
    one, other = Client(place, "a"), Client(place, "b")
    one.send(*map(str, range(50)))
    other.send(*map(str, range(50)))
    assert place.taken == []
    assert not place.turns
    assert place.timer(late_s=0.005) == ["a0", "b0"], "two of ten ms, as there is other work"
    assert place.timer(late_s=0.0) == ["a1", "b1", "a2", "b2", "a3", "b3"], "more, as there is none"
    place.full = False
    assert len(place.timer(late_s=0.005)) == 92
    assert one.reads
    assert other.reads


def test_what_waits_is_forgotten_with_its_client() -> None:
    place = Place(turn_max=1)
    gone, left = Client(place, "g"), Client(place, "l")
    gone.send("0", "1", "2")
    left.send("0")
    gone.inflow.close()
    assert place.turn() == ["l0"]
    assert place.turn() == []
    assert not place.turns


def test_a_client_whose_message_cannot_be_handled_is_cut_and_the_others_are_next() -> None:
    place = Place(turn_max=2)
    bad, good = Broken(place, "b"), Client(place, "g")
    good.send("0", "1")
    bad.send("0", "bad", "1")
    assert place.turn() == ["b0"]
    assert bad.was_cut
    assert place.turn() == []
    bad.inflow.feed([b"2"])
    good.send("3", "4", "5")
    assert place.taken[-2:] == ["g3", "g4"]
    assert place.turn() == ["g5"]
    assert place.turn() == []
    assert not place.turns


def test_a_client_whose_first_message_cannot_be_handled_is_cut_at_once() -> None:
    place = Place()
    bad = Broken(place, "b")
    bad.send("bad", "0")
    assert bad.was_cut
    assert not place.taken


def test_of_a_client_with_too_much_in_flight_nothing_is_taken_until_it_has_room() -> None:
    place = Place()
    one, other = Client(place, "a"), Client(place, "b")
    one.is_full = True
    one.send("1", "2", "3")
    assert not one.reads
    assert place.turn() == []
    assert place.turn() == []
    assert place.turns == []  # it costs no turns while it waits
    other.send("1")
    assert place.taken == ["b1"]
    place.turn()
    assert one.has_room is not None
    one.has_room()
    assert place.turn() == []  # it said so by mistake
    one.is_full = False
    one.has_room()
    one.has_room()
    assert place.turn() == ["a1", "a2", "a3"]
    assert one.reads
    one.send("4")
    assert place.taken[-1] == "a4"


def test_a_client_that_goes_while_it_may_not_send_is_forgotten() -> None:
    place = Place()
    one = Client(place, "a")
    one.is_full = True
    one.send("1")
    place.turn()
    one.inflow.close()
    assert one.has_room is None
    assert place.turn() == []
