"""A worker's loop: calls come in, results and proposals go out; everything blocks, one thing at a time."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec
from headwater.refusals import encodable
from headwater_protocol.errors import ERROR_CODES, Retry, StorageError, error_for
from headwater_storage.catalog import ACTIVE_BUNDLE_KEY, ENVIRONMENT, ActiveBundle, CatalogCache
from headwater_storage.explained import ExplainedTransaction
from headwater_storage.keys import document_key, document_parts
from headwater_storage.proposal import CommitTs
from headwater_storage.stored import unpack_stored
from headwater_storage.transaction import Transaction
from msgspec.structs import replace

from headwater_server.worker.chains import OpenChain
from headwater_server.worker.document_check import check_documents
from headwater_server.worker.document_rewrite import rewrite_documents
from headwater_server.worker.explained import Explained
from headwater_server.worker.job_row import JobMemory
from headwater_server.worker.messages import (
    CallExplained,
    CheckDocuments,
    CheckVariables,
    CloseRound,
    Describe,
    Described,
    DocumentsRewritten,
    EndChain,
    ExplainCall,
    Failure,
    MutationDone,
    OpenRound,
    QueryDone,
    RewriteDocuments,
    RoundOpened,
    RunMutation,
    RunQuery,
    TransactionOrder,
    Usage,
    VariablesChecked,
    WrongBundle,
)
from headwater_server.worker.request_row import RequestMemory

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater.bundle import Bundle, CallOutcome
    from headwater_storage.store import StoreReader, StoreSnapshot

    from headwater_server.functions.limits import WorkerLimits
    from headwater_server.worker.determinism import Determinism
    from headwater_server.worker.guard import Guard
    from headwater_server.worker.output import CallOutput
    from headwater_server.worker.request_row import Answer

_T = TypeVar("_T", bound=Transaction)

SNAPSHOT_SHARED_NS = 300_000
SLOW_NS = 1_000_000
"""Before a call that is likely to take longer, finished results are sent. Far more than most take: each send
costs both sides a system call and the daemon a turn of its loop."""

RESULTS_TOGETHER_NS = 250_000
"""What has been in the making for longer is sent before the next call, so that the daemon has work while this
worker has. In turns, 64 transfers at a time: a seventh more of them a second than if all that came together left together."""

_UNKNOWN_NS = (SLOW_NS, SLOW_NS)
UNSENT_BYTES_MAX = 64 * 1024
NAMES_MAX = 10_000
NAME_CHARACTERS_MAX = 512
"""Nothing is remembered of a longer name: it comes from a client, hardly from a bundle."""

_UNSENDABLE = (ValueError, TypeError, OverflowError, RecursionError)


class DaemonLink(Protocol):
    """The daemon as a worker sees it: `WorkerEnd`, or one in the same process."""

    @property
    def unsent_bytes(self) -> int:
        """Bytes that wait for `flush`."""

    def receive(self) -> list[TransactionOrder] | None:
        """Wait for messages; None when the daemon has closed its end."""

    def add(self, message: object) -> None:
        """Append a message for the next `flush`."""

    def flush(self) -> None:
        """Send what was added."""


class Progress(Protocol):
    """Where the running call is shown: `ProgressPage`, or nowhere."""

    def begin(self, call: int, mono_ns: int) -> None:
        """Say that a call begins."""

    def end(self) -> None:
        """Say that nothing runs."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a worker's loop needs of the world; of the date it hears from the daemon.

    Attributes:
        mono_ns: Monotonic clock, the same as the daemon's.
        random_bytes: Unpredictable bytes.
    """

    mono_ns: Callable[[], int]
    random_bytes: Callable[[int], bytes]


def active_bundle(row: bytes) -> str:
    """Return the hash in the stored row "active bundle"."""
    content = unpack_stored(row, ACTIVE_BUNDLE_KEY)[1]
    return msgspec.msgpack.decode(content, type=ActiveBundle).bundle


def is_outcome(failure: Failure) -> bool:
    """Tell whether a failure decides its call: not so a fault of the system, after which it may be tried again."""
    entry = ERROR_CODES.get(failure.code)
    return (
        entry is not None
        and entry.retry is Retry.NEVER
        and not isinstance(error_for(entry.code), StorageError)
    )


def _query_seed(name: str, arguments: bytes) -> bytes:
    """Return the seed of a query's `ctx.random`: run again over the same data it gives the same result."""
    return blake2b(arguments, digest_size=16, key=name.encode()[:64]).digest()


def _unsendable(error: Exception) -> Failure:
    return Failure("internal_error", f"what the call came to cannot be sent: {type(error).__name__}")


class Server:
    """Answers the daemon's messages with one bundle over one store.

    Args:
        link: The daemon.
        store: Opened read-only.
        bundle: Loaded.
        bundle_hash: Its name, as the row "active bundle" has it.
        progress: Where the running call is shown.
        guard: Switched on around each call.
        determinism: Told of each call.
        output: What calls print.
        limits: Bounds of a call.
        surroundings: Clocks and randomness.
    """

    def __init__(
        self,
        link: DaemonLink,
        store: StoreReader,
        bundle: Bundle,
        bundle_hash: str,
        progress: Progress,
        guard: Guard,
        determinism: Determinism,
        output: CallOutput,
        limits: WorkerLimits,
        surroundings: Surroundings,
    ) -> None:
        self._link = link
        self._store = store
        self._bundle = bundle
        self._bundle_hash = bundle_hash
        self._active_row: bytes | None = None
        self._progress = progress
        self._guard = guard
        self._determinism = determinism
        self._output = output
        self._limits = limits
        self._mono_ns = surroundings.mono_ns
        self._random_bytes = surroundings.random_bytes
        self._catalogs = CatalogCache()
        self._rounds: dict[int, StoreSnapshot] = {}
        self._fresh: StoreSnapshot | None = None
        self._fresh_at_ns = 0
        self._unsent_since_ns = 0  # since when the first of what is unsent has been in the making
        self._chain: OpenChain | None = None  # the newest; closed by `EndChain` or by the next one
        self._durations_ns: dict[str, tuple[int, int]] = {}  # of the last two runs

    def serve(self) -> None:
        """Work until the daemon closes its end."""
        while (messages := self._link.receive()) is not None:
            self.answer(messages)

    def answer(self, messages: list[TransactionOrder]) -> None:
        """Handle messages that were there together, in order, and send what they came to."""
        self._unsent_since_ns = self._mono_ns()
        for message in messages:
            self._handle(message)
        self._drop_fresh()
        self._link.flush()

    def _handle(self, message: TransactionOrder) -> None:
        match message:
            case RunMutation() | RunQuery() | ExplainCall():
                self._run(message, self._send_before(message.name))
            case OpenRound():
                self._open_round(message.round)
            case CloseRound():
                snapshot = self._rounds.pop(message.round, None)
                if snapshot is not None:
                    snapshot.close()
            case EndChain():
                if self._chain is not None and self._chain.number == message.chain:
                    self._chain.close()
                    self._chain = None
            case CheckDocuments():
                with self._store.snapshot() as snapshot:
                    catalog = self._catalogs.get(snapshot, snapshot.state.catalog_ts)
                    self._link.add(check_documents(self._bundle, snapshot, catalog, message))
            case RewriteDocuments():
                self._link.add(self._rewrite(message))
            case CheckVariables():
                self._link.add(self._check_variables(message))
            case Describe():
                self._link.add(Described(self._bundle.manifest().to_json(), None))

    def _check_variables(self, message: CheckVariables) -> VariablesChecked:
        """Look at what is stored now, whichever bundle is active."""
        read: dict[str, bytes | None] = {}

        def row(name: str) -> bytes | None:
            key = document_key(ENVIRONMENT, name.encode())
            value = snapshot.get_document(key)
            read[name] = found = None if value is None else bytes(unpack_stored(value, key)[1])
            return found

        with self._store.snapshot() as snapshot:
            problems = self._bundle.environments.problems(row, message.changes)
        return VariablesChecked(message.question, [encodable(text) for text in problems], read)

    def _rewrite(self, message: RewriteDocuments) -> DocumentsRewritten:
        with self._store.snapshot() as snapshot:
            transaction = self._transaction(snapshot, message.now_us, writable=True, make=Transaction)
            if transaction is None:
                return DocumentsRewritten(message.question, None)
            # The types of a bundle may run code of it when they read a document.
            self._determinism.begin(transaction.now_us, self._random_bytes(16), real_randomness=True)
            self._guard.active = True
            rewritten = rewrite_documents(self._bundle, transaction, message)
            self._guard.active = False
            self._determinism.end()
            self._output.take()
            return rewritten

    def _send_before(self, name: str) -> int:
        """Send what is finished, unless the next call is known to be short and little waits, and not for long.

        The shorter of its last two runs counts: a run that the machine's other work interrupted says nothing.

        Returns:
            The monotonic time at which the call begins.
        """
        link, now_ns = self._link, self._mono_ns()
        unsent = link.unsent_bytes
        if not unsent:
            self._unsent_since_ns = now_ns
        elif (
            unsent > UNSENT_BYTES_MAX
            or now_ns - self._unsent_since_ns > RESULTS_TOGETHER_NS
            or min(self._durations_ns.get(name, _UNKNOWN_NS)) >= SLOW_NS
        ):
            link.flush()
            self._unsent_since_ns = now_ns = self._mono_ns()
        return now_ns

    # ------------------------------------------------------------------ snapshots

    def _fresh_snapshot(self, now_ns: int) -> StoreSnapshot:
        """Return a snapshot that is newer than the arrival of the messages at hand.

        Calls that arrived together may share one; it is not kept for long, since an older
        snapshot meets more conflicts.
        """
        if self._fresh is not None:
            if now_ns - self._fresh_at_ns < SNAPSHOT_SHARED_NS:
                return self._fresh
            self._fresh.close()
        self._fresh = self._store.snapshot()
        self._fresh_at_ns = now_ns
        return self._fresh

    def _drop_fresh(self) -> None:
        if self._fresh is not None:
            self._fresh.close()
            self._fresh = None

    def _open_round(self, number: int) -> None:
        snapshot = self._store.snapshot()
        current = self._is_current(snapshot)
        if current:
            self._rounds[number] = snapshot
        else:
            snapshot.close()
        self._link.add(RoundOpened(number, snapshot.state.ts, current))

    def _chain_of(self, message: RunMutation, now_ns: int) -> OpenChain | None:
        """Return the chain that a mutation belongs to, moved on as far as is due."""
        if not message.chain:
            return None
        if self._chain is None or self._chain.number != message.chain:
            if self._chain is not None:
                self._chain.close()
            self._chain = OpenChain(message.chain, self._store, now_ns)
        self._chain.move_on(message.settled, CommitTs(message.settled_ts), now_ns)
        return self._chain

    def _transaction(
        self, snapshot: StoreSnapshot, now_us: int, *, writable: bool, make: type[_T]
    ) -> _T | None:
        """Return a transaction, None when another bundle is active in the snapshot."""
        if not self._is_current(snapshot):
            return None
        transaction = make(
            snapshot,
            self._catalogs.get(snapshot, snapshot.state.catalog_ts),
            self._limits.calls,
            # A call may have waited here: what it sees committed must not be from its future.
            now_us=max(now_us, snapshot.state.wall_us),
            random_bytes=self._random_bytes,
            writable=writable,
        )
        transaction.add_point(ACTIVE_BUNDLE_KEY)
        return transaction

    def _is_current(self, snapshot: StoreSnapshot) -> bool:
        """Tell whether this worker's bundle is the active one in a snapshot."""
        row = snapshot.get_document(ACTIVE_BUNDLE_KEY)
        if row is None or row == self._active_row:
            return row is not None
        if active_bundle(row) != self._bundle_hash:
            return False
        self._active_row = row  # the same bytes need not be decoded again
        return True

    # ------------------------------------------------------------------ calls

    def _run(self, message: RunMutation | RunQuery | ExplainCall, started_ns: int) -> None:
        """Answer a call.

        Whatever ends this worker before the answer is complete is put down to the call, for
        the daemon looks for its number; put down to nobody, it would end the next worker too.
        """
        self._progress.begin(message.call, started_ns)
        if isinstance(message, RunQuery):
            self._run_query(message, started_ns)
        elif isinstance(message, RunMutation):
            self._run_mutation(message, started_ns)
        else:
            self._explain(message, started_ns)
        self._progress.end()

    def _run_query(self, message: RunQuery, started_ns: int) -> None:
        snapshot = self._rounds.get(message.round) if message.round else self._fresh_snapshot(started_ns)
        if snapshot is None:  # sent along with the order to open the round, which met another bundle
            self._link.add(WrongBundle(message.call, 0))
            return
        transaction = self._transaction(snapshot, message.now_us, writable=False, make=Transaction)
        if transaction is None:
            self._link.add(WrongBundle(message.call, snapshot.state.ts))
            return
        seed = _query_seed(message.name, message.arguments)
        self._determinism.begin(transaction.now_us, seed, real_randomness=False)
        self._guard.active = True
        outcome = self._bundle.call_query(
            message.name,
            message.arguments,
            transaction,
            identity=message.identity,
            journal=message.journal,
            seed=seed,
            internal_allowed=message.internal,
        )
        self._guard.active = False
        self._determinism.end()
        failure, content = self._checked(outcome)
        result = outcome.result if content is not None else None
        done = QueryDone(
            message.call,
            transaction.begin_ts,
            content,
            result.bounds if result else None,
            result.ids if result else None,
            failure,
            transaction.points,
            transaction.ranges,
            outcome.identity_read,
            outcome.journal,
            self._usage(message.name, started_ns, transaction),
            self._output.take(),
        )
        try:
            self._link.add(done)
        except _UNSENDABLE as error:
            failure = _unsendable(error)
            self._link.add(replace(done, content=None, bounds=None, ids=None, failure=failure, logs=[]))

    def _run_mutation(self, message: RunMutation, started_ns: int) -> None:
        chain = self._chain_of(message, started_ns)
        snapshot = self._fresh_snapshot(started_ns) if chain is None else chain.snapshot
        transaction = self._transaction(snapshot, message.now_us, writable=True, make=Transaction)
        if transaction is None:
            self._link.add(WrongBundle(message.call, snapshot.state.ts))
            return
        memory: RequestMemory | JobMemory | None = None
        if message.request is not None:
            memory = RequestMemory(transaction, message.request, message.published_ts)
        elif message.job:
            memory = JobMemory(transaction, message.job)
        if memory is not None and memory.answer is not None:
            self._answer_known(message, transaction, memory.answer, started_ns)
            return
        seed = self._random_bytes(16)
        self._determinism.begin(transaction.now_us, seed, real_randomness=True)
        self._guard.active = True
        outcome = self._bundle.call_mutation(
            message.name,
            message.arguments,
            transaction,
            identity=message.identity,
            seed=seed,
            internal_allowed=message.internal,
        )
        self._guard.active = False
        self._determinism.end()
        failure, content = self._checked(outcome)
        usage = self._usage(message.name, started_ns, transaction)
        logs = self._output.take()
        try:
            self._propose(message, transaction, memory, content, failure, usage, logs)
        except _UNSENDABLE as error:
            self._propose(message, transaction, memory, None, _unsendable(error), usage, [])

    def _propose(
        self,
        message: RunMutation,
        transaction: Transaction,
        memory: RequestMemory | JobMemory | None,
        content: bytes | None,
        failure: Failure | None,
        usage: Usage,
        logs: list[tuple[str, str]],
    ) -> None:
        if failure is not None:
            transaction.discard_writes()
        if memory is not None and (failure is None or is_outcome(failure)):
            memory.keep(content, failure)
        proposal = transaction.proposal()
        self._link.add(
            MutationDone(
                message.call,
                transaction.begin_ts,
                content,
                failure,
                proposal if proposal.writes or message.chain else None,
                False,
                usage,
                logs,
                None if failure is not None else transaction.first_due_us,
            )
        )
        if message.chain and self._chain is not None:
            self._chain.add(proposal.writes)

    def _answer_known(
        self, message: RunMutation, transaction: Transaction, known: Answer, started_ns: int
    ) -> None:
        """Answer without having run the function."""
        self._link.add(
            MutationDone(
                message.call,
                transaction.begin_ts,
                known.outcome,
                known.failure,
                transaction.proposal() if message.chain else None,
                True,
                self._usage(message.name, started_ns, transaction),
            )
        )
        if message.chain and self._chain is not None:
            self._chain.add([])

    def _explain(self, message: ExplainCall, started_ns: int) -> None:
        """Run a call and tell what it has read and would write."""
        is_query = message.kind == "query"
        snapshot = self._fresh_snapshot(started_ns)
        transaction = self._transaction(
            snapshot, message.now_us, writable=not is_query, make=ExplainedTransaction
        )
        if transaction is None:
            self._link.add(WrongBundle(message.call, snapshot.state.ts))
            return
        seed = _query_seed(message.name, message.arguments) if is_query else self._random_bytes(16)
        self._determinism.begin(transaction.now_us, seed, real_randomness=not is_query)
        transaction.clock_read = False
        self._guard.active = True
        call = self._bundle.call_query if is_query else self._bundle.call_mutation
        outcome = call(
            message.name,
            message.arguments,
            transaction,
            identity=message.identity,
            seed=seed,
            internal_allowed=True,
        )
        self._guard.active = False
        self._determinism.end()
        failure, content = self._checked(outcome)
        variables = [key for key in map(document_parts, transaction.points) if key[0] == ENVIRONMENT]
        self._output.take()
        explained = Explained(
            result_bytes=len(content or b""),
            reads=transaction.read_costs(),
            more_reads=transaction.more,
            variables=sorted(name.decode() for _, name in variables),
            identity_read=outcome.identity_read,
            clock_read=transaction.clock_read or self._determinism.clock_read,
            writes=[] if failure is not None else transaction.write_costs(),
            jobs=transaction.usage.jobs,
        )
        usage = self._usage(message.name, started_ns, transaction)
        self._link.add(CallExplained(message.call, transaction.begin_ts, failure, explained, usage))

    def _checked(self, outcome: CallOutcome) -> tuple[Failure | None, bytes | None]:
        """Return how a call failed, or its encoded result."""
        failed = outcome.failure
        if failed is not None:
            too_long = self._too_long("data of the ApplicationError", failed.data or b"")
            return too_long or Failure(failed.code, failed.message, failed.data, failed.trace), None
        if outcome.result is None:
            return Failure("internal_error", "the call came to nothing"), None
        content = outcome.result.content
        too_long = self._too_long("result", content)
        return too_long, None if too_long else content

    def _too_long(self, what: str, content: bytes) -> Failure | None:
        limit = self._limits.result_limit_bytes
        if len(content) <= limit:
            return None
        return Failure("too_many_bytes", f"the {what} has {len(content)} bytes; the limit is {limit}")

    def _usage(self, name: str, started_ns: int, transaction: Transaction) -> Usage:
        duration_ns = self._mono_ns() - started_ns
        if len(self._durations_ns) >= NAMES_MAX:
            self._durations_ns.clear()  # names come from clients and need not be functions
        if len(name) <= NAME_CHARACTERS_MAX:
            self._durations_ns[name] = (self._durations_ns.get(name, _UNKNOWN_NS)[1], duration_ns)
        used = transaction.usage
        return Usage(
            duration_ns // 1000,
            used.documents_read,
            used.bytes_read,
            used.documents_written,
            used.bytes_written,
            started_ns // 1000,
        )
