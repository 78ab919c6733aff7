"""A reactive core with recorded effects, for tests that go through it step by step."""

from __future__ import annotations

from typing import Any

import msgspec
from headwater_protocol.messages import AddQuery
from headwater_server.reactive.contents import Content
from headwater_server.reactive.core import ReactiveCore, ReactiveOptions
from headwater_server.reactive.sessions import QueryResult

from support.plain_results import content_of
from support.reactive_world import WorldWindow

decode = msgspec.msgpack.decode


class Steps:
    """Stands in for server and workers; time is what the test says."""

    def __init__(self, workers: int = 1, **options: Any) -> None:
        self.now = 0.0
        self.ts = 1
        self.window = WorldWindow()
        self.rounds: list[tuple[int, int]] = []
        self.calls: list[tuple[int, int, str, bytes | None, bytes | None]] = []
        self.closed: list[int] = []
        self.sent: list[tuple[Any, list[Any], int | None, dict[int, Any]]] = []
        self.moves: list[Any] = []
        self.on_deliver: Any = None
        self.core = ReactiveCore(self, self.window, lambda: self.now, ReactiveOptions(**options), 1)
        for worker in range(1, workers + 1):
            self.core.add_worker(worker)

    # ------------------------------------------------------------------------ effects

    def open_round(self, worker, round):  # noqa: A002
        self.rounds.append((worker, round))

    def run_query(self, worker, round, call, key, identity):  # noqa: A002
        self.calls.append((round, call, key.name, identity, key.journal))

    def close_round(self, worker, round):  # noqa: A002
        self.closed.append(round)

    def deliver(self, session, answers, moved):
        changes = {number: decode(body) for number, body in moved.changes} if moved else {}
        self.moves.append(moved)
        self.sent.append((session.handle, list(answers), moved.ts if moved else None, changes))
        if self.on_deliver is not None:
            self.on_deliver(session)

    # ------------------------------------------------------------------------ what tests do

    def open(self, ts=None, current=True):
        """Report the oldest ordered round as open."""
        _, number = self.rounds.pop(0)
        if not current:
            self.calls = [call for call in self.calls if call[0] != number]  # the worker drops them
        self.core.round_opened(number, self.ts if ts is None else ts, current)
        self.core.check()
        return number

    def done(self, value, *, points=(b"docs1",), ranges=(), private=False, journal=None, ms=1.0):
        """Report the oldest call as done."""
        number, call, *_ = self.calls.pop(0)
        content = value if isinstance(value, Content) else content_of(value)
        self.core.query_done(
            number, call, QueryResult(content, list(points), list(ranges), private, journal, ms)
        )
        self.core.check()

    def commit(self, *keys, answers=()):
        """Commit and publish."""
        self.ts += 1
        self.window.batches.append((self.ts, list(keys)))
        self.core.publish(self.ts, list(keys), answers)
        self.core.check()

    def subscribe(self, handle, *names, identity=None, journal=None, digest=None):
        """Connect a session and subscribe it to queries, numbered from 1."""
        session = self.core.connect(handle, identity)
        add = [AddQuery(i, name, b"\x80", journal, digest) for i, name in enumerate(names, 1)]
        self.core.modify(session, add, [])
        self.core.check()
        return session

    def take(self):
        """Return what was sent since the last look."""
        sent, self.sent = self.sent, []
        return sent
