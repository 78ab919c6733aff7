"""The lane: mutations that keep meeting each other run one after another, over their own uncommitted writes.

Pure of IO, on the event loop. A call that lost to a conflict comes here, and so does one that
would. The lane sends its calls to one worker as the members of a *chain*: each reads what
those before it wrote, and nobody waits for a commit in between. Members that come back go to
the committer at once, in order. If one of them has missed what somebody else committed, those
that read from it fall with it; the chain is at its end, and the next begins when all of its
members are accounted for, over a snapshot that has what they missed.

A call keeps its place in the lane when it has to run again. A call that runs for long is left
behind in its chain: the others go on in another worker. Only if it has lost often do they
wait for it, and then those outside wait at the gate.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Protocol

from headwater_storage.chain import Chain

if TYPE_CHECKING:
    from headwater_storage.proposal import Proposal

    from headwater_server.functions.gate import Gate
    from headwater_server.functions.mutations import MutationCall
    from headwater_server.observe.metrics import LaneMetrics


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """Bounds of a chain.

    Attributes:
        ahead_ms: Estimated work that is sent to the worker ahead of time. It has to bridge a
            turn of the daemon's loop, on a busy machine too; more would hold up the calls of
            others in that worker, and be lost when the chain fails. A call that costs more is
            sent alone.
        ahead_max: Members that are sent ahead at most, however short they are.
        members_max: Members that are not decided. They run again if the chain fails.
        bytes_max: What members wrote that are not decided; the worker keeps it in memory.
        patience: Runs after which the others of the lane wait also for a call that runs for
            long, and those outside wait at the gate.
    """

    ahead_ms: float = 8.0
    ahead_max: int = 64
    members_max: int = 256
    bytes_max: int = 4 << 20
    patience: int = 4


class ChainRunner(Protocol):
    """What runs mutations: the worker pool."""

    def chain_worker(self) -> int | None:
        """Return the worker to run a chain in, None if none takes one now."""

    def run_chained(
        self, worker: int, call: MutationCall, chain: int, settled: int, settled_ts: int, published_ts: int
    ) -> float | None:
        """Run a mutation as the next member of a chain; return its cost in ms, None if the worker is gone."""

    def estimate_ms(self, name: str) -> float:
        """Return what a call of a function is expected to cost."""

    def end_chain(self, worker: int, chain: int) -> None:
        """Have a worker close a chain's snapshot."""

    def run_mutation(self, call: MutationCall) -> None:
        """Run a mutation by itself."""


class ChainCommitter(Protocol):
    """What commits proposals: the engine."""

    @property
    def published_ts(self) -> int:
        """Newest ts that the outside may see."""

    def submit(self, proposal: Proposal, owner: object, chain: Chain | None = None) -> None:
        """Commit the next member of a chain."""

    def end_chain(self, chain: Chain) -> None:
        """Forget a chain whose members are all decided."""


@dataclass(slots=True, eq=False)
class LaneChain:
    """One chain on its way.

    Attributes:
        number: Its number, never used again.
        worker: Where it runs.
        commits: The committer's side of it.
        sent: Members in the worker, with their estimated cost in ms.
        sent_ms: Their sum.
        submitted: Members with the committer, with the bytes that they write.
        submitted_bytes: Their sum.
        ended: No member is sent any more.
        stuck: The member that runs for long and is left behind; None if there is none.
        torn: A member went back while others behind it did not: they may have read what it wrote.
    """

    number: int
    worker: int
    commits: Chain = field(default_factory=Chain)
    sent: dict[MutationCall, float] = field(default_factory=dict)
    sent_ms: float = 0.0
    submitted: dict[MutationCall, int] = field(default_factory=dict)
    submitted_bytes: int = 0
    ended: bool = False
    stuck: MutationCall | None = None
    torn: bool = False

    @property
    def over(self) -> bool:
        """Whether it takes no more members."""
        return self.ended or self.commits.failed

    @property
    def empty(self) -> bool:
        """Whether it has no member that is not decided."""
        return not self.sent and not self.submitted

    @property
    def awaited(self) -> bool:
        """Whether the next chain has to wait for one of its members."""
        return bool(self.submitted) or any(call is not self.stuck for call in self.sent)


class Lane:
    """The calls that run in chains."""

    def __init__(
        self,
        runner: ChainRunner,
        committer: ChainCommitter,
        gate: Gate,
        metrics: LaneMetrics,
        limits: LaneLimits,
    ) -> None:
        self._runner = runner
        self._committer = committer
        self._gate = gate
        self._metrics = metrics
        self._limits = limits
        self._queue: list[tuple[int, MutationCall]] = []  # a heap by ticket
        self._tickets = count(1)
        self._numbers = count(1)
        self._chain: LaneChain | None = None
        self._losers: set[MutationCall] = set()
        self._pumping = False

    def __len__(self) -> int:
        """How many calls wait for their turn."""
        return len(self._queue)

    def add(self, call: MutationCall) -> None:
        """Let a call run when it is its turn; one that has run before has its old place."""
        if not call.ticket:
            call.ticket = next(self._tickets)
        else:
            self._metrics.reruns.inc()
        if call.attempts > self._limits.patience:
            self._losers.add(call)
        heappush(self._queue, (call.ticket, call))
        self._leave(call)
        self._pump()

    def sent_back(self, call: MutationCall) -> None:
        """A member has not run, since its worker ended or is held up: the chain is at its end."""
        chain = call.chain
        assert chain is not None, "a member"
        chain.ended = True
        chain.torn = chain.torn or next(reversed(chain.sent)) is not call
        self.add(call)

    def stuck(self, call: MutationCall) -> None:
        """A member runs for long: leave it behind, unless it has lost too often for that."""
        assert call.chain is not None, "a member"
        call.chain.ended = True
        if call.attempts <= self._limits.patience:
            call.chain.stuck = call
        self._pump()

    def ran(self, call: MutationCall, proposal: Proposal, written_bytes: int) -> None:
        """A member has run: hand it to the committer."""
        chain = call.chain
        assert chain is not None, "a member"
        if chain.torn:
            self.add(call)
            return
        self._unsend(chain, call)
        chain.submitted[call] = written_bytes
        chain.submitted_bytes += written_bytes
        self._metrics.members.inc()
        self._committer.submit(proposal, call, chain.commits)
        self._pump()

    def left(self, call: MutationCall) -> None:
        """A member was ended, or runs by itself from now on: the chain is at its end."""
        assert call.chain is not None, "a member"
        call.chain.ended = True
        self._leave(call)
        self._pump()

    def decided(self, call: MutationCall) -> None:
        """A call of the lane, or one that was in it, is decided."""
        self._losers.discard(call)
        self._gate.decided(call)
        self._leave(call)
        self._pump()

    # ------------------------------------------------------------------ inside

    def _pump(self) -> None:
        """Send members while the chain takes them. Not from within: whoever is refused at once comes back here."""
        if self._pumping:
            return
        self._pumping = True
        while self._queue:
            chain = self._chain
            if chain is None:
                chain = self._begin()
                if chain is None:
                    self._runner.run_mutation(
                        heappop(self._queue)[1]
                    )  # waits for a worker there, or is refused
                    continue
            elif chain.over:
                if chain.awaited:
                    break
                self._chain = None
                self._close_if_empty(chain)
                continue
            if not self._send(chain):
                break
        self._pumping = False

    def _begin(self) -> LaneChain | None:
        worker = self._runner.chain_worker()
        if worker is None:
            return None
        self._chain = LaneChain(next(self._numbers), worker)
        self._metrics.chains.inc()
        if self._losers:
            self._gate.close(self._losers)
        return self._chain

    def _send(self, chain: LaneChain) -> bool:
        """Send the next member; False if the chain has enough for now."""
        limits, call = self._limits, self._queue[0][1]
        if (
            (chain.sent and chain.sent_ms + self._runner.estimate_ms(call.name) > limits.ahead_ms)
            or len(chain.sent) >= limits.ahead_max
            or len(chain.sent) + len(chain.submitted) >= limits.members_max
            or chain.submitted_bytes > limits.bytes_max
        ):
            return False
        commits = chain.commits
        cost_ms = self._runner.run_chained(
            chain.worker,
            call,
            chain.number,
            commits.settled,
            commits.settled_ts,
            self._committer.published_ts,
        )
        if cost_ms is None:
            chain.ended = True
            return True
        heappop(self._queue)
        call.chain = chain
        chain.sent[call] = cost_ms
        chain.sent_ms += cost_ms
        return True

    def _unsend(self, chain: LaneChain, call: MutationCall) -> None:
        chain.sent_ms -= chain.sent.pop(call, 0.0)
        if not chain.sent:
            chain.sent_ms = 0.0  # sums of fractions drift

    def _leave(self, call: MutationCall) -> None:
        """Take a call out of its chain, if it is in one."""
        chain, call.chain = call.chain, None
        if chain is not None:
            self._unsend(chain, call)
            chain.submitted_bytes -= chain.submitted.pop(call, 0)
            self._close_if_empty(chain)

    def _close_if_empty(self, chain: LaneChain) -> None:
        if not chain.empty:
            return
        if self._chain is chain:
            self._chain = None
        self._runner.end_chain(chain.worker, chain.number)
        self._committer.end_chain(chain.commits)
