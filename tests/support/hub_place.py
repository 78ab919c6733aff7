"""A real hub, core and protocol session; sockets, mutations and workers are stood in for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from headwater_protocol.codec import decode_server_message, encode_message
from headwater_protocol.errors import TransientError
from headwater_protocol.messages import (
    AddQuery,
    ClientMessage,
    Connect,
    ErrorBody,
    FatalError,
    ModifyQuerySet,
    Welcome,
)
from headwater_server.identity.sign_ins import SignInLimits, SignIns, Verifier
from headwater_server.net.admission import Account, Admission, AdmissionLimits
from headwater_server.net.connection_limits import ConnectionLimits
from headwater_server.net.hub import Hub
from headwater_server.net.keys import AdminKeys
from headwater_server.observe.metrics import Metrics

from support.reactive_steps import Steps

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headwater_protocol.errors import HeadwaterError
    from headwater_server.net.connection import Connection

BUFFER = 1_000
WALL_S = 1_800_000_000.0


class MemorySink:
    """A client that reads when it is told to. Loses nothing."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.unsent = 0
        self.closed: int | None = None
        self.aborted = False
        self.fault: Exception | None = None

    def send(self, messages: Sequence[bytes]) -> None:
        if self.fault is not None:
            raise self.fault
        for message in messages:
            self.messages.append(decode_server_message(message))
            self.unsent += len(message)

    def unsent_bytes(self) -> int:
        return self.unsent

    def close(self, code: int, reason: str) -> None:
        self.closed = code

    def abort(self) -> None:
        self.aborted = True

    @property
    def fatal(self) -> ErrorBody | None:
        """Why the connection was ended."""
        last = self.messages[-1] if self.messages else None
        return last.error if isinstance(last, FatalError) else None


class NoMutations:
    """Takes every mutation and decides none.

    Attributes:
        asked: Their numbers, and whose they are.
    """

    paused = False
    is_full = False

    def __init__(self) -> None:
        self.asked: list[tuple[int, str | None]] = []

    def attach(self, session: bytes, receiver: object) -> object:
        return object()

    def detach(self, queue: object, receiver: object) -> None:
        pass

    def request(self, _: object, asked: Any, verified: Any, **__: object) -> HeadwaterError | None:
        self.asked.append((asked.request, verified.token_identifier if verified else None))
        return None

    def pause(self, queue: object) -> None:
        self.paused = True

    def resume(self, queue: object) -> None:
        self.paused = False


class NoActions:
    """Takes every action and ends it when it is told to."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, int, Any]] = []
        self.left: list[str] = []
        self.credits: list[int] = []
        self.identities: list[bytes | None] = []
        self.refuses = False

    def begin(
        self,
        name: str,
        arguments: bytes,
        caller: Any,
        *,
        identity: Any,
        internal: bool,
        window: int = 0,
        session: bytes | None = None,
        parent: object = None,
    ) -> Any:
        self.begun.append((name, window, caller))
        self.identities.append(identity)
        if self.refuses:
            caller.action_over(None, ErrorBody("overloaded", "there are too many"))
        return ActionDouble(self, name)


class ActionDouble:
    """One action that was begun, and prints nothing."""

    lines = ()

    def __init__(self, actions: NoActions, name: str) -> None:
        self._actions = actions
        self._name = name

    def leave(self) -> None:
        self._actions.left.append(self._name)

    def credit(self, size: int) -> None:
        self._actions.credits.append(size)


class Place:
    """A hub over a core that a test goes through step by step."""

    def __init__(
        self, verifier: Verifier | None = None, admitted: AdmissionLimits | None = None, **limits: Any
    ) -> None:
        self.now_s = 0.0
        self.wall_s = WALL_S
        self.turn: list[Callable[[], None]] = []
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.steps = Steps()
        self.steps.deliver = lambda session, answers, moved: session.handle.deliver(answers, moved)  # type: ignore[method-assign]
        self.mutations = NoMutations()
        self.actions = NoActions()
        metrics = Metrics()
        self.sign_ins = SignIns(
            verifier, SignInLimits(), metrics.identity, lambda: self.now_s, lambda: self.wall_s + self.now_s
        )
        self.hub = Hub(
            self.steps.core,
            self.mutations,  # type: ignore[arg-type]
            self.actions,  # type: ignore[arg-type]
            b"i" * 16,
            metrics,
            ConnectionLimits(send_buffer_bytes=BUFFER, **limits),
            lambda: self.now_s,
            lambda last_ts: TransientError(f"{last_ts} is ahead"),
            self.sign_ins,
            AdminKeys(b""),
            Admission(admitted or AdmissionLimits(), metrics.limits, lambda: self.now_s),
            soon=self.turn.append,
            later=lambda pause_s, action: self.timers.append((pause_s, action)),
        )

    def client(self, number: int = 0, account: Account | None = None) -> tuple[Connection, MemorySink]:
        """Return a connection that has been welcomed."""
        sink = MemorySink()
        connection = self.hub.accept(sink, account=account)
        assert connection is not None
        say(connection, Connect((1,), bytes([number]) * 16, 0, None, "test"))
        assert isinstance(sink.messages[0], Welcome)
        sink.unsent = 0
        return connection, sink


def say(connection: Connection, *messages: ClientMessage) -> None:
    """Have a client send messages."""
    for message in messages:
        connection.receive(encode_message(message))


def subscribe(
    number: int, name: str, arguments: bytes = b"\x80", journal: bytes | None = None
) -> ModifyQuerySet:
    """Return the message that subscribes to one query, the `number`-th."""
    return ModifyQuerySet(number - 1, number, (AddQuery(number, name, arguments, journal),), ())


CONVEX_SESSION = "d38b0c93-0000-4000-8000-000000000001"


class JsonSink(MemorySink):
    """A client of Convex's protocol that reads when it is told to."""

    def send(self, messages: Sequence[bytes]) -> None:
        self.messages += [json.loads(message) for message in messages]


def convex_client(place: Place) -> tuple[Connection, JsonSink]:
    """Return a connection of a Convex client past its `Connect`."""
    sink = JsonSink()
    connection = place.hub.accept(sink, place.hub.convex)
    assert connection is not None
    tell(connection, "Connect", sessionId=CONVEX_SESSION)
    assert sink.messages == []
    return connection, sink


def tell(connection: Connection, kind: str, **fields: Any) -> None:
    """Have a Convex client send a message."""
    connection.receive(json.dumps({"type": kind, **fields}).encode())
