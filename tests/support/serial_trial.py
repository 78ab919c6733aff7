"""Clients that run transactions of the bundle `registers` against a real daemon, and what they saw.

The daemon, its workers and its zygote are killed meanwhile, as often as one likes.
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headwater.client.subscription import Slot
from headwater_protocol.client_events import ValueChanged
from headwater_protocol.errors import HeadwaterError
from headwater_server.worker.request_row import REQUEST_NUMBER_BYTES
from headwater_storage.catalog import REQUESTS
from headwater_storage.directory import DataDirectory
from headwater_storage.files import RealFileSystem
from headwater_storage.keys import document_key
from headwater_storage.log_format import decode_segment_header
from headwater_storage.segments import find_segments, read_log

from support.history import Outcome, Transaction, find_anomalies
from support.registers import Model, Script, Step, operations

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from headwater_protocol.client_events import ClientEvent

    from support.daemon import RunningDaemon
from support.eager_client import EagerClient

_LOOKS = 0.15
_DECIDED_TIMEOUT_S = 120.0
# What a client is told when its call was ended: it is decided, and nothing of it happened.
_WITHOUT_EFFECT = {"application_error", "worker_died", "time_limit", "conflict"}


@dataclass(slots=True, eq=False)
class Seen:
    """One transaction as its client saw it.

    Attributes:
        steps: What it was to do.
        began_s: Monotonic time before it was sent.
        request: Session and number of a mutation.
        ended_s: Monotonic time after its answer came.
        results: What its steps read; None if it failed, or the answer never came.
        outcome: How it ended.
        ts: Of a query: the commit ts it was shown at.
    """

    steps: list[Step]
    began_s: float
    request: tuple[bytes, int] | None = None
    ended_s: float = math.inf
    results: list[Any] | None = None
    outcome: Outcome = Outcome.UNKNOWN
    ts: int = 0


class NotingClient(EagerClient):
    """A client that also tells under which number a mutation runs, and at which ts a query was shown."""

    def __init__(self, url: str, chance: random.Random) -> None:
        super().__init__(url, chance)
        self._shown_ts: dict[int, int] = {}
        self._last = 0

    async def change(self, seen: Seen) -> Any:
        """Run a mutation; its request is noted as soon as it has a number."""
        self._last += 1
        seen.request = self._session.session, self._last
        return await self.mutation("registers:change", steps=seen.steps)

    async def look(self, seen: Seen) -> Any:
        """Run a query and note its ts."""
        slot = Slot()
        number = self._follow("registers:look", {"steps": seen.steps}, slot)
        try:
            value = await slot.take()
            seen.ts = self._shown_ts.pop(number)
        finally:
            self._unfollow(number)
        return value

    def _dispatch(self, events: Sequence[ClientEvent]) -> None:
        for event in events:
            if isinstance(event, ValueChanged):
                self._shown_ts[event.query] = self._session.version.ts
        super()._dispatch(events)


@dataclass
class Kills:
    """How often what was killed."""

    daemons: int = 0
    workers: int = 0
    zygotes: int = 0


@dataclass
class SerialTrial:
    """One trial.

    Attributes:
        daemon: Runs, with the bundle deployed.
        chance: Decides what is run and killed, though not when what happens.
        clients: How many run transactions, each one at a time.
        seen: All transactions that were begun.
        wrong: Answers that should not have come.
        kills: What was killed.
    """

    daemon: RunningDaemon
    chance: random.Random
    clients: int
    seen: list[Seen] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    kills: Kills = field(default_factory=Kills)

    def __post_init__(self) -> None:
        self._script = Script(self.chance)
        self._stopping = False
        self._decided = 0

    @property
    def operations(self) -> int:
        """How many operations were answered, reads and writes."""
        return sum(len(seen.steps) for seen in self.seen if seen.outcome is Outcome.COMMITTED)

    async def run(self, transactions: int, *, lives: int = 1) -> None:
        """Run so many transactions over so many lives of the daemon; all are decided at the end."""
        urls = [self.daemon.url, self.daemon.tcp_url]
        clients = [NotingClient(self.chance.choice(urls), self.chance) for _ in range(self.clients)]
        async with asyncio.TaskGroup() as tasks:
            for client in clients:
                await client.__aenter__()
            running = [tasks.create_task(self._work(client)) for client in clients]
            try:
                for life in range(lives):
                    await self._live(transactions // lives)
                    if life < lives - 1:
                        await self._kill(life)
                self._stopping = True
                async with asyncio.timeout(_DECIDED_TIMEOUT_S):
                    await asyncio.wait(running)
                for steps in self._script.everything():
                    await self._look(clients[0], steps)
            finally:
                self._stopping = True
                for client in clients:
                    await client.close()

    async def _live(self, transactions: int) -> None:
        enough = self._decided + transactions
        async with asyncio.timeout(_DECIDED_TIMEOUT_S + transactions):
            while self._decided < enough:
                await asyncio.sleep(0.005)

    async def _kill(self, life: int) -> None:
        match life % 4:
            case 0:
                self.kills.workers += self.daemon.kill_worker(self.chance)
                await asyncio.sleep(self.chance.uniform(0.0, 0.3))
            case 2:
                self.kills.zygotes += self.daemon.kill_zygote()
                await asyncio.sleep(self.chance.uniform(0.0, 0.3))
        await asyncio.to_thread(self.daemon.kill)
        self.kills.daemons += 1
        self.daemon.launch()
        if life % 5 == 4:  # recovery is cut off as well
            await asyncio.sleep(self.chance.uniform(0.1, 1.0))
            await asyncio.to_thread(self.daemon.kill)
            self.kills.daemons += 1
            self.daemon.launch()
        await asyncio.to_thread(self.daemon.wait_ready)

    async def _work(self, client: NotingClient) -> None:
        while not self._stopping:
            if self.chance.random() < _LOOKS:
                await self._look(client, self._script.look())
            else:
                await self._change(client, self._script.change())
            self._decided += 1

    async def _look(self, client: NotingClient, steps: list[Step]) -> None:
        seen = Seen(steps, time.monotonic())
        try:
            seen.results = await client.look(seen)
        except HeadwaterError as error:
            self._failed(seen, error)
            return
        seen.ended_s = time.monotonic()
        seen.outcome = Outcome.COMMITTED
        self.seen.append(seen)

    async def _change(self, client: NotingClient, steps: list[Step]) -> None:
        seen = Seen(steps, time.monotonic())
        self.seen.append(seen)
        try:
            seen.results = await client.change(seen)
        except HeadwaterError as error:
            seen.ended_s = time.monotonic()
            seen.outcome = Outcome.FAILED
            self._failed(seen, error)
            return
        seen.ended_s = time.monotonic()
        seen.outcome = Outcome.COMMITTED
        self._script.learn(steps, seen.results or [])

    def _failed(self, seen: Seen, error: HeadwaterError) -> None:
        asked_for = seen.steps[-1] == ["fail"]
        if error.code not in _WITHOUT_EFFECT or (error.code == "application_error" and not asked_for):
            self.wrong.append(f"{error.code}: {error.message}")


def cycles(trial: SerialTrial) -> list[str]:
    """Return what no order of the transactions explains, and answers that should not have come."""
    history = [
        Transaction(
            number, seen.began_s, seen.ended_s, operations(seen.steps, seen.results), outcome=seen.outcome
        )
        for number, seen in enumerate(trial.seen)
    ]
    return [f"{anomaly.kind}: {anomaly.text}" for anomaly in find_anomalies(history)] + trial.wrong


def differences(trial: SerialTrial) -> list[str]:
    """Run what was committed in the order of the log, one after the other; return what reads otherwise there.

    The daemon must have ended.
    """
    commit_ts = requests_in_log(trial.daemon)
    found = []
    placed: list[tuple[int, int, Seen]] = []
    for number, seen in enumerate(trial.seen):
        if seen.request is None:
            placed.append((seen.ts, 1 + number, seen))
        elif seen.outcome is Outcome.COMMITTED:
            ts = commit_ts.get(seen.request)
            if ts is None:
                found.append(f"transaction {number} was acknowledged and is not in the log")
            else:
                placed.append((ts, 0, seen))
    model = Model()
    for ts, _, seen in sorted(placed, key=lambda one: one[:2]):
        difference = model.difference(seen.steps, seen.results or [])
        if difference is not None:
            found.append(f"at {ts}: {difference}")
    return found


def requests_in_log(daemon: RunningDaemon) -> dict[tuple[bytes, int], int]:
    """Return the commit ts of every request, by session and number, as the log has them."""
    files, folder = RealFileSystem(), DataDirectory(daemon.data).log_folder
    first_number, path = find_segments(files, folder)[0]
    assert first_number == 1, "the log of the whole trial has to be there: make the trial shorter"
    log_id = decode_segment_header(path.read_bytes()[:4096], str(path)).log_id
    prefix = document_key(REQUESTS, b"")
    found: dict[tuple[bytes, int], int] = {}
    for record in read_log(files, folder, log_id, 1):
        for ts, transaction in enumerate(record.transactions, record.first_ts):
            for key, value in transaction.writes:
                if value is not None and key.startswith(prefix):
                    session, number = key[len(prefix) : -REQUEST_NUMBER_BYTES], key[-REQUEST_NUMBER_BYTES:]
                    assert (session, int.from_bytes(number, "big")) not in found, "one request, two commits"
                    found[session, int.from_bytes(number, "big")] = ts
    return found
