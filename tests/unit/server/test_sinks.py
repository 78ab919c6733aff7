from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from headwater_protocol.codec import encode_change_body, encode_message
from headwater_protocol.frames import frame
from headwater_protocol.limits import ServerLimits
from headwater_protocol.messages import AddQuery, Connect, ModifyQuerySet, Value
from headwater_protocol.server_session import ServerSession
from headwater_server.net.admission import Arrival, Seat
from headwater_server.net.connection_limits import ConnectionLimits
from headwater_server.net.deflate import Deflater
from headwater_server.net.inlet import Inlet, InletLimits
from headwater_server.net.sinks import SharedFrames, TcpSink, text_frames, websocket_frame
from headwater_server.net.tcp import TcpShell
from headwater_server.reactive.moves import Moved

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater_protocol.server_session import SameTransitions

BOUND = 10_000


@pytest.mark.parametrize(
    ("size", "head"),
    [
        (0, b"\x82\x00"),
        (125, b"\x82\x7d"),
        (126, b"\x82\x7e\x00\x7e"),
        (65535, b"\x82\x7e\xff\xff"),
        (65536, b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_frames_have_the_shortest_length_form(size: int, head: bytes) -> None:
    assert websocket_frame(b"x" * size) == head + b"x" * size


class Turn:
    """A turn of the event loop; `end` runs what was put off to it."""

    def __init__(self) -> None:
        self.actions: list[Callable[[], None]] = []

    def soon(self, action: Callable[[], None]) -> None:
        self.actions.append(action)

    def end(self) -> None:
        actions, self.actions = self.actions, []
        for action in actions:
            action()


def test_a_frame_is_built_once_for_all_and_forgotten_in_bounds() -> None:
    turn = Turn()
    frames = SharedFrames(turn.soon, Deflater(0), bytes_max=BOUND)
    first = frames.frame(b"a")
    assert frames.frame(b"a") is first
    for number in range(100):
        frames.frame(b"b" * 1_000 + bytes([number]))
        assert frames.held_bytes <= BOUND
    assert frames.frame(b"a") is not first
    assert frames.frame(b"a") == first
    large = frames.frame(b"c" * BOUND)
    assert frames.frame(b"c" * BOUND) is large, "one that is larger than all may be goes to many as well"


def made_of(frames: SharedFrames, moved: Moved) -> SameTransitions:
    """What a connection does first with a move."""
    if moved.made is None:
        moved.made = frames.transitions(moved)
    made: SameTransitions = moved.made
    return made


def opened(ts: int = 1) -> ServerSession:
    session = ServerSession(ServerLimits())
    session.receive(encode_message(Connect((1,), b"s" * 16, 0, None, "test")))
    session.welcome(b"i" * 16, 1)
    if ts > 1:
        session.transition(ts, [])
    return session


def test_moves_that_are_equal_share_what_is_made_of_them_until_the_turn_ends() -> None:
    """After a restart each client is moved by itself, and a thousand of them by equal moves."""
    turn = Turn()
    frames = SharedFrames(turn.soon, Deflater(0))
    first, second = (opened().transition(9, [], made_of(frames, Moved(9, []))) for _ in range(2))
    assert first is second
    turn.end()
    assert frames.held_bytes == 0
    assert opened().transition(9, [], made_of(frames, Moved(9, []))) is not first


def test_what_is_made_of_one_move_is_bounded_though_every_client_stands_elsewhere() -> None:
    frames = SharedFrames(Turn().soon, Deflater(0), bytes_max=BOUND)
    value = encode_change_body(Value(b"\xc4\xff" + bytes(255), b"d" * 16))
    moved = Moved(1_000, [(1, value)])
    for ts in range(2, 200):
        session = opened(ts)
        session.receive(encode_message(ModifyQuerySet(0, 1, (AddQuery(1, "m:q", b"\x80"),), ())))
        assert session.transition(1_000, moved.changes, made_of(frames, moved))
        held = {id(message): len(message) for _, message in made_of(frames, moved).values()}
        assert sum(held.values()) <= frames.held_bytes <= BOUND


def test_nothing_shared_outlives_the_turn_that_sent_it() -> None:
    turn = Turn()
    frames = SharedFrames(turn.soon, Deflater(0))
    for _ in range(2):
        frames.frame(b"a")
        assert len(turn.actions) == 1
        turn.end()
        assert not frames._frames
        assert frames.held_bytes == 0
    frames.frame(b"a")
    frames.clear()
    turn.end()
    frames.frame(b"a")
    assert len(turn.actions) == 1


class UnreadTransport:
    """Never gets rid of what was written, and its client never ends its side; so only `abort` ends it."""

    def __init__(self) -> None:
        self.written = b""
        self.aborted = self.ended = False

    def pause_reading(self) -> None:
        raise AssertionError("nothing waits")

    def get_extra_info(self, name: str) -> None:
        """It has no socket."""

    def write(self, data: bytes) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return len(self.written)

    def is_closing(self) -> bool:
        return self.aborted

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        assert not self.ended
        self.ended = True

    def abort(self) -> None:
        self.aborted = True


class Timers:
    """Timers of a loop, which a test lets go off."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.set: list[tuple[float, Callable[[], None]]] = []
        self.cancelled = 0
        monkeypatch.setattr(asyncio.get_running_loop(), "call_later", self._call_later)

    def _call_later(self, pause_s: float, action: Callable[[], None]) -> Timers:
        self.set.append((pause_s, action))
        return self

    def cancel(self) -> None:
        self.cancelled += 1


async def test_a_tcp_client_that_does_not_read_its_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    timers = Timers(monkeypatch)
    transport: Any = UnreadTransport()
    sink = TcpSink(transport)
    sink.send([b"the end"])
    sink.close(1002, "the end")
    sink.close(1002, "the end")
    sink.send([b"behind the end"])
    assert transport.written == frame(b"the end")
    assert transport.ended
    assert not transport.aborted, "what is on its way may still be read"
    [(pause_s, action)] = timers.set
    assert 0 < pause_s < 10
    action()
    assert transport.aborted


class OneConnection:
    """A hub and its connection in one; ends it when a frame comes."""

    frame_limit_bytes = 100
    is_full = False
    limits = ConnectionLimits()

    def __init__(self) -> None:
        self.inlet = Inlet(
            InletLimits(), lambda: False, lambda: 0.0, lambda action: None, lambda pause_s, action: None
        )
        self.sink: Any = None

    def accept(self, sink: TcpSink, **_: Any) -> OneConnection:
        self.sink = sink
        return self

    def receive(self, frame: bytes) -> None:
        self.sink.close(1002, "the end")

    def lost(self) -> None:
        pass


async def test_the_timer_of_a_tcp_connection_ends_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    timers = Timers(monkeypatch)
    hub: Any = OneConnection()
    transport: Any = UnreadTransport()
    shell = TcpShell(hub, Arrival(None, False, Seat()))
    shell.connection_made(transport)
    shell.data_received(b"\x00\x00\x00\x01x")
    assert len(timers.set) == 1
    shell.connection_lost(None)
    assert timers.cancelled == 1


async def test_a_tcp_socket_that_the_hub_does_not_take_is_left_alone() -> None:
    class FullHub:
        limits = ConnectionLimits()

        def accept(self, sink: TcpSink, **_: Any) -> None:
            sink.abort()

    hub: Any = FullHub()
    transport: Any = UnreadTransport()
    shell = TcpShell(hub, Arrival(None, False, Seat()))
    shell.connection_made(transport)
    assert transport.aborted
    shell.data_received(b"\x00\x00\x00\x01x")
    shell.connection_lost(None)


def test_large_texts_go_out_in_fragments_that_some_clients_need() -> None:
    assert text_frames(b"{}") == b"\x81\x02{}"
    size = 8 << 20
    framed = text_frames(b"x" * (2 * size + 5))
    heads = [framed[0], framed[10 + size], framed[2 * (10 + size)]]
    assert heads == [0x01, 0x00, 0x80]
    assert framed[2 * (10 + size) + 1] == 5
    assert len(framed) == 2 * (10 + size) + 2 + 5
    assert text_frames(b"x" * size)[0] == 0x81


def test_texts_are_framed_as_such_and_made_once() -> None:
    frames = SharedFrames(Turn().soon, Deflater(10))
    text, message = b'{"a":' + b"1" * 100 + b"}", b"\x90" * 100
    assert frames.text_frame(text)[0] == 0x81
    assert frames.text_frame(text) is frames.text_frame(text)
    assert frames.frame(message)[0] == 0x82
    assert frames.deflated_text_frame(text)[0] == 0xC1
    assert frames.deflated_text_frame(text) is frames.deflated_text_frame(text)
    assert frames.deflated_frame(message)[0] == 0xC2
    assert frames.deflated_text_frame(b"{}")[0] == 0x81
