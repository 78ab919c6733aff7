"""One client with optimistic updates, a model server of plain lists, and a link between them that delays and is cut
anywhere, also between a commit and its answer.

Two queries show the same rows, so that a torn step is seen; they are so long that a frame holds one of them, so
a new connection is told of them in two messages.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from headwater_protocol.client_events import MutationResolved, UpdateFailed, ValueChanged
from headwater_protocol.codec import decode_client_message, encode_message
from headwater_protocol.limits import CONNECT_FRAME_BYTES
from headwater_protocol.messages import (
    AddQuery,
    Change,
    ErrorBody,
    ModifyQuerySet,
    Mutation,
    MutationAnswer,
    Transition,
    Unchanged,
    Value,
    Version,
    Welcome,
)
from headwater_protocol.values import pack_value, unpack_value

if TYPE_CHECKING:
    from headwater_protocol.client_events import ClientEvent
    from headwater_protocol.client_screen import View
    from headwater_protocol.client_session import ClientSession


LONG = pack_value({"padding": "x" * (CONNECT_FRAME_BYTES * 2 // 3)})
STEPS = ("call", "take", "take", "lose", "tell", "tell", "part", "write", "hear", "hear", "hear", "cut")


class Trial:
    """One client, one server, and the link between them."""

    def __init__(self, client: ClientSession) -> None:
        self.client = client
        self.rows: list[str] = []
        self.ts = 100
        self.outcomes: dict[int, tuple[int, str, bool]] = {}
        self.called: dict[int, str] = {}
        self.resolved: dict[int, bool] = {}
        self.shown: dict[int, Any] = {}
        self.values = 0  # that were looked at
        self.parts = 0  # transitions in which a part of the resumed queries was told
        self.list = client.subscribe("rows:list", LONG)
        self.count = client.subscribe("rows:count", LONG)
        self.connect()

    # ------------------------------------------------------------------------------------------ the server

    def connect(self) -> None:
        self.client.connect()
        self.requests: deque[Mutation] = deque()
        self.added: dict[int, AddQuery] = {}  # by query set, until the client has been told of it
        self.told: dict[int, bytes] = {}
        self.known: dict[int, int] = {}  # queries, by the query set that brought them
        self.version = Version(0, 0, 0)
        self.query_set = 0
        self.link: deque[bytes] = deque(
            [encode_message(Welcome(1, b"i" * 16, self.ts, CONNECT_FRAME_BYTES, 4_000))]
        )
        self.send()

    def send(self) -> None:
        for frame in self.client.take_frames():
            match decode_client_message(frame):
                case ModifyQuerySet(_, new, added):
                    self.query_set = new
                    assert len(added) <= 1, "two of them fit into no frame"
                    for query in added:
                        self.added[new] = query
                        self.known[query.query] = new
                case Mutation() as message:
                    self.requests.append(message)

    def decide(self, message: Mutation) -> tuple[int, str, bool]:
        name = unpack_value(message.arguments)["row"]
        if message.request not in self.outcomes:
            fails = message.request % 4 == 0
            if not fails:
                self.ts += 1
                self.rows = [*self.rows, name]
            self.outcomes[message.request] = self.ts, name, fails
        return self.outcomes[message.request]

    def take(self, *, answer: bool = True) -> None:
        """Run the next mutation, and answer it or not."""
        if not self.requests:
            return
        message = self.requests.popleft()
        known = message.request in self.outcomes
        ts, name, fails = self.decide(message)
        if answer:
            error = ErrorBody("application_error", "refused", pack_value(None)) if fails else None
            value = None if fails else pack_value(name)
            # A resend is answered with the ts at which it was looked up.
            reply = MutationAnswer(message.request, self.ts if known else ts, value, error)
            self.link.append(encode_message(reply))
        else:
            self.cut()

    def tell(self, *, part: bool = False) -> None:
        """Send what has changed since the last transition; `part` of the query set, where more of it is new."""
        query_set = min(self.query_set, self.version.query_set + 1) if part else self.query_set
        end = Version(query_set, 0, self.ts)
        if not query_set or end == self.version:
            return
        self.parts += query_set < self.query_set
        changes = []
        for query, value in ((self.list, self.rows), (self.count, {"rows": len(self.rows)})):
            if self.known[query] > query_set:
                continue
            packed = pack_value(value)
            digest = packed[-30:]
            if self.told.get(query) == digest:
                continue
            self.told[query] = digest
            known = any(added.query == query and added.digest == digest for added in self.added.values())
            changes.append(Change(query, Unchanged(digest) if known else Value(packed, digest)))
        self.added = {number: query for number, query in self.added.items() if number > query_set}
        self.link.append(encode_message(Transition(self.version, end, tuple(changes))))
        self.version = end

    def cut(self) -> None:
        self.see(self.client.disconnected())
        self.connect()

    # ------------------------------------------------------------------------------------------ the client

    def call(self) -> None:
        row = f"row {len(self.called)}"

        def update(view: View) -> None:
            rows, count = view.get("rows:list", LONG), view.get("rows:count", LONG)
            assert (rows is None) == (count is None), "an update sees results of one moment"
            if rows is not None and count is not None:
                view.set("rows:list", LONG, [*rows[0], row])
                view.set("rows:count", LONG, {"rows": count[0]["rows"] + 1})

        request = self.client.mutate("rows:add", pack_value({"row": row}), update)
        self.called[request] = row
        self.see(self.client.take_events())

    def hear(self) -> None:
        if self.link:
            self.see(self.client.receive(self.link.popleft()))

    def see(self, events: list[ClientEvent]) -> None:
        """Look at every single value as a subscriber would, and at the whole behind the step."""
        failing = {event.request for event in events if isinstance(event, MutationResolved) and event.error}
        for event in events:
            assert not isinstance(event, UpdateFailed), event
            if isinstance(event, ValueChanged):
                assert self.shown.get(event.query) != event.value, "the same value twice"
                self.shown[event.query] = event.value
                self.values += 1
                if event.query == self.list:
                    self.check_rows(event.value, failing)
            elif isinstance(event, MutationResolved):
                assert event.request not in self.resolved, "resolved twice"
                self.resolved[event.request] = event.error is None
        if self.list in self.shown:
            rows = self.shown[self.list]
            self.check_rows(rows, set())
            assert self.shown.get(self.count) == {"rows": len(rows)}, "torn"

    def check_rows(self, rows: list[str], failing: set[int]) -> None:
        assert len(set(rows)) == len(rows), f"a change shows twice: {rows}"
        for request, row in self.called.items():
            gone = request in failing or self.resolved.get(request) is False
            assert (row in rows) is not gone, f"{row}, failed: {gone}, in {rows}"
        mine = [row for row in rows if row in self.called.values()]
        assert mine == sorted(mine, key=lambda row: int(row.split()[1])), "out of order"

    # --------------------------------------------------------------------------------------------- running

    def step(self, name: str) -> None:
        match name:
            case "call":
                self.call()
            case "take":
                self.take()
            case "lose":
                self.take(answer=False)
            case "tell":
                self.tell()
            case "part":
                self.tell(part=True)
            case "write":
                self.ts += 1
                self.rows = [*self.rows, f"foreign {self.ts}"]
            case "hear":
                self.hear()
            case "cut":
                self.cut()
        self.send()

    def finish(self) -> None:
        """Let everything arrive; what is shown then is what the server has."""
        for _ in range(4 * len(self.called) + 20):
            for name in ("take", "tell", "hear", "hear", "hear"):
                self.step(name)
        assert set(self.resolved) == set(self.called)
        assert self.shown[self.list] == self.rows


def run(client: ClientSession, steps: list[str]) -> Trial:
    trial = Trial(client)
    for name in steps:
        trial.step(name)
    trial.finish()
    return trial
