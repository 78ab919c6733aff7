from __future__ import annotations

import asyncio
import itertools
import random
import socket

import msgspec
import pytest
from headwater_server.functions.worker_link import WorkerLink
from headwater_server.worker.link import FRAME_BYTES_MAX, FrameError, FrameSplitter, FrameWriter, WorkerEnd
from headwater_server.worker.messages import CloseRound, Described, OpenRound, RunQuery, TransactionOrder


def splitter() -> FrameSplitter[TransactionOrder]:
    return FrameSplitter(msgspec.msgpack.Decoder(TransactionOrder))


def frames(*messages: TransactionOrder) -> bytes:
    writer = FrameWriter()
    for message in messages:
        writer.add(message)
    return bytes(writer.take())


MESSAGES: list[TransactionOrder] = [
    OpenRound(1),
    RunQuery(1, 1, 5, "a:b", b"\x80"),
    RunQuery(2, 1, 5, "a:b", b"x" * 70_000, b"me", b"journal", True),
    CloseRound(1),
]


def test_messages_survive_any_cutting_of_the_stream() -> None:
    data = frames(*MESSAGES)
    for seed in range(50):
        rng = random.Random(seed)
        cuts = sorted(rng.randrange(len(data)) for _ in range(rng.randrange(12)))
        cuts += [rng.randrange(8) for _ in range(4)]
        edges = [0, *sorted(set(cuts)), len(data)]
        split = splitter()
        found = [
            message for start, end in itertools.pairwise(edges) for message in split.feed(data[start:end])
        ]
        assert found == MESSAGES, f"seed {seed}"


def test_one_byte_at_a_time() -> None:
    split = splitter()
    data = frames(MESSAGES[0], MESSAGES[1])
    assert [m for byte in data for m in split.feed(bytes([byte]))] == MESSAGES[:2]


@pytest.mark.parametrize(
    "data",
    [
        (FRAME_BYTES_MAX + 1).to_bytes(4, "big"),
        b"\xff\xff\xff\xffxxxx",
        b"\x00\x00\x00\x01\xc0",
        b"\x00\x00\x00\x02\x91\x63",
        b"\x00\x00\x00\x00",
        b"\x00\x00\x00\x05\xdd\xff\xff\xff\xff",
    ],
)
def test_nonsense_is_an_error(data: bytes) -> None:
    with pytest.raises(FrameError):
        splitter().feed(data)


def test_the_writer_begins_anew_after_take() -> None:
    writer = FrameWriter()
    writer.add(OpenRound(1))
    size = len(writer)
    assert len(writer.take()) == size
    assert len(writer) == 0


def test_the_workers_end_receives_several_and_sends_several_at_once() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        end = WorkerEnd(theirs)
        ours.sendall(frames(*MESSAGES))
        assert end.receive() == MESSAGES
        end.add(Described(b"{}", None))
        end.add(Described(b"[]", None))
        assert end.unsent_bytes > 0
        end.flush()
        assert end.unsent_bytes == 0
        split = FrameSplitter(msgspec.msgpack.Decoder(Described))
        assert [m.manifest for m in split.feed(ours.recv(4096))] == [b"{}", b"[]"]
        ours.shutdown(socket.SHUT_WR)
        assert end.receive() is None


def test_of_a_message_that_cannot_be_encoded_nothing_is_left() -> None:
    writer = FrameWriter()
    writer.add(CloseRound(1))
    with pytest.raises(UnicodeEncodeError):
        writer.add(RunQuery(1, 1, 5, "\udcff", b"x" * 100_000))
    with pytest.raises(ValueError, match="the limit is"):
        writer.add(RunQuery(1, 1, 5, "a:b", bytes(FRAME_BYTES_MAX)))
    writer.add(CloseRound(2))
    assert splitter().feed(writer.take()) == [CloseRound(1), CloseRound(2)]


async def test_what_is_sent_at_once_takes_along_what_waits_for_the_end_of_the_turn() -> None:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    loop = asyncio.get_running_loop()
    decoder = msgspec.msgpack.Decoder(TransactionOrder)
    link = WorkerLink(loop, ours, decoder, lambda message: None, lambda: None)
    link.send(MESSAGES[0])
    with pytest.raises(BlockingIOError):
        theirs.recv(1)
    link.send(MESSAGES[1], at_once=True)
    assert theirs.recv(1 << 20) == frames(*MESSAGES[:2])
    for _ in range(3):
        await asyncio.sleep(0)
    with pytest.raises(BlockingIOError):
        theirs.recv(1)
    link.send(MESSAGES[2])
    link.send(MESSAGES[3])
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert theirs.recv(1 << 20) == frames(*MESSAGES[2:])
    link.close()
    theirs.close()
