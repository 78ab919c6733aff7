"""One call as the pool sees it: how to ask a worker for it, and whom to tell how it ended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Literal, Protocol

from msgspec.structs import replace

from headwater_server.worker.messages import (
    CallExplained,
    ExplainCall,
    Failure,
    MutationDone,
    QueryDone,
    RunMutation,
    RunQuery,
    Usage,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater_protocol.errors import HeadwaterError

    from headwater_server.functions.mutations import MutationCall


Done = QueryDone | MutationDone | CallExplained


class MutationReceiver(Protocol):
    """Hears how mutations ended."""

    def ran(self, call: MutationCall, done: MutationDone) -> None:
        """It ran; what it proposes is to be committed."""

    def killed(self, call: MutationCall, failure: Failure) -> None:
        """It was ended by a limit, or its worker ended during it."""

    def refused(self, call: MutationCall, error: HeadwaterError) -> None:
        """It was never run: there is no bundle, or too much to do."""

    def sent_back(self, call: MutationCall) -> None:
        """It is a chain's member and has not run, through no fault of its own: it goes back to the lane."""

    def stuck(self, call: MutationCall) -> None:
        """It is a chain's member that runs for long; those sent behind it come back."""

    def unchained(self, call: MutationCall) -> None:
        """It is no longer a chain's member and will run by itself: another bundle is active."""


class RoundReceiver(Protocol):
    """Hears how queries of rounds ended."""

    def round_query_done(self, worker: int, round_number: int, call: int, name: str, done: QueryDone) -> None:
        """A query of a round has run."""

    def round_query_killed(
        self, worker: int, round_number: int, call: int, name: str, failure: Failure
    ) -> None:
        """A query of a round was ended, or took its worker with it; `worker_gone` follows."""


class Work(ABC):
    """A call that waits or runs.

    Attributes:
        name: Function.
        reruns: How often it was sent again without any fault of its own.
        switches: How often it was sent again because another bundle was active.
    """

    __slots__ = ("name", "reruns", "switches")

    movable = True
    """Whether any worker may run it."""

    chained = False
    """Whether it is a member of a chain: those do not count when others are sent ahead, or the lane
    would keep all others out of a daemon's only worker."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.reruns = 0
        self.switches = 0

    @abstractmethod
    def message(self, number: int, now_us: int) -> RunQuery | RunMutation | ExplainCall:
        """Return what to send to a worker."""

    @abstractmethod
    def ran(self, done: Done) -> None:
        """Tell how it ran.

        Raises:
            TypeError: The worker sent the answer of another kind of call.
        """

    @abstractmethod
    def killed(self, failure: Failure) -> None:
        """Tell that it was ended."""

    def refused(self, error: HeadwaterError) -> None:
        """Tell that it was never run."""
        self.killed(Failure(error.code, error.message))

    def take_back(self) -> bool:
        """Take it back instead of having it run in another worker; False if it need not be taken back."""
        return False

    def stuck(self) -> None:
        """Tell that it runs for long."""
        return

    def for_any_worker(self) -> Work | None:
        """Return what to run when this met a snapshot with another active bundle; None if nothing."""
        return self


class MutationWork(Work):
    """A mutation."""

    __slots__ = ("call", "receiver")

    def __init__(self, call: MutationCall, receiver: MutationReceiver) -> None:
        super().__init__(call.name)
        self.call = call
        self.receiver = receiver

    def message(self, number: int, now_us: int) -> RunMutation:
        """Return what to send to a worker."""
        call = self.call
        return RunMutation(
            number,
            call.name,
            call.arguments,
            call.identity,
            call.request,
            now_us,
            call.internal,
            job=call.job,
        )

    def ran(self, done: Done) -> None:
        """Tell how it ran."""
        if not isinstance(done, MutationDone):
            raise TypeError("a mutation was answered as another call")
        self.receiver.ran(self.call, done)

    def killed(self, failure: Failure) -> None:
        """Tell that it was ended."""
        self.receiver.killed(self.call, failure)

    def refused(self, error: HeadwaterError) -> None:
        """Tell that it was never run."""
        self.receiver.refused(self.call, error)


class ChainWork(MutationWork):
    """A mutation as the next member of a chain, which one worker runs.

    Attributes:
        chain: Number of the chain.
        settled: How many of its members are published.
        settled_ts: As of the last of them.
        published_ts: Published ts when it was sent.
    """

    __slots__ = ("chain", "published_ts", "settled", "settled_ts")

    chained = True

    def __init__(
        self,
        call: MutationCall,
        receiver: MutationReceiver,
        chain: int,
        settled: int,
        settled_ts: int,
        published_ts: int,
    ) -> None:
        super().__init__(call, receiver)
        self.reruns = call.sent_back
        self.chain = chain
        self.settled = settled
        self.settled_ts = settled_ts
        self.published_ts = published_ts

    def message(self, number: int, now_us: int) -> RunMutation:
        """Return what to send to a worker."""
        message = super().message(number, now_us)
        return replace(
            message,
            chain=self.chain,
            settled=self.settled,
            settled_ts=self.settled_ts,
            published_ts=self.published_ts,
        )

    def take_back(self) -> bool:
        """Go back to the lane: another worker has not what the chain wrote."""
        self.call.sent_back = self.reruns
        self.receiver.sent_back(self.call)
        return True

    def stuck(self) -> None:
        """Tell the lane, so that others need not wait for it."""
        self.receiver.stuck(self.call)

    def for_any_worker(self) -> Work:
        """Leave the chain: the lane finds out by itself which bundle is active."""
        self.receiver.unchained(self.call)
        return MutationWork(self.call, self.receiver)


class QueryWork(Work):
    """A query outside of rounds, over a snapshot of its own."""

    __slots__ = ("arguments", "done", "identity", "internal", "journal")

    def __init__(
        self,
        name: str,
        arguments: bytes,
        identity: bytes | None,
        journal: bytes | None,
        internal: bool,
        done: Callable[[QueryDone], None],
    ) -> None:
        super().__init__(name)
        self.arguments = arguments
        self.identity = identity
        self.journal = journal
        self.internal = internal
        self.done = done

    def message(self, number: int, now_us: int) -> RunQuery:
        """Return what to send to a worker."""
        return RunQuery(
            number, 0, now_us, self.name, self.arguments, self.identity, self.journal, self.internal
        )

    def ran(self, done: Done) -> None:
        """Tell how it ran."""
        self.done(_query_done(done))

    def killed(self, failure: Failure) -> None:
        """Tell that it was ended: a result that consists of the failure."""
        self.done(QueryDone(0, 0, None, None, None, failure, [], [], False, None, Usage(0)))


class ExplainWork(Work):
    """A query or mutation that is run to be explained."""

    __slots__ = ("arguments", "done", "identity", "kind")

    def __init__(
        self,
        kind: Literal["query", "mutation"],
        name: str,
        arguments: bytes,
        identity: bytes | None,
        done: Callable[[CallExplained | Failure], None],
    ) -> None:
        super().__init__(name)
        self.kind: Literal["query", "mutation"] = kind
        self.arguments = arguments
        self.identity = identity
        self.done = done

    def message(self, number: int, now_us: int) -> ExplainCall:
        """Return what to send to a worker."""
        return ExplainCall(number, now_us, self.kind, self.name, self.arguments, self.identity)

    def ran(self, done: Done) -> None:
        """Tell what it has done."""
        if not isinstance(done, CallExplained):
            raise TypeError("a call that is to be explained was answered as another call")
        self.done(done)

    def killed(self, failure: Failure) -> None:
        """Tell that it was ended."""
        self.done(failure)


class RoundWork(Work):
    """A query of a round: it belongs to the worker that has the round's transaction."""

    __slots__ = ("arguments", "call", "identity", "internal", "journal", "receiver", "round", "worker")

    movable = False

    def __init__(
        self,
        receiver: RoundReceiver,
        worker: int,
        round_number: int,
        call: int,
        name: str,
        arguments: bytes,
        identity: bytes | None,
        journal: bytes | None,
        *,
        internal: bool,
    ) -> None:
        super().__init__(name)
        self.receiver = receiver
        self.internal = internal
        self.worker = worker
        self.round = round_number
        self.call = call
        self.arguments = arguments
        self.identity = identity
        self.journal = journal

    def for_any_worker(self) -> None:
        """The round is given up; who waits for it is in another one."""

    def message(self, number: int, now_us: int) -> RunQuery:
        """Return what to send to a worker."""
        key = (self.name, self.arguments, self.identity, self.journal)
        return RunQuery(number, self.round, now_us, *key, self.internal)

    def ran(self, done: Done) -> None:
        """Tell how it ran."""
        self.receiver.round_query_done(self.worker, self.round, self.call, self.name, _query_done(done))

    def killed(self, failure: Failure) -> None:
        """Tell that it was ended."""
        self.receiver.round_query_killed(self.worker, self.round, self.call, self.name, failure)


def _query_done(done: Done) -> QueryDone:
    if not isinstance(done, QueryDone):
        raise TypeError("a query was answered as another call")
    return done
