"""Whatever bytes come, and in whatever order: typed errors, bounded memory, and nothing after an error.

`make torture ONLY=fuzz MINUTES=60` is the long form.
"""

from __future__ import annotations

import random
import tracemalloc
from typing import TYPE_CHECKING, Any

import msgpack
import pytest
from headwater_protocol import codec, deltas, frames, server_session, values
from headwater_protocol.errors import ProtocolError
from support.fuzz import IN_FLIGHT, QUERIES, SMALL_ELEMENTS, Decoding, Sessions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.runs import LongRun

SEED = 20
BROKEN_INPUTS = 20_000


@pytest.fixture(autouse=True)
def _small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deltas, "ELEMENTS_MAX", SMALL_ELEMENTS)
    monkeypatch.setattr(server_session, "QUERIES_MAX", QUERIES)
    monkeypatch.setattr(server_session, "REQUESTS_IN_FLIGHT_MAX", IN_FLIGHT)


@pytest.fixture
def _traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("_traced")
def test_whatever_is_decoded() -> None:
    decoding = Decoding(random.Random(SEED), measured=True)
    decoding.run(2_000)


def test_whatever_a_client_sends() -> None:
    sessions = Sessions(random.Random(SEED))
    sessions.run(8_000)
    refused = [shown for shown in sessions.corpus.shown if shown[0] != "taken"]
    assert len(refused) > 30, "it hardly got anywhere"
    taken = [shown for shown in sessions.corpus.shown if shown[0] == "taken"]
    for place, what in enumerate(("open", "waiting for a verdict", "full of queries", "full of requests"), 1):
        assert any(shown[place] == "True" for shown in taken), f"it was never {what}"


@pytest.mark.slow
@pytest.mark.usefixtures("_traced")
def test_fuzz_at_length(long_run: LongRun) -> None:
    for seed in long_run.seeds():
        rng = random.Random(seed)
        decoding, sessions = Decoding(rng, measured=True), Sessions(rng)
        for _ in range(3):
            decoding.run(4_000)
            tracemalloc.stop()
            sessions.run(10_000)
            tracemalloc.start()
        long_run.record(
            "fuzz",
            seed,
            inputs=decoding.count + sessions.messages,
            messages=sessions.messages,
            max_outcomes=len(sessions.corpus.shown),
        )


# ------------------------------------------------------------------------ what is seen without each rule


def _unlimited_lists(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(codec, "LIST_ITEMS_MAX", 1 << 60)


def _no_depth(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(values, "VALUE_DEPTH_MAX", 1 << 60)


def _no_memory(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(values, "_MEMORY_FACTOR", 1 << 30)


def _any_length(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(frames.FrameDecoder, "_checked", lambda _, length: length)


def _endless_copies(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(deltas, "ELEMENTS_MAX", 1 << 60)


def _plain_msgpack(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(codec, "decode_client_message", msgpack.unpackb)


def _deep_operations(patch: pytest.MonkeyPatch) -> None:
    def apply(old: Any, operations: bytes) -> Any:
        return deltas._Application().changed(old, values.unpack_value(operations))

    patch.setattr(deltas, "apply_delta", apply)


def _patched_in_place(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(deltas, "_patched", lambda old, put, removed: old.update(put) or old)


@pytest.mark.usefixtures("_traced")
@pytest.mark.parametrize(
    ("broken", "kind", "words"),
    [
        (_unlimited_lists, "client_message", "a list longer than the limit"),
        (_no_depth, "value", "deeper than the limit"),
        (_no_memory, "value", "bytes of memory"),
        (_any_length, "stream", "bytes are kept"),
        (_endless_copies, "delta", "too many elements"),
        (_plain_msgpack, "client_message", "Error|ExtraData|FormatError|StackError"),
        (_deep_operations, "delta", "RecursionError"),
        (_patched_in_place, "delta", "the old value was changed|Error"),
    ],
)
def test_a_decoder_without_a_rule_is_found(
    monkeypatch: pytest.MonkeyPatch, broken: Any, kind: str, words: str
) -> None:
    broken(monkeypatch)
    with pytest.raises(AssertionError, match=words):
        Decoding(random.Random(SEED), measured=True).run(BROKEN_INPUTS, (kind,))


class _HoldsAll(server_session.ServerSession):
    def _hold(self, message: Any, size_bytes: int) -> None:
        self._held.append((message, size_bytes))


class _Forgives(server_session.ServerSession):
    def receive(self, frame: bytes, *, stopping: bool = False) -> list[server_session.ServerEvent]:
        state = self._state
        try:
            return super().receive(frame, stopping=stopping)
        except ProtocolError:
            self._state = state
            raise


class _Trusts(server_session.ServerSession):
    def _begin_request(self, request: int, kind: str) -> None:
        """Believe that each number is a new one."""


class _Subscribes(server_session.ServerSession):
    def _modify(self, message: Any) -> server_session.QuerySetModified:
        self._queries |= {query.query for query in message.add}
        return server_session.QuerySetModified(message.add, message.remove)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (_HoldsAll, "wait"),
        (_Forgives, "went on after"),
        (_Trusts, "more requests than the limit|break a rule|KeyError"),
        (_Subscribes, "added twice|not subscribed|more queries"),
    ],
)
def test_a_session_without_a_rule_is_found(kind: type[server_session.ServerSession], words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        Sessions(random.Random(SEED), kind).run(BROKEN_INPUTS)


@pytest.mark.parametrize(
    ("limit", "words"),
    [("QUERIES_MAX", "more queries than"), ("REQUESTS_IN_FLIGHT_MAX", "more requests than")],
)
def test_a_session_without_a_limit_is_found(monkeypatch: pytest.MonkeyPatch, limit: str, words: str) -> None:
    monkeypatch.setattr(server_session, limit, 1 << 60)
    with pytest.raises(AssertionError, match=words):
        Sessions(random.Random(SEED)).run(BROKEN_INPUTS)
