"""Takes one rule out of a daemon and its workers, to show that a trial finds its absence.

Python imports this module by itself when its folder is in `PYTHONPATH`; `BROKEN_RULE` names the rule. See
`RunningDaemon.break_rule`.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import queue
import threading
import time
from typing import Any

from headwater_server import switchboard
from headwater_server.worker import serve
from headwater_storage import committer, file_log, recovery
from headwater_storage import timeline as time_lines
from headwater_storage.log import Appended
from msgspec.structs import replace

_STALE_NS = 300_000_000
_LATE_S = 0.3
_BETWEEN_S = 0.02  # a kill has to fall between the two


def ranges() -> None:
    """Proposals are validated by the documents they read; what came into a range or left it is not seen."""
    conflict = committer.conflict
    committer.conflict = lambda window, pending, proposal: conflict(
        window, pending, replace(proposal, ranges=[])
    )


def points() -> None:
    """Proposals are validated by the ranges they read; that a document changed is not seen."""
    conflict = committer.conflict
    committer.conflict = lambda window, pending, proposal: conflict(
        window, pending, replace(proposal, points=[])
    )


def stale() -> None:
    """A worker reads an old snapshot and says that it was the newest."""

    class Old:
        def __init__(self, old: Any, state: Any) -> None:
            self._old = old
            self.state = state

        def __getattr__(self, name: str) -> Any:
            return getattr(self._old, name)

    fresh = serve.Server._fresh_snapshot
    held: list[Any] = [None, 0]

    def fresh_snapshot(self: Any, now_ns: int) -> Any:
        if held[0] is None or now_ns - held[1] > _STALE_NS:
            held[:] = [self._store.snapshot(), now_ns]
        return Old(held[0], fresh(self, now_ns).state)

    serve.Server._fresh_snapshot = fresh_snapshot


def identities() -> None:
    """Results that read the identity are shared with everybody, as others are."""
    result = switchboard.QueryResult
    switchboard.QueryResult = lambda **fields: result(**fields | {"identity_read": False})  # type: ignore[assignment, misc]


def identity_once() -> None:
    """Who may share a query's results is decided by its first run, whatever later ones read."""
    result = switchboard.QueryResult
    read_by: dict[str, bool] = {}
    done = switchboard.Switchboard.round_query_done

    def round_query_done(self: Any, worker: int, number: int, call: int, name: str, message: Any) -> None:
        first = read_by.setdefault(name, message.identity_read)
        switchboard.QueryResult = lambda **fields: result(**fields | {"identity_read": first})  # type: ignore[assignment, misc]
        done(self, worker, number, call, name, message)

    switchboard.Switchboard.round_query_done = round_query_done  # type: ignore[method-assign]


def log_first() -> None:
    """Commits are answered before they are in the log, and a start does not notice that the log lacks them."""
    recovery.newest_shown = lambda *_: 0
    append = file_log.FileLog.append
    waiting: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()

    def write() -> None:
        while True:
            log, record = waiting.get()
            time.sleep(_LATE_S)
            append(log, record)

    threading.Thread(target=write, daemon=True).start()

    def append_later(log: Any, record: Any) -> Any:
        waiting.put((log, record))
        return Appended()

    file_log.FileLog.append = append_later


def timeline() -> None:
    """Time is what the wall clock says."""
    time_lines.Timeline.next_us = lambda self: self._clock.wall_us()


def drained() -> None:
    """A daemon that is to stop does not wait for what it has accepted."""
    importlib.import_module("headwater_server.app").Daemon.is_busy = False


def farewell() -> None:
    """A daemon that stops does not tell its clients."""
    importlib.import_module("headwater_server.net.hub").Hub.drain = lambda self: self.refuse_new()


def heartbeat() -> None:
    """The daemon neither sends heartbeats nor misses them."""
    sessions = importlib.import_module("headwater_protocol.server_session")
    sessions.ServerSession.tick = lambda self, now_mono: []


def blocked() -> None:
    """A client that does not read is sent everything all the same."""
    importlib.import_module("headwater_server.net.hub").Hub.blocked = lambda self, connection: None


def shed() -> None:
    """Mutations are taken however many wait."""
    mutations = importlib.import_module("headwater_server.functions.mutations")
    mutations.Mutations._refusal = lambda self, *_, **__: None
    mutations.Mutations.is_full = False


def paused() -> None:
    """Mutations of a client that does not read its answers are run all the same."""
    mutations = importlib.import_module("headwater_server.functions.mutations")
    mutations.Mutations.pause = lambda self, queue: None


def slow_rounds() -> None:
    """No query counts as slow: it runs in one round with others, and they wait for it."""
    rounds = importlib.import_module("headwater_server.reactive.rounds")
    rounds.RoundLimits.__init__.__defaults__ = (1e9, 1e9, *rounds.RoundLimits.__init__.__defaults__[2:])


def gate() -> None:
    """What clients send over WebSocket reaches the library's reader unseen."""
    frame_gate = importlib.import_module("headwater_server.net.frame_gate")
    frame_gate.FrameGate.look_at = lambda self, data: None


def remembered() -> None:
    """The daemon keeps each connection that has ended, and what it had subscribed to."""
    core = importlib.import_module("headwater_server.reactive.core")
    core.ReactiveCore.disconnect = lambda self, session: None


def kept_bundles() -> None:
    """Workers of a bundle that was replaced stay."""
    roster = importlib.import_module("headwater_server.functions.roster")
    roster.Roster.end = lambda self, generation: None


def old_bundle() -> None:
    """Calls go to the workers of the bundle before for a while after a switch, and these do not look which is active."""
    serve.Server._is_current = lambda self, snapshot: True
    pool = importlib.import_module("headwater_server.functions.pool").WorkerPool
    activate = pool.activate

    def activate_late(self: Any, name: str) -> None:
        if self.active_bundle is None:
            activate(self, name)
        else:
            self._loop.call_later(_LATE_S, activate, self, name)

    pool.activate = activate_late


def convex_chain() -> None:
    """A transition to a Convex client does not begin where the last one ended."""
    session = importlib.import_module("headwater_server.convex.session")
    text = session.transition_text
    session.transition_text = lambda start, end, parts: text(end, end, parts)


def convex_order() -> None:
    """Answers of a commit come behind the transitions that show it."""
    core = importlib.import_module("headwater_server.reactive.core").ReactiveCore
    session = importlib.import_module("headwater_server.convex.session").ConvexSession
    publish, answer = core.publish, session.mutation_answer

    def publish_first(self: Any, ts: int, keys: Any, answers: Any, writers: Any) -> None:
        publish(self, ts, keys, (), writers)
        for answered in answers:
            asyncio.get_running_loop().call_later(_LATE_S, self.answer, *answered)

    core.publish = publish_first
    session.mutation_answer = lambda self, *what, committed: answer(self, *what)


def convex_uncovered() -> None:
    """No transition follows the answer of a mutation that failed."""
    session = importlib.import_module("headwater_server.reactive.sessions").Session
    take = session.take_answer

    def take_answer(self: Any, answer: Any, ts: int) -> None:
        due = self.due
        take(self, answer, ts)
        self.due = due or answer[1].error is None

    session.take_answer = take_answer


def convex_error_data() -> None:
    """Ordinary errors have `errorData`, too: null."""
    for name in ("session", "bodies"):
        module = importlib.import_module(f"headwater_server.convex.{name}")
        told = module.told
        module.told = lambda error, told=told: (
            lambda made: made if made.data else made._replace(data=b"null")
        )(told(error))


def job_row() -> None:
    """That a scheduled mutation has run is written behind its commit, not in it."""
    job_memory = importlib.import_module("headwater_server.worker.job_row").JobMemory
    job_memory.keep = lambda self, outcome, failure: None
    scheduler = importlib.import_module("headwater_server.jobs.scheduler")
    run_mutation = scheduler.JobScheduler._run_mutation

    async def run_then_write(self: Any, job: Any, deaths: int) -> Any:
        code = await run_mutation(self, job, deaths)
        if code is None:
            await asyncio.sleep(_BETWEEN_S)
            await self._database.transact(lambda t: scheduler.jobs.finish(t, job, "success"))
        return code

    scheduler.JobScheduler._run_mutation = run_then_write


def job_marked() -> None:
    """An action is not marked as running before it begins."""
    scheduler = importlib.import_module("headwater_server.jobs.scheduler")
    scheduler.jobs.start = scheduler.jobs.read

    async def succeed(self: Any, job_id: str) -> None:
        await self._database.transact(
            lambda t: scheduler.jobs.finish(t, scheduler.jobs.read(t, job_id), "success")
        )

    scheduler.JobScheduler._succeed = succeed


RULES = {
    "convex_chain": convex_chain,
    "convex_order": convex_order,
    "convex_uncovered": convex_uncovered,
    "convex_error_data": convex_error_data,
    "job_row": job_row,
    "job_marked": job_marked,
    "old_bundle": old_bundle,
    "identities": identities,
    "identity_once": identity_once,
    "remembered": remembered,
    "kept_bundles": kept_bundles,
    "gate": gate,
    "slow_rounds": slow_rounds,
    "paused": paused,
    "shed": shed,
    "blocked": blocked,
    "heartbeat": heartbeat,
    "drained": drained,
    "farewell": farewell,
    "ranges": ranges,
    "points": points,
    "stale": stale,
    "log_first": log_first,
    "timeline": timeline,
}
RULES[os.environ["BROKEN_RULE"]]()
