"""The reactive core: which session is shown what, at which commit ts, and what is run for it.

Pure: no IO, no clock but the injected one, no asyncio. The caller reports what happened
(commits published, rounds opened, queries done); the core answers through `Effects`.

Rules it keeps, with the reason:
- All queries of a session hold at one ts. A round gives one: a group of views, one worker, one read
  transaction. What it has to run is known when its ts is; a guess goes along with the order to open it.
- A snapshot newer than the published ts is held; when a result is registered, the commits
  since its snapshot are looked through. So no commit falls between reading and registering.
- A result that turns out equal is not sent again, but its new ranges are registered.
- Versions that may be right at the ts of an open round are kept until it closes.
- A version wakes every view that looks at its query, not only those of its round.
- Answers of a commit enter their sessions in the step that publishes it, before any moves.
- A killed run gives an error that is exempt from the common ts, and is tried again later.
"""

from __future__ import annotations

from itertools import count
from math import inf
from typing import TYPE_CHECKING, Any

from headwater_storage.proposal import CommitTs

from headwater_server.costs import RunCosts
from headwater_server.reactive.contents import ContentStore
from headwater_server.reactive.deltas import ChangeBodies
from headwater_server.reactive.held import HeldBack
from headwater_server.reactive.killed import KilledQueries
from headwater_server.reactive.moves import Moved, Moves
from headwater_server.reactive.rounds import Need, Round, Waiting
from headwater_server.reactive.seam import Effects, ReactiveOptions, Window
from headwater_server.reactive.sessions import (
    FOREVER,
    LiveQuery,
    QueryKey,
    QueryResult,
    Session,
    Subscription,
    Version,
)
from headwater_server.reactive.versions import LiveQueries
from headwater_server.reactive.views import Views

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from headwater_protocol.messages import AddQuery, ErrorBody

    from headwater_server.reactive.moves import Step
    from headwater_server.reactive.reruns import Writers
    from headwater_server.reactive.showing import Showing
    from headwater_server.reactive.views import View

__all__ = ["Effects", "ReactiveCore", "ReactiveOptions", "Window"]


class ReactiveCore:
    """Live queries, sessions and rounds of one daemon.

    Every public method is one step: it leaves all sessions where the rules want them, so
    that `check()` may be called after each. Methods about a round, call or worker that is
    gone do nothing, since reports may cross with its end.
    """

    def __init__(
        self,
        effects: Effects,
        window: Window,
        now_ms: Callable[[], float],
        options: ReactiveOptions,
        published_ts: int,
    ) -> None:
        self.published_ts = published_ts
        self._effects = effects
        self._window = window
        self._now_ms = now_ms
        self._options = options
        self._contents = ContentStore(options.delta_ring_bytes)
        self._bodies = ChangeBodies(self._contents, options.body_memo_bytes)
        self._costs = RunCosts(options.cost_weight, options.new_query_ms, options.function_names)
        self.live = LiveQueries(self._contents, self._costs, options.parked_bytes, options.causes_kept)
        self._sessions: dict[Session, None] = {}
        self._waiting = Waiting()
        self._views = Views(self._waiting)
        self._rounds: dict[int, Round] = {}
        self._workers: dict[int, Round | None] = {}
        self._outdated: dict[int, None] = {}
        self._bundle_ts = 0
        self._killed = KilledQueries(
            self.live,
            self._waiting,
            now_ms,
            strikes=options.strikes,
            first_ms=options.retry_first_ms,
            longest_ms=options.retry_longest_ms,
            cost_ms=options.killed_cost_ms,
        )
        self._held = HeldBack()
        self._numbers = count(1)

    # ------------------------------------------------------------------------ sessions

    def connect(
        self, handle: Any, identity: bytes | None = None, kept_back: Callable[[Any], None] | None = None,
        *, whole: bool = False,
    ) -> Session:  # fmt: skip
        """Return the session of a new connection: nothing shown, nothing subscribed; see `Session`."""
        session = Session(handle, identity, kept_back, whole=whole)
        self._sessions[session] = None
        self._views.join(session)
        return session

    def disconnect(self, session: Session) -> None:
        """End a session; nothing is delivered to it any more."""
        if session.closed:
            return
        session.closed = True
        del self._sessions[session]
        self._views.leave(session)
        for subscription in session.subscriptions.values():
            self.live.unsubscribe(subscription.query, session)
        session.subscriptions.clear()
        session.answers.clear()

    def modify(self, session: Session, add: Sequence[AddQuery], remove: Sequence[int]) -> None:
        """Change what a session looks at; a transition that shows it follows."""
        if session.closed:
            return
        for number in remove:
            subscription = session.subscriptions.pop(number)
            self.live.unsubscribe(subscription.query, session)
            session.removed[number] = None
        for query in add:
            if query.query in session.subscriptions:
                raise ValueError(f"query {query.query} is subscribed already")
            session.removed.pop(query.query, None)
            key = QueryKey(query.name, query.arguments, query.journal, session.internal)
            session.subscriptions[query.query] = Subscription(self.live.subscribe(key, session))
        session.holding = session.holding.modified(add, remove)
        session.due = True
        self._views.review(session)
        self._advance(session)
        self._start_rounds()

    def identify(self, session: Session, identity: bytes | None, *, internal: bool = False) -> None:
        """Give a session another identity; a transition at which all it shows is for that one follows."""
        if session.closed:
            return
        self.live.change_identity(session, identity, internal=internal)
        session.due = True
        self._views.review(session)
        self._advance(session)
        self._start_rounds()

    def answer(self, session: Session, answer: Any, ts: int) -> None:
        """Send an answer that saw `ts`, once that is published; a transition that covers it follows.

        Args:
            session: Who asked.
            answer: Handed to `deliver`.
            ts: Snapshot that a read-only success or a failure saw. Must not fall within a session.
        """
        if session.closed:
            return
        session.hold_ts = max(session.hold_ts, ts)
        if session.hold_ts > self.published_ts:
            self._hold(session.hold_ts, lambda: self._answer(session, answer, ts))
            return
        self._answer(session, answer, ts)
        self._start_rounds()

    def block(self, session: Session) -> None:
        """Take note that the socket of a session cannot take more: it is left alone until `unblock`."""
        if not session.blocked and not session.closed:
            session.blocked = True
            self._views.leave(session)

    def unblock(self, session: Session) -> None:
        """Go on with a session: from what its client holds straight to the newest."""
        if session.blocked and not session.closed:
            session.blocked = False
            self._views.join(session)
            self._advance(session)
            self._start_rounds()

    # ------------------------------------------------------------------------ commits

    def publish(
        self, ts: int, conflict_keys: Iterable[bytes], answers: Sequence[tuple[Session, Any, int]],
        writers: Writers = lambda _: {},
    ) -> None:  # fmt: skip
        """Take in a batch that is on disk and visible to workers.

        Args:
            ts: Its last commit ts; the only one of the batch that exists as a snapshot.
            conflict_keys: Of all its transactions.
            answers: Session, answer and commit ts of each mutation decided by it.
            writers: Tells which functions wrote which keys; asked in this step only.
        """
        keys = set(conflict_keys)
        touched: dict[View, None] = {}
        for version in self.live.touch(keys, ts, writers):
            for query in version.homes:
                touched.update(query.views)
        self.published_ts = ts
        for session, answer, at in answers:  # before anybody moves
            if not session.closed:
                session.take_answer(answer, at)
        if self._options.bundle_key in keys:
            self._switch_bundle(ts)
        self._held.release(ts)
        for view in touched:
            self._advance_all(view)
        for session, _, _ in answers:
            self._advance(session)
        self._start_rounds()
        self._collect()

    def oldest_ts(self) -> int | None:
        """Return the ts behind which the window must know every commit; None if no round is open."""
        return min((r.opened_at if r.ts is None else r.ts for r in self._rounds.values()), default=None)

    @property
    def is_settled(self) -> bool:
        """Whether every client that reads has been sent the newest, or none can be as there is no worker."""
        return not self._rounds and (not self._waiting.views or not self._workers)

    # ------------------------------------------------------------------------ workers and rounds

    def add_worker(self, worker: int) -> None:
        """Take a worker that may be given rounds. It may be busy with mutations as well."""
        self._workers.setdefault(worker, None)
        self._start_rounds()

    def remove_worker(self, worker: int, *, retired: bool = False) -> None:
        """Give up a worker whose process is gone; its round goes back to waiting.

        Its running query counts a strike, unless the process was `retired` on purpose. If the
        query is known to be at fault, report `query_killed`, which removes the worker as well.
        """
        round_ = self._workers.pop(worker, None)
        self._outdated.pop(worker, None)
        if round_ is not None:
            running = round_.running
            if running is not None and not retired and self._killed.strike(running):
                self._wake(running.query, None)
            self._end(round_)
        self._start_rounds()

    def round_opened(self, round: int, ts: int, bundle_current: bool) -> None:  # noqa: A002
        """Take note of a round's snapshot; held while that is newer than the published ts."""
        round_ = self._rounds.get(round)
        if round_ is None or round_.ts is not None:
            return
        if not bundle_current:
            # Its worker has closed it. It belongs to the bundle before, or to one that is not published yet.
            self._workers[round_.worker] = None
            if ts >= self._bundle_ts:
                del self._workers[round_.worker]
                self._outdated[round_.worker] = None
            self._end(round_)
        elif ts > self.published_ts:
            self._hold(ts, lambda: self._open(round, ts))
        else:
            self._open(round, ts)
        self._start_rounds()

    def query_done(self, round: int, call: int, result: QueryResult) -> None:  # noqa: A002
        """Register what a run gave and move the sessions that waited for it."""
        round_ = self._rounds.get(round)
        if round_ is None:
            return
        if round_.ts is None:
            round_.early.append((call, result))
            return
        self._done(round_, call, result)
        self._start_rounds()

    def _done(self, round_: Round, call: int, result: QueryResult) -> None:
        need = round_.calls.pop(call, None)
        if need is None:
            return
        if need == round_.retry:
            round_.retry = None
        self._costs.ran(need.query.key.name, result.duration_ms)
        need.query.cost_ms = self._costs.learnt(need.query.cost_ms, result.duration_ms)
        self._register(round_, need, result)
        self._step(round_)
        self._collect()

    def query_killed(self, round: int, call: int, error: ErrorBody) -> None:  # noqa: A002
        """Take note that a run was ended by force, its worker with it.

        What its other runs gave stays if the round's ts is published; the rest goes back to waiting.
        """
        round_ = self._rounds.get(round)
        need = round_.calls.get(call) if round_ is not None else None
        if round_ is None or need is None:
            return
        self._workers.pop(round_.worker, None)
        self._kill(need, error)
        self._end(round_)
        self._start_rounds()

    def tick(self) -> float | None:
        """Retry killed queries whose pause is over; return when the next is due, in ms of the clock, if any."""
        due_ms = self._killed.retry_due()
        self._start_rounds()
        return due_ms

    # ------------------------------------------------------------------------ moving sessions

    def _advance(self, session: Session) -> None:
        """Move a session as far as the versions of its view allow; else that waits for a round."""
        if session.view is not None:
            self._advance_some(session.view, (session,))
        if session.answers and session.view is not None:
            self._effects.deliver(session, session.release_answers(), None)

    def _advance_all(self, view: View) -> None:
        """Move all sessions of a view."""
        self._advance_some(view, view.sessions)

    def _advance_some(self, view: View, sessions: Iterable[Session]) -> None:
        """Move sessions of a view to the published ts, or all of them to the ts of its round, or have it wait."""
        showing = view.showing_at(self.published_ts)
        if showing is not None:
            self._waiting.views.pop(view, None)
            view.since_ms = None
            if view.round is not None and view.round.ts is not None:
                view.round = None
            self._move_all(view, sessions, self.published_ts, showing, to_newest=True)
            return
        if view.since_ms is None:
            view.since_ms = self._now_ms()
        ts = view.round.ts if view.round is not None else None
        if ts is not None:
            showing = view.showing_at(ts)
            if showing is not None:
                view.round = None
                view.since_ms = self._now_ms()
                self._move_all(view, view.sessions, ts, showing, to_newest=False)
        if view.round is None and view.sessions:
            self._waiting.add(view)

    def _move_all(
        self, view: View, sessions: Iterable[Session], ts: int, showing: Showing, *, to_newest: bool
    ) -> None:
        """Move sessions of a view to a ts, at which its queries show this.

        What becomes of a session follows from what its client holds.
        """
        moves = Moves(self._bodies, showing, ts)
        steps = moves.steps
        for session in list(sessions):
            if session.view is not view or not (to_newest or session.may_move_to(ts)):
                continue
            step = steps.get(session.holding) or moves.step_of(session.holding)
            if session.due or step.adopted:
                self._move(session, ts, step)
            elif step.moved.changes or not to_newest:
                session.ts = ts
                session.holding = step.after
                self._effects.deliver(session, (), step.moved)

    def _move(self, session: Session, ts: int, step: Step) -> None:
        """Move a session that is owed a transition or takes over journals."""
        moved = step.moved
        if session.removed:
            removed = [(number, ChangeBodies.REMOVED) for number in session.removed]
            moved = Moved(ts, [*removed, *moved.changes])
            session.removed.clear()
        session.ts = ts
        session.holding = step.after
        session.due = ts < session.cover
        others = []
        for number, version in step.adopted:
            others += self._adopt_journal(session, session.subscriptions[number], version)
        if step.adopted:
            self._views.review(session)
        view = session.view
        answers = session.release_answers() if session.answers else ()
        self._effects.deliver(session, answers, moved)
        if step.adopted and view is not None and view.sessions:
            self._advance_some(view, (session,))  # what the journal's query has may bring it further
        for query in others:
            self._wake(query, None)

    def _adopt_journal(
        self, session: Session, subscription: Subscription, version: Version
    ) -> list[LiveQuery]:
        """From the first delivery on, a query keeps the page ends that were delivered.

        Returns:
            The query under the journal, if it got this version just now and others look at it.
        """
        before = subscription.query
        after = subscription.query = self.live.subscribe(
            before.key._replace(journal=version.journal), session
        )
        is_new = after not in version.homes
        if is_new:
            after.hold(version)
        self.live.unsubscribe(before, session)
        return [after] if is_new and after.subscribers > 1 else []

    def _answer(self, session: Session, answer: Any, ts: int) -> None:
        if not session.closed:
            session.take_answer(answer, ts)
            self._advance(session)

    def _hold(self, ts: int, release: Callable[[], None]) -> None:
        self._held.hold(ts, release)

    # ------------------------------------------------------------------------ rounds

    def _start_rounds(self) -> None:
        """Give groups of waiting views to idle workers."""
        idle = [worker for worker, round_ in self._workers.items() if round_ is None]
        while idle and (self._waiting.views or self._waiting.retries):
            group = self._waiting.next_group(
                self._options.rounds,
                published_ts=self.published_ts,
                now_ms=self._now_ms(),
                workers=len(self._workers),
                slow_rounds=sum(round_.slow for round_ in self._rounds.values()),
            )
            if group is None:
                return
            worker = idle.pop()
            number = next(self._numbers)
            round_ = Round(
                number, worker, group.slow, self.published_ts, dict.fromkeys(group.views), group.retry
            )
            for view in group.views:
                del self._waiting.views[view]
                view.round = round_
            if group.retry is not None:
                del self._waiting.retries[group.retry]
            self._rounds[number] = self._workers[worker] = round_
            self._effects.open_round(worker, number)
            self._step(round_)

    def _open(self, number: int, ts: int) -> None:
        """Start a round whose ts is known and published."""
        round_ = self._rounds.get(number)
        if round_ is None:
            return
        round_.ts = ts
        self.live.ended += round_.pinned  # what it pinned in ignorance may not be needed after all
        round_.pinned = []
        for view in list(round_.views):
            if view.round is round_:
                self._advance_all(view)
        self._step(round_)
        self._collect()
        early, round_.early = round_.early, []
        for call, result in early:
            self._done(round_, call, result)

    def _step(self, round_: Round) -> None:
        """Send the worker of a round what it needs next; close an open one when that is nothing."""
        limits = self._options.rounds
        ahead_ms = sum(need.query.cost_ms for need in round_.calls.values())
        while not round_.calls or (
            len(round_.calls) < limits.prefetch_calls and ahead_ms < limits.prefetch_ms
        ):
            need = self._next_need(round_)
            if need is None:
                break
            call = next(self._numbers)
            round_.calls[call] = need
            ahead_ms += need.query.cost_ms
            self._effects.run_query(round_.worker, round_.number, call, need.query.key, need.identity)
        if not round_.calls and round_.ts is not None:
            self._workers[round_.worker] = None
            self._effects.close_round(round_.worker, round_.number)
            self._end(round_)

    def _next_need(self, round_: Round) -> Need | None:
        """Return the cheapest run that a member still needs. Subscriptions and identities may have changed."""
        while True:
            if not round_.queue:
                if round_.calls:
                    return None  # looked for again when they are done: they may satisfy it
                round_.queue.extend(self._needs(round_))
                if not round_.queue:
                    return None
            need = round_.queue.popleft()
            if round_.still_needs(need):
                return need

    def _needs(self, round_: Round) -> list[Need]:
        return round_.needs()

    def _register(self, round_: Round, need: Need, result: QueryResult) -> None:
        """Keep a result with the interval in which it is right, and wake who looks at its query."""
        query, identity = need
        ts = round_.ts
        assert ts is not None
        if self.live.by_key.get(query.key) is not query:
            return  # the last subscriber left during the run
        homes = [query]
        wanted = not result.identity_read or identity in query.identities
        if wanted and query.result_at(identity, ts) is None:
            first = self._window.first_touch(CommitTs(ts), result.points, result.ranges)
            until = FOREVER if first is None or first > self.published_ts else first
            journal = query.key.journal if result.journal is None else result.journal
            content = self._contents.share(result.content)
            version = self.live.new_version(ts, until, result.identity_read, identity, content, journal)
            query.hold(version)
            twin = self.live.by_key.get(query.key._replace(journal=journal))
            if twin and twin is not query and (not version.private or identity in twin.identities):
                twin.hold(version)
            self.live.register(version, result)
            homes = version.homes.copy()
        self._killed.forgive(query, identity, result.identity_read)
        for home in homes:
            self._wake(home, round_)

    def _wake(self, query: LiveQuery, round_: Round | None) -> None:
        """Advance all who look at a query, those outside of the round as well."""
        for view in list(query.views):
            self._advance_all(view)

    def _end(self, round_: Round) -> None:
        """Take a round down, whatever has become of it; who is still in it waits for another."""
        del self._rounds[round_.number]
        self.live.ended += round_.pinned
        for view in list(round_.views):
            if view.round is round_:
                view.round = None
                self._advance_all(view)
        if round_.retry is not None:
            self._killed.requeue(round_.retry)
        self._collect()

    def _collect(self) -> None:
        """Drop the versions that have ended, except for those that an open round may need."""
        ended, self.live.ended = self.live.ended, []
        for version in ended:
            if not version.homes:
                continue
            for round_ in self._rounds.values():
                if self._pins(round_, version):
                    round_.pinned.append(version)
                    break
            else:
                self.live.discard(version)

    def _pins(self, round_: Round, version: Version) -> bool:
        return round_.pins(version)

    # ------------------------------------------------------------------------ killed queries and bundles

    def _kill(self, need: Need, error: ErrorBody) -> None:
        """Show an error in place of a result, at whatever ts, and try again after a pause."""
        if self._killed.kill(need, error):
            self._wake(need.query, None)

    def _switch_bundle(self, ts: int) -> None:
        """Let outdated workers try again, and queries that the new code may have mended."""
        self._bundle_ts = ts
        for worker in self._outdated:
            self._workers[worker] = None
        self._outdated.clear()
        self._killed.retry_all()

    # ------------------------------------------------------------------------ invariants

    def check(self) -> None:
        """Verify what must hold between two steps. For tests: it looks at everything."""
        self.live.check()
        self._views.check(self._sessions, self.published_ts)
        self._killed.check({round_.retry for round_ in self._rounds.values()})
        for number, round_ in self._rounds.items():
            assert round_.number == number
            assert self._workers.get(round_.worker) is round_, "a round without a worker"
            assert round_.ts is None or round_.calls, "an open round with nothing to do"
            assert round_.ts is None or round_.ts <= self.published_ts, "a round at what is not published"
            for version in round_.pinned:
                assert not version.homes or round_.pins(version), "pinned for nothing"
        assert not self.live.ended, "ended versions were not looked at"
        pinned = {version for round_ in self._rounds.values() for version in round_.pinned}
        for query in self.live.by_key.values():
            for version in query.versions():
                assert version.until == FOREVER or version in pinned, "an ended version is kept for nothing"
        self._held.check(self.published_ts)
        idle = None in self._workers.values()
        if idle and (self._waiting.views or self._waiting.retries):
            group = self._waiting.next_group(
                self._options.rounds,
                published_ts=self.published_ts,
                now_ms=-inf,
                workers=len(self._workers),
                slow_rounds=sum(round_.slow for round_ in self._rounds.values()),
            )
            assert group is None, "a worker is idle while views wait"
