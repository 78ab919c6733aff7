"""Histories of the Python client session, call by call, as the TypeScript one is to repeat them.

`python -m support.recorded_sessions world 3 5` prints the sessions of random histories 3 to 7 of one kind, a
JSON object a line:

- `link`: a session in front of a model server, on a link that is cut at random;
- `updates`: the same with optimistic updates, answers that are lost and resumes in several messages;
- `world`: the sessions of all clients of the simulated world: the real server, with crashes and faults.

Bytes are hex, values the hex of their encoding. An update is written as what it read and set each time it was
run, so that whoever repeats it sees what another session would have shown it.
"""

from __future__ import annotations

import json
import random
import sys
from typing import TYPE_CHECKING, Any

from headwater.client import aio
from headwater_protocol import client_events
from headwater_protocol.client_session import ClientSession
from headwater_protocol.errors import HeadwaterError
from headwater_protocol.values import pack_value

from support.cut_link import Run
from support.optimism_trial import STEPS, run
from support.world.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headwater_protocol.client_events import ClientEvent
    from headwater_protocol.client_screen import Update, View

LINK_STEPS, QUIET_STEPS, UPDATE_STEPS = 150, 300, 60


class RecordedView:
    """What an update finds, each look and change written down."""

    def __init__(self, view: View, looks: list[Any], known: list[str]) -> None:
        self._view = view
        self._looks = looks
        self._known = known

    def _place(self, arguments: bytes) -> int:
        """Return where arguments stand among those of the session: some are long and looked up often."""
        text = arguments.hex()
        if text not in self._known:
            self._known.append(text)
        return self._known.index(text)

    def get(self, name: str, arguments: bytes) -> tuple[Any] | None:
        found = self._view.get(name, arguments)
        self._looks.append(
            ["get", name, self._place(arguments), None if found is None else pack_value(found[0]).hex()]
        )
        return found

    def set(self, name: str, arguments: bytes, value: Any) -> None:
        self._looks.append(["set", name, self._place(arguments), pack_value(value).hex()])
        self._view.set(name, arguments, value)


class RecordedSession(ClientSession):
    """A client session that writes down each call: name, arguments, what came of it, and where it stood then.

    Attributes:
        calls: So far.
        known: Arguments of queries that updates have looked at.
    """

    def __init__(self, session: bytes, client: str) -> None:
        super().__init__(session, client)
        self.calls: list[Any] = []
        self.known: list[str] = []
        self.head = {"session": session.hex(), "client": client}
        RECORDED.append(self)

    def _record(self, name: str, arguments: list[Any], call: Callable[[], Any], write: Any = None) -> Any:
        entry: dict[str, Any] = {"call": name, "arguments": arguments}
        self.calls.append(entry)
        try:
            result = call()
        except HeadwaterError as error:
            entry["raises"] = error.code
            raise
        entry["result"] = result if write is None else write(result)
        entry["stands"] = [self.in_flight, self.settled]
        return result

    def subscribe(self, name: str, arguments: bytes, *, confirmed: bool = False) -> int:
        return self._record(
            "subscribe",
            [name, arguments.hex(), confirmed],
            lambda: super(RecordedSession, self).subscribe(name, arguments, confirmed=confirmed),
        )

    def unsubscribe(self, query: int) -> None:
        self._record("unsubscribe", [query], lambda: super(RecordedSession, self).unsubscribe(query))

    def mutate(self, name: str, arguments: bytes, update: Update | None = None) -> int:
        runs: list[Any] = []

        def recorded(view: View) -> None:
            looks: list[Any] = []
            runs.append(looks)
            assert update is not None
            update(RecordedView(view, looks, self.known))  # type: ignore[arg-type]

        return self._record(
            "mutate",
            [name, arguments.hex(), None if update is None else runs],
            lambda: super(RecordedSession, self).mutate(name, arguments, update and recorded),
        )

    def act(self, name: str, arguments: bytes) -> int:
        return self._record(
            "act", [name, arguments.hex()], lambda: super(RecordedSession, self).act(name, arguments)
        )

    def authenticate(self, token: str | None, *, refresh: bool = False) -> None:
        self._record(
            "authenticate",
            [token, refresh],
            lambda: super(RecordedSession, self).authenticate(token, refresh=refresh),
        )

    def abandon(self, request: int) -> None:
        raise AssertionError("no client in TypeScript abandons a call")

    def take_events(self) -> list[ClientEvent]:
        return self._record("takeEvents", [], super().take_events, written)

    def take_frames(self) -> list[bytes]:
        return self._record("takeFrames", [], super().take_frames, lambda frames: [f.hex() for f in frames])

    def connect(self) -> None:
        self._record("connect", [], super().connect)

    def disconnected(self) -> list[ClientEvent]:
        return self._record("disconnected", [], super().disconnected, written)

    def renew(self, session: bytes) -> list[ClientEvent]:
        return self._record(
            "renew", [session.hex()], lambda: super(RecordedSession, self).renew(session), written
        )

    def tick(self, now_mono: float) -> list[ClientEvent]:
        # Of 1/1024 s, so that the time in milliseconds is exactly the same, and what is due at it too.
        now = round(now_mono * 1024) / 1024
        return self._record("tick", [now * 1000], lambda: super(RecordedSession, self).tick(now), written)

    def receive(self, frame: bytes) -> list[ClientEvent]:
        return self._record(
            "receive", [frame.hex()], lambda: super(RecordedSession, self).receive(frame), written
        )


RECORDED: list[RecordedSession] = []  # of the history that is being made


def written(events: list[ClientEvent]) -> list[Any]:
    """Return events as the other session's are compared with them."""
    return [_event(event) for event in events]


def _event(event: ClientEvent) -> list[Any]:
    match event:
        case client_events.ValueChanged(query, value):
            return ["QueryChanged", query, _outcome(value, None)]
        case client_events.QueryFailed(query, error):
            return ["QueryChanged", query, _outcome(None, error)]
        case client_events.MutationResolved(request, value, error):
            return ["Resolved", request, _outcome(value, error)]
        case client_events.ActionResolved(request, value, error):
            return ["Resolved", request, _outcome(value, error)]
        case client_events.UpdateFailed(request):
            return ["UpdateFailed", request]
        case client_events.Moved(ts):
            return ["Moved", ts]
        case client_events.Fatal(error, reconnect):
            return ["Fatal", error.code, reconnect]
        case client_events.AuthenticationFailed(message) | client_events.IdentityLost(message):
            return [type(event).__name__, message]
        case _:
            return [type(event).__name__]


def _outcome(value: Any, error: HeadwaterError | None) -> list[str]:
    if error is None:
        return ["value", pack_value(value).hex()]
    return ["error", error.code, pack_value(error.data).hex()]


def link(seed: int) -> None:
    """Make a history on a link that is cut."""
    history = Run(seed, RecordedSession(b"s" * 16, "test"))
    for _ in range(LINK_STEPS):
        history.step()
    for _ in range(QUIET_STEPS):
        history.step(quiet=True)


def updates(seed: int) -> None:
    """Make a history with optimistic updates."""
    run(RecordedSession(b"s" * 16, "test"), random.Random(seed).choices(STEPS, k=UPDATE_STEPS))


def world(seed: int) -> None:
    """Make a history of the whole system."""
    World(seed).run()


KINDS: dict[str, Callable[[int], None]] = {"link": link, "updates": updates, "world": world}


def histories(kind: str, first: int, count: int) -> Iterator[dict[str, Any]]:
    """Yield the sessions of histories, one after the other."""
    aio.ClientSession = RecordedSession  # type: ignore[misc, attr-defined] # what the world's clients are made of
    for seed in range(first, first + count):
        RECORDED.clear()
        KINDS[kind](seed)
        for session in RECORDED:
            yield {"seed": seed, **session.head, "known": session.known, "calls": session.calls}


if __name__ == "__main__":
    for recorded in histories(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])):
        json.dump(recorded, sys.stdout)
        sys.stdout.write("\n")
