"""Connects the parts on the event loop: commits, function runs and clients meet the reactive core here.

Three roles, each a few lines a method: listener of the engine (a batch was published),
listener of the pool (workers come, go and answer), and the effects of the core (run this,
send that). Nothing here waits.
"""

from __future__ import annotations

import heapq
import logging
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from headwater_storage.catalog import ACTIVE_BUNDLE_KEY
from headwater_storage.proposal import CommitTs

from headwater_server.observe.call_log import CallEvent
from headwater_server.reactive.contents import Content
from headwater_server.reactive.sessions import QueryResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from headwater_protocol.errors import HeadwaterError
    from headwater_protocol.messages import ErrorBody
    from headwater_storage.committer import Commit, PublishedBatch

    from headwater_server.functions.document_checks import DocumentChecks
    from headwater_server.functions.failures import CallReporter
    from headwater_server.functions.mutations import Decision, MutationCall, Mutations
    from headwater_server.functions.pool import WorkerPool
    from headwater_server.observe.metrics import Metrics
    from headwater_server.observe.push_traces import PushTraces
    from headwater_server.observe.traces import CallTrace
    from headwater_server.reactive.core import ReactiveCore
    from headwater_server.reactive.moves import Moved
    from headwater_server.reactive.sessions import QueryKey, Session, Version
    from headwater_server.worker.messages import Failure, QueryDone, RoundOpened

logger = logging.getLogger("headwater.switchboard")

_RERUNS_MAX = 1_000


class Switchboard:
    """Between engine, worker pool, mutations, reactive core and connections.

    Attributes:
        core: Set once, right after construction: the core needs its effects first.
        mutations: Likewise.
        switch_bundle: Called in the step that publishes a commit of the row "active bundle".
        handed_out: Tells the oldest ts that somebody may still ask a query's result of.
        document_checks: Of a deploy that is under way; told what is written.
        scheduled: Told when jobs are due that a commit has scheduled, once it is published.
    """

    core: ReactiveCore
    mutations: Mutations

    def __init__(
        self,
        pool: WorkerPool,
        reporter: CallReporter,
        metrics: Metrics,
        *,
        clean_readers: Callable[[], object],
        after_publish: Callable[[], None],
    ) -> None:
        self.switch_bundle: Callable[[], None] | None = None
        self.document_checks: DocumentChecks | None = None
        self.scheduled: Callable[[int], None] = lambda _: None
        self._pool = pool
        self._reporter = reporter
        self._metrics = metrics
        self._clean_readers = clean_readers
        self._after_publish = after_publish
        self.handed_out: Callable[[], int | None] = lambda: None
        self._held: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()
        self._pushes: PushTraces | None = None  # set by `follow`
        self._followed: list[CallTrace] = []  # of the batch that is being published
        self._rerun: dict[int, tuple[str, bytes]] = {}  # live queries that run while pushes wait, by call

    def when_published(self, ts: int, action: Callable[[], None]) -> None:
        """Do something once `ts` is published: at once if it is."""
        if ts <= self.core.published_ts:
            action()
        else:
            heapq.heappush(self._held, (ts, next(self._order), action))

    # ------------------------------------------------------------------ from the engine

    def published(self, batch: PublishedBatch) -> None:
        """Answers, stale queries, sessions: all that a commit means to clients, in one step."""
        decided = []
        answers: list[tuple[Session, Any, int]] = []
        if self._pushes is not None:
            self._followed = _followed(batch)
        for call, ts, _ in batch.commits:
            decision = self.mutations.committed(call, ts)
            decided.append((call, decision))
            session = self.mutations.session_of(call)
            if session is not None:
                answers.append((session, (call.number, decision), ts))
        if self.document_checks is not None:
            self.document_checks.published(batch.conflict_keys)
        if self.switch_bundle is not None and ACTIVE_BUNDLE_KEY in batch.conflict_keys:
            self.switch_bundle()
        self.core.publish(batch.ts, batch.conflict_keys, answers, partial(_writers, batch.commits))
        self._after_publish()
        while self._held and self._held[0][0] <= batch.ts:
            heapq.heappop(self._held)[2]()
        for call, decision in decided:
            if call.first_due_us is not None:
                self.scheduled(call.first_due_us)
            if call.request is None:
                call.decided(call, decision)
            self.mutations.finish(call, decision)
        self._metrics.batches.inc()
        self._metrics.commits.inc(len(decided))
        self._metrics.published_ts.set(batch.ts)

    def rejected(self, owner: MutationCall, error: HeadwaterError) -> None:
        """A proposal did not commit."""
        self.mutations.refused(owner, error)

    def oldest_ts(self) -> CommitTs | None:
        """Return the ts that the commit window must reach back to: no open round or running call began before it."""
        asked = (self.core.oldest_ts(), self.mutations.oldest_ts(), self.handed_out())
        open_since = [ts for ts in asked if ts is not None]
        return CommitTs(min(open_since)) if open_since else None

    # ------------------------------------------------------------------ from the pool

    def worker_ready(self, worker: int) -> None:
        """A worker takes rounds."""
        self._metrics.workers.inc()
        self.core.add_worker(worker)

    def worker_gone(self, worker: int, reason: str) -> None:
        """A worker takes no more rounds."""
        self._metrics.workers.dec()
        self.core.remove_worker(worker, retired=True)  # a guilty query has been reported by itself

    def worker_ended(self, worker: int, *, planned: bool) -> None:
        """A worker process is gone: free its place in the store's reader table."""
        if not planned:
            self._metrics.worker_deaths.inc()
        self._clean_readers()

    def round_opened(self, worker: int, message: RoundOpened) -> None:
        """A round has its transaction."""
        self.core.round_opened(message.round, message.ts, message.bundle_current)

    def round_query_done(self, worker: int, round_number: int, call: int, name: str, done: QueryDone) -> None:
        """A query of a round has run."""
        outcome = done.failure.code if done.failure else "success"
        self._metrics.calls.labels("query", outcome).inc()
        error = self._reporter.query_ended(name, done, "subscription")
        result = QueryResult(
            content=_content(done, error),
            points=done.points,
            ranges=done.ranges,
            identity_read=done.identity_read,
            journal=done.journal,
            duration_ms=done.usage.duration_us / 1000,
        )
        self.core.query_done(round_number, call, result)

    def round_query_killed(
        self, worker: int, round_number: int, call: int, name: str, failure: Failure
    ) -> None:
        """A query of a round was ended by force."""
        self._metrics.calls.labels("query", failure.code).inc()
        error = self._reporter.ended(CallEvent("query", name, "subscription", failure.code), failure)
        assert error is not None, "it failed"
        if failure.code == "worker_died":
            # It may have been somebody's kill: the query runs elsewhere, and is blamed if that worker dies too.
            self.core.remove_worker(worker)
        else:
            self.core.query_killed(round_number, call, error)

    # ------------------------------------------------------------------ effects of the core

    def open_round(self, worker: int, round: int) -> None:  # noqa: A002
        """Have a worker open a read transaction."""
        self._pool.open_round(worker, round)

    def run_query(
        self,
        worker: int,
        round: int,  # noqa: A002
        call: int,
        key: QueryKey,
        identity: bytes | None,
    ) -> None:
        """Have a query run in a round."""
        self._pool.run_round_query(
            worker, round, call, key.name, key.arguments, identity, key.journal, internal=key.internal
        )

    def close_round(self, worker: int, round: int) -> None:  # noqa: A002
        """Have a worker close a round's transaction."""
        self._pool.close_round(worker, round)

    def follow(self, pushes: PushTraces) -> None:
        """Tell what becomes of commits that are followed; from now on."""
        self._pushes = pushes
        self.core.live.heard = self._stale
        # Who does not follow calls does not pay for it.
        self.deliver = self._deliver_followed  # type: ignore[method-assign]
        self.run_query = self._run_query_followed  # type: ignore[method-assign]
        self.round_query_done = self._round_query_done_followed  # type: ignore[method-assign]

    def _stale(self, hits: Mapping[Version, bytes], ts: int) -> None:
        if self._followed and self._pushes is not None:
            queries = (query.key[:2] for version in hits for query in version.homes)
            self._pushes.published(ts, self._followed, _sessions_of(hits), queries)

    def _run_query_followed(
        self,
        worker: int,
        round: int,  # noqa: A002
        call: int,
        key: QueryKey,
        identity: bytes | None,
    ) -> None:
        if self._pushes is not None and self._pushes.waiting:
            if len(self._rerun) >= _RERUNS_MAX:  # those of workers that have ended stay
                self._rerun.clear()
            self._rerun[call] = key[:2]
        Switchboard.run_query(self, worker, round, call, key, identity)

    def _round_query_done_followed(
        self, worker: int, round_number: int, call: int, name: str, done: QueryDone
    ) -> None:
        query = self._rerun.pop(call, None)
        if query is not None and self._pushes is not None:
            self._pushes.ran(query, done)
        Switchboard.round_query_done(self, worker, round_number, call, name, done)

    def _deliver_followed(
        self, session: Session, answers: Sequence[tuple[int, Decision]], moved: Moved | None
    ) -> None:
        session.handle.deliver(answers, moved)
        if moved is not None and self._pushes is not None:
            self._pushes.delivered(session, moved.ts)

    def deliver(self, session: Session, answers: Sequence[tuple[int, Decision]], moved: Moved | None) -> None:
        """Send a client its answers and its transition."""
        session.handle.deliver(answers, moved)


def _writers(commits: Sequence[Commit], keys: AbstractSet[bytes]) -> dict[bytes, str]:
    """Return the function that wrote each of some keys, the first one that did, as far as these commits did."""
    found: dict[bytes, str] = {}
    for call, _, proposal in commits:
        for key in proposal.written_among(keys):
            found.setdefault(key, call.name)
        if len(found) == len(keys):
            break
    return found


def _followed(batch: PublishedBatch) -> list[CallTrace]:
    """Return the traces of those commits of a batch that are followed, told of it."""
    found = []
    for call, ts, _ in batch.commits:
        if call.trace is not None:
            call.trace.committed(ts, batch.times)
            found.append(call.trace)
    return found


def _sessions_of(versions: Iterable[Version]) -> Iterator[Session]:
    """Yield the sessions that these versions were shown to; one may come more than once."""
    for version in versions:
        for query in version.homes:
            for view in query.views:
                if not version.private or view.identity == version.identity:
                    yield from view.sessions


def _content(done: QueryDone, error: ErrorBody | None) -> Content:
    if error is not None:
        return Content.failed(error)
    assert done.content is not None, "else there is an error"
    return Content.of(done.content, done.bounds, done.ids)
