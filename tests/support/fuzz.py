"""Fuzzing of everything that takes bytes from a peer: what it is given, and what must hold whatever that is.

`Decoding` takes what stands on its own (messages, values, deltas, frames), `Visit` one connection of a server
session, whose events it answers as the daemon does: at any later time. Both raise `AssertionError`, naming the input.
An input that led to an error or a state not met before is kept, and others are made from it.
"""

from __future__ import annotations

import re
import tracemalloc
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headwater_protocol import codec, deltas, frames, limits, server_events, server_session, values
from headwater_protocol.errors import ApplicationError, LocalProtocolError, ProtocolError
from headwater_protocol.failures import error_body

from support import fuzz_input

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

KINDS = ("client_message", "server_message", "value", "delta", "stream")
KEPT_MAX = 2_000
MEMORY_FLOOR_BYTES = 2 << 20
MEMORY_FACTOR = 100  # bytes of memory for a byte of a message; the scan of a value allows 24
VALUE_MEMORY_FACTOR = 30
SMALL_ELEMENTS = 2_000  # instead of the delta's own bound, which takes long to reach
QUERIES, IN_FLIGHT = 6, 4  # instead of the protocol's, likewise
DEEP = values.unpack_value(b"\x81\xa1a" * 500 + b"\x80")
SMALL = limits.ServerLimits(frame_limit_bytes=70_000, held_messages_max=5, held_bytes_max=600)


@dataclass
class Corpus:
    """Inputs worth changing, and what each showed that was new."""

    inputs: list[bytes]
    shown: set[tuple[str, ...]] = field(default_factory=set)

    def note(self, data: bytes, *what: str) -> None:
        """Keep an input whose outcome was not met before; numbers and quoted parts make no difference."""
        outcome = tuple(re.sub(r"[0-9]+|'[^']*'|got .*", "", part) for part in what)
        if outcome not in self.shown and len(self.inputs) < KEPT_MAX:
            self.shown.add(outcome)
            if len(data) < 5_000:
                self.inputs.append(data)

    def chosen(self, rng: random.Random) -> bytes:
        """Return one of them, changed."""
        return fuzz_input.mutated(rng, rng.choice(self.inputs), self.inputs)


class Decoding:
    """Gives inputs to all that decodes. `count` says how many there were."""

    def __init__(self, rng: random.Random, *, measured: bool = False) -> None:
        self.rng = rng
        self.measured = measured
        self.count = 0
        self.max_factor = 0.0
        self._messages = {
            side: Corpus(fuzz_input.vectors(f"{side}_messages", "bad")) for side in ("client", "server")
        }
        self._values = Corpus(fuzz_input.vectors("values", "bad"))
        self._deltas = Corpus(fuzz_input.vectors("deltas"))
        self._streams = Corpus(fuzz_input.vectors("frames", "bad"))

    def run(self, inputs: int, kinds: tuple[str, ...] = KINDS) -> None:
        """Take some inputs, a like number of each kind."""
        for turn in range(inputs):
            self.count += 1
            getattr(self, kinds[turn % len(kinds)])()

    def client_message(self) -> None:
        self._message("client", codec.decode_client_message)

    def server_message(self) -> None:
        self._message("server", codec.decode_server_message)

    def _message(self, side: str, decode: Callable[[bytes], Any]) -> None:
        corpus = self._messages[side]
        fresh = self.rng.random() < 0.5
        data = fuzz_input.message(self.rng, side) if fresh else corpus.chosen(self.rng)
        message, error = self._outcome(decode, data, MEMORY_FACTOR)
        corpus.note(data, str(error))
        if error is None:
            assert decode(codec.encode_message(message)) == message, data.hex()
            assert _longest(message) <= limits.LIST_ITEMS_MAX, (
                f"{len(data)} bytes: a list longer than the limit"
            )

    def value(self) -> None:
        data = fuzz_input.value(self.rng) if self.rng.random() < 0.5 else self._values.chosen(self.rng)
        _, error = self._outcome(values.scan_value, data, 1)
        self._values.note(data, "scan", str(error))
        if error is None:
            got, error = self._outcome(values.unpack_value, data, VALUE_MEMORY_FACTOR)
            self._values.note(data, "unpack", str(error))
            if error is None:
                assert _depth(got) <= limits.VALUE_DEPTH_MAX, f"deeper than the limit: {data[:80].hex()}"

    def delta(self) -> None:
        old: Any = DEEP
        if self.rng.random() < 0.7:
            old = [{"a": 1, "b": {"a": [1, 2, {"c": 3}]}}, [1, [2, {"a": 3}]], *range(8)]
        data = fuzz_input.operations(self.rng) if self.rng.random() < 0.6 else self._deltas.chosen(self.rng)
        before = None if old is DEEP else repr(old)
        new, error = self._outcome(
            lambda operations: deltas.apply_delta(old, operations), data, MEMORY_FACTOR
        )
        self._deltas.note(data, str(error))
        assert before is None or repr(old) == before, f"the old value was changed: {data[:200].hex()}"
        if error is None and len(data) < SMALL_ELEMENTS:
            assert _elements(new) <= SMALL_ELEMENTS + len(data) + 100, (
                f"too many elements: {data[:200].hex()}"
            )

    def stream(self) -> None:
        """A stream in pieces holds no more than one message and a piece, and gives what it was made of."""
        rng = self.rng
        limit = rng.choice((10, 1000, limits.CONNECT_FRAME_BYTES))
        parts = [rng.randbytes(rng.choice((0, 1, 9, 10, 11, 400))) for _ in range(rng.randrange(6))]
        whole = b"".join(map(frames.frame, parts))
        data = whole if rng.random() < 0.5 else self._streams.chosen(rng) + bytes(rng.choice((0, 3 * limit)))
        decoder = frames.FrameDecoder(limit)
        got: list[bytes] = []
        error: ProtocolError | None = None
        for piece in _pieces(rng, data):
            taken, error = self._outcome(decoder.feed, piece, MEMORY_FACTOR)
            if error is not None:
                break
            got += taken
            held = decoder.buffered_bytes
            assert held < frames.PREFIX_BYTES + limit, f"{held} bytes are kept: {data[:200].hex()}"
            assert all(len(message) <= limit for message in got), data[:200].hex()
        self._streams.note(data, str(error))
        if data is whole:
            assert (got == parts) if error is None else any(len(part) > limit for part in parts), data.hex()

    def _outcome(
        self, take: Callable[[bytes], Any], data: bytes, factor: int
    ) -> tuple[Any, ProtocolError | None]:
        if self.measured:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
        try:
            result, error = take(data), None
        except ProtocolError as refused:
            result, error = None, refused
            if not 0 < len(refused.message) < 1000:
                raise AssertionError(f"a message of {len(refused.message)} characters") from refused
        except Exception as fault:
            raise AssertionError(f"{type(fault).__name__}: {fault}; {data[:400].hex()}") from fault
        if self.measured:
            used = tracemalloc.get_traced_memory()[1] - before
            self.max_factor = max(self.max_factor, used / max(len(data), 10_000))
            allowed = MEMORY_FLOOR_BYTES + factor * len(data)
            assert used <= allowed, f"{len(data)} bytes need {used} bytes of memory: {data[:200].hex()}"
        return result, error


def _pieces(rng: random.Random, data: bytes) -> Iterator[bytes]:
    size = rng.choice((1, 3, 50, 5_000, 1 << 20)) if len(data) < 5_000 else rng.choice((5_000, 1 << 20))
    at = 0
    while at < len(data):
        step = rng.randint(1, size)
        yield data[at : at + step]
        at += step


def _longest(message: Any) -> int:
    return max((len(part) for part in vars_of(message) if isinstance(part, tuple)), default=0)


def vars_of(message: Any) -> list[Any]:
    """Return the fields of a message."""
    return [getattr(message, name) for name in message.__slots__]


def _depth(value: Any) -> int:
    deepest, level = 0, [value]
    while level := [
        inner for outer in level if isinstance(outer, (list, dict)) for inner in _inside(outer)
    ] or ([None] if any(isinstance(outer, (list, dict)) for outer in level) else []):
        deepest += 1
    return deepest


def _elements(value: Any) -> int:
    count, level = 0, [value]
    while level:
        level = [inner for outer in level if isinstance(outer, (list, dict)) for inner in _inside(outer)]
        count += len(level)
    return count


def _inside(outer: Any) -> Any:
    return outer.values() if isinstance(outer, dict) else outer


# ------------------------------------------------------------------------------------------- sessions


class Visit:
    """One connection: what a client of ill will sends, and a daemon that answers when it likes.

    What the session has let through is counted here, by its events and answers alone.
    """

    def __init__(self, rng: random.Random, corpus: Corpus, kind: type[server_session.ServerSession]) -> None:
        self.rng = rng
        self.corpus = corpus
        self.session = kind(SMALL)
        self.ts = 100
        self.sent = 0
        self.past: list[bytes] = []
        self.queries: set[int] = set()
        self.query_set = self.attempts = self.request = 0
        self.mutations: list[int] = []
        self.actions: list[int] = []
        self.held: list[int] = []
        self.verdict = False

    def run(self, steps: int) -> None:
        """Go on until the connection ends, at most so many steps, and see that it has ended then."""
        for _ in range(steps):
            self.sent += 1
            data = self._next()
            self.past.append(data)
            try:
                self._take(data)
                while self.rng.random() < 0.4:
                    self._work()
            except LocalProtocolError as fault:
                raise AssertionError(
                    f"the daemon was led to break a rule: {fault}; {self._story()}"
                ) from fault
            except ProtocolError as error:
                self.corpus.note(data, str(error), *self._place())
                self._ended(error)
                return
            except AssertionError as wrong:
                raise AssertionError(f"{wrong}; {self._story()}") from wrong
            except Exception as fault:
                raise AssertionError(f"{type(fault).__name__}: {fault}; {self._story()}") from fault
            self.corpus.note(data, "taken", *self._place())

    def _story(self) -> str:
        return "after " + " ".join(data[:60].hex() for data in self.past[-12:])

    def _place(self) -> tuple[str, ...]:
        full = [len(self.queries) >= QUERIES, len(self.mutations) + len(self.actions) >= IN_FLIGHT]
        return (str(self.session.is_open), str(self.verdict), *map(str, full))

    def _next(self) -> bytes:
        """Return the next frame: mostly one that fits, so that the connection lives to see more."""
        rng = self.rng
        luck = rng.random()
        if luck < 0.012:
            return self.corpus.chosen(rng)
        if luck < 0.018:
            return fuzz_input.message(rng, rng.choice(("client", "server")))
        if luck < 0.021:
            return bytes(rng.choice((limits.CONNECT_FRAME_BYTES + 1, SMALL.frame_limit_bytes + 1)))
        if luck < 0.03:
            return rng.choice(self.past) if self.past else b""
        if not self.session.is_open:
            return self._fitting("Connect", versions=b"\x92\x01\x09", session=b"\xc4\x10" + rng.randbytes(16))
        kinds = [
            "ModifyQuerySet",
            "Mutation",
            "Action",
            "Ping",
            "Pong",
            "Mutation",
            "Authenticate",
            "ActionCredit",
            "CancelAction",
        ]
        match rng.choice(kinds):
            case "ModifyQuerySet":
                return self._modification()
            case "Authenticate":
                self.attempts += 1
                return self._fitting("Authenticate", base=codec.encode_integer(self.attempts - 1))
            case "Mutation" | "Action" as name:
                self.request += rng.randint(1, 3)
                given = {"forget_below": b"\x00", "sent_ts": b"\x01"}
                return self._fitting(name, request=codec.encode_integer(self.request), **given)
            case "ActionCredit" | "CancelAction" as name:
                asked = self.actions or [self.request]
                size = b"\x00" if rng.random() < 0.9 else b"\x01"
                return self._fitting(name, request=codec.encode_integer(rng.choice(asked)), size=size)
            case name:
                return self._fitting(name, nonce=b"\x05")

    def _fitting(self, name: str, **given: bytes) -> bytes:
        return fuzz_input.encoded(self.rng, fuzz_input.LISTED["client"][name], 0, given)

    def _modification(self) -> bytes:
        rng = self.rng
        adding = [rng.randint(1, 40) for _ in range(rng.choice((0, 1, 1, 2, 5)))]
        add = [
            number for number in dict.fromkeys(adding) if number not in self.queries or rng.random() < 0.02
        ]
        remove = [number for number in self.queries if rng.random() < 0.1]
        remove += [41] if rng.random() < 0.01 else []
        base, self.query_set = self.query_set, self.query_set + rng.randint(1, 2)
        asked = [b"\x93" + bytes([number]) + b"\xa3a:b\xc4\x01\x80" for number in add]
        return self._fitting(
            "ModifyQuerySet",
            base=codec.encode_integer(base),
            new=codec.encode_integer(self.query_set),
            add=fuzz_input.head(len(asked)) + b"".join(asked),
            remove=fuzz_input.head(len(remove)) + bytes(remove),
        )

    def _take(self, data: bytes) -> None:
        limit = self.session.frame_limit_bytes
        events = self.session.receive(data)
        assert len(data) <= limit, f"{len(data)} bytes were taken, more than {limit}"
        if not events and self.verdict:
            self.held.append(len(data))
            assert len(self.held) <= SMALL.held_messages_max, "too many messages wait"
            assert sum(self.held) <= SMALL.held_bytes_max, "too many bytes wait"
        for event in events:
            self._handle(event)

    def _handle(self, event: server_events.ServerEvent) -> None:
        match event:
            case server_events.Connected():
                self._check(self.session.welcome(bytes(16), self.ts))
            case server_events.QuerySetModified(add, remove):
                assert self.queries >= set(remove), "removed what was not subscribed"
                assert not self.queries & {query.query for query in add}, "added twice"
                self.queries = self.queries - set(remove) | {query.query for query in add}
                assert len(self.queries) <= QUERIES, "more queries than the limit"
            case server_events.MutationRequested() | server_events.ActionRequested():
                mutation = isinstance(event, server_events.MutationRequested)
                (self.mutations if mutation else self.actions).append(event.request)
                assert len(self.mutations) + len(self.actions) <= IN_FLIGHT, "more requests than the limit"
            case server_events.AuthenticateRequested():
                assert not self.verdict, "two verdicts at once"
                self.verdict = True
            case server_events.SendFrame(frame):
                self._check(frame)

    def _work(self) -> None:
        """Do one thing that the daemon may do at any time."""
        session, rng = self.session, self.rng
        if not session.is_open:
            return
        self.ts += rng.randrange(2)
        match rng.randrange(6):
            case 5 if self.actions:
                self._check(session.action_piece(rng.choice(self.actions), b"\xc0"))
            case 0 if self.mutations:
                committed = self.ts > session.version.ts and rng.random() < 0.5
                failure = None if committed or rng.random() < 0.5 else error_body(ApplicationError("x"))
                number = self.mutations.pop(0)
                value = None if failure else b"\xc0"
                self._check(session.mutation_answer(number, self.ts, value, failure, committed=committed))
            case 1 if self.actions:
                number = self.actions.pop(rng.randrange(len(self.actions)))
                self._check(session.action_answer(number, b"\xc0"))
            case 2 if self.verdict:
                self._decide()
            case 3:
                changed = [number for number in self.queries if rng.random() < 0.3]
                body = codec.encode_change_body(codec.messages.Value(b"\xc0", b"d", None))
                self._check(session.transition(self.ts, [(number, body) for number in changed]))
            case 4:
                for event in session.tick(self.sent * 4.0):
                    if not isinstance(event, server_events.PeerSilent):
                        self._handle(event)

    def _decide(self) -> None:
        self.verdict = False
        if self.rng.random() < 0.5:
            waiting = self.session.authenticated()
        else:
            frame, waiting = self.session.authentication_refused("no")
            self._check(frame)
        for event in waiting:
            self.held.pop(0)
            self._handle(event)

    def _check(self, frame: bytes) -> None:
        codec.decode_server_message(frame)

    def _ended(self, error: ProtocolError) -> None:
        """An error has come out: nothing goes in or out any more but the last word."""
        told = self.rng.random() < 0.5
        if told:
            self._check(self.session.fatal(error))
        calls: list[Callable[[], object]] = [
            lambda: self.session.receive(self._fitting("Ping", nonce=b"\x05")),
            lambda: self.session.receive(b""),
            lambda: self.session.transition(self.ts, []),
            lambda: self.session.welcome(bytes(16), self.ts),
            lambda: self.session.ping(),
        ]
        for call in calls:
            try:
                call()
            except LocalProtocolError:
                continue
            raise AssertionError(f"a session went on after {error}; {self._story()}")
        assert not self.session.tick(self.sent * 4.0 + 8), self._story()
        if not told:
            self._check(self.session.fatal(error))


@dataclass
class Sessions:
    """Many visits, which share what they have found."""

    rng: random.Random
    kind: type[server_session.ServerSession] = server_session.ServerSession
    corpus: Corpus = field(default_factory=lambda: Corpus(fuzz_input.vectors("client_messages", "bad")))
    messages: int = 0

    def run(self, messages: int) -> None:
        """Send about so many messages."""
        until = self.messages + messages
        while self.messages < until:
            visit = Visit(self.rng, self.corpus, self.kind)
            visit.run(80)
            self.messages += visit.sent
