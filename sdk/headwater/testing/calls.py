"""What tests do with a deployment: call functions, watch queries, write by hand."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

import msgspec
from headwater_protocol.errors import TransientError
from headwater_storage.proposal import CommitTs

from headwater.call_failures import CallFailure
from headwater.context import MutationFunction, QueryFunction, R
from headwater.http_fields import Headers
from headwater.testing.actions import ActionStage
from headwater.testing.fetching import encoded_body, fetch
from headwater.testing.tokens import MemoryIssuer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headwater_server.worker.messages import MutationDone, QueryDone
    from headwater_storage.memory_engine import MemoryEngine
    from headwater_storage.proposal import Proposal

    from headwater.actions import ActionFunction, StreamFunction
    from headwater.calls import CompiledFunction
    from headwater.context import MutationCtx, RegisteredFunction
    from headwater.http_fields import Pairs
    from headwater.identity import Identity
    from headwater.testing.fetching import Fetched
    from headwater.testing.worker import Worker

P = ParamSpec("P")
_T = TypeVar("_T")


class Stage:
    """What all callers of a deployment share.

    Attributes:
        engine: The database.
        worker: Runs functions over it.
        watches: Who looks at results.
        random_bytes: The source of all chance.
        issuer: Signs tokens for the bundle's accounts.
    """

    def __init__(self, engine: MemoryEngine, worker: Worker, random_bytes: Callable[[int], bytes]) -> None:
        self.engine = engine
        self.worker = worker
        self.watches: list[Watch[Any]] = []
        self.random_bytes = random_bytes
        self.issuer = MemoryIssuer(engine, self.published, random_bytes, worker.bundle.declared.providers)

    def compiled(self, function: RegisteredFunction, kind: str) -> CompiledFunction:
        """Return a function of the bundle.

        Raises:
            TypeError: It is none, or of another kind.
        """
        found = self.worker.bundle.compiled(function)
        if found is None:
            raise TypeError(
                f"run_{kind} takes a @{kind} function of the deployment's package, got {function!r}"
            )
        if found.kind != kind:
            raise TypeError(f"{found.name} is no {kind}; run it with run_{found.kind}")
        return found

    def commit(self, proposal: Proposal) -> None:
        """Commit a proposal, and have everybody look."""
        self.engine.commit(proposal)
        self.published()

    def published(self) -> None:
        """Have everybody look who has read what was written."""
        for watch in [*self.watches]:
            watch.look()


class Caller:
    """Somebody who calls functions: with an identity or without one.

    Args:
        stage: Of the deployment.
        identity: Who it is, None if nobody knows.
    """

    def __init__(self, stage: Stage, identity: Identity | None) -> None:
        self._stage = stage
        self._identity = None if identity is None else msgspec.msgpack.encode(identity)

    def run_query(self, function: QueryFunction[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a query over the newest state and return its result as it arrives at a client, in its declared type.

        Raises:
            Exception: What the function raised; `RequestError` and `InternalError` for what the caller did
                wrong, for limits and for results that are not as declared.
        """
        __tracebackhide__ = True
        stage = self._stage
        compiled = stage.compiled(function, "query")
        arguments = compiled.arguments.encode(args, kwargs)
        done = stage.worker.query(compiled.name, arguments, self._identity, None)
        if done.content is None:
            assert done.failure is not None, "a call ends in one of the two"
            raise stage.worker.error_of(done.failure.code, done.failure.message)
        result: R = compiled.result.decode(done.content, stage.engine.table_name)
        return result

    def run_mutation(self, function: MutationFunction[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a mutation, commit it and return its result, as `run_query` does."""
        __tracebackhide__ = True
        return self.begin_mutation(function, *args, **kwargs).commit()

    def begin_mutation(
        self, function: MutationFunction[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> PendingMutation[R]:
        """Run a mutation and leave it uncommitted, as it is while others commit first."""
        compiled = self._stage.compiled(function, "mutation")
        return PendingMutation(self._stage, compiled, compiled.arguments.encode(args, kwargs), self._identity)

    @overload
    async def run_action(self, function: ActionFunction[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def run_action(
        self, function: StreamFunction[P, _T], /, *args: P.args, **kwargs: P.kwargs
    ) -> list[_T]: ...
    async def run_action(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run an action to its end and return its result, of one that streams the list of its pieces.

        Raises:
            Exception: As `run_query`.
        """
        __tracebackhide__ = True
        stage = self._stage
        compiled = stage.compiled(function, "action")
        arguments = compiled.arguments.encode(args, kwargs)
        pieces: list[Any] = []

        async def emit(piece: bytes) -> None:
            pieces.append(compiled.result.decode(piece, stage.engine.table_name))

        backend = ActionStage(stage, self._identity)
        done = await stage.worker.bundle.call_action(
            compiled.name, arguments, backend, emit, identity=self._identity, internal_allowed=True
        )
        if isinstance(done, CallFailure):
            raise stage.worker.error_of(done.code, done.message)
        return pieces if compiled.stream else compiled.result.decode(done, stage.engine.table_name)

    async def fetch(self, method: str, target: str, /, *, body: Any = None, headers: Pairs = ()) -> Fetched:
        """Ask a route of the bundle and return its answer.

        Args:
            method: As in HTTP.
            target: Path and query, as `/hooks/payments?try=2`, without what routes are served below.
            body: Bytes and text as they are, anything else as JSON.
            headers: A mapping or pairs.

        Raises:
            Exception: What the route raised, but for errors that clients are told: those are answers.
        """
        __tracebackhide__ = True
        content, media_type = encoded_body(body)
        given = Headers(headers)
        if media_type and "Content-Type" not in given:
            given = Headers([*given.pairs, ("Content-Type", media_type)])
        backend = ActionStage(self._stage, self._identity)
        return await fetch(self._stage, backend, self._identity, method, target, content, given.pairs)

    def watch(self, function: QueryFunction[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Watch[R]:
        """Subscribe to a query, as a client does."""
        compiled = self._stage.compiled(function, "query")
        return Watch(self._stage, compiled, compiled.arguments.encode(args, kwargs), self._identity)

    @contextmanager
    def transaction(self) -> Iterator[MutationCtx]:
        """Give a ctx for the length of a block, to put documents there or to look at them.

        What the block wrote is committed at its end, and nothing of it if the block raises; the ctx ends with it. It is the
        test's own code: the guard of queries and mutations is off, time and chance are the machine's.
        """
        stage = self._stage
        with stage.engine.begin() as transaction:
            with stage.worker.bundle.ctx(transaction, self._identity, stage.random_bytes(16)) as ctx:
                yield ctx
            proposal = transaction.proposal()
        stage.commit(proposal)


class PendingMutation(Generic[R]):
    """A mutation that has run and is not committed.

    Attributes:
        attempts: How often it has run.
    """

    def __init__(
        self, stage: Stage, compiled: CompiledFunction, arguments: bytes, identity: bytes | None
    ) -> None:
        self.attempts = 0
        self._stage = stage
        self._compiled = compiled
        self._arguments = arguments
        self._identity = identity
        self._done = self._run()

    def commit(self) -> R:
        """Commit it and return its result; if others wrote what it had read, it runs once more before.

        Raises:
            Exception: As `Caller.run_query`; nothing is written then.
        """
        __tracebackhide__ = True
        try:
            result = self._commit()
        except TransientError as error:
            if error.code != "conflict":
                raise
            self._done = self._run()
            result = self._commit()  # nobody else commits in between
        self._stage.published()
        return result

    def _run(self) -> MutationDone:
        self.attempts += 1
        done = self._stage.worker.mutation(self._compiled.name, self._arguments, self._identity)
        self._error = (
            None
            if done.failure is None
            else self._stage.worker.error_of(done.failure.code, done.failure.message)
        )
        return done

    def _commit(self) -> R:
        __tracebackhide__ = True
        if self._error is not None:
            raise self._error
        done = self._done
        if done.proposal is not None:
            self._stage.engine.commit(done.proposal)
        assert done.outcome is not None, "it has not failed"
        result: R = self._compiled.result.decode(done.outcome, self._stage.engine.table_name)
        return result


class Watch(Generic[R]):
    """A subscription to a query: it is run again after each commit that changed what it had read.

    Attributes:
        results: What it has shown, the oldest first: the result at its beginning, and each that was another.
    """

    def __init__(
        self, stage: Stage, compiled: CompiledFunction, arguments: bytes, identity: bytes | None
    ) -> None:
        self.results: list[R] = []
        self._stage = stage
        self._compiled = compiled
        self._arguments = arguments
        self._identity = identity
        self._error: BaseException | None = None
        self._done = self._run(None)
        self._show(self._done)
        stage.watches.append(self)

    @property
    def result(self) -> R:
        """The newest result.

        Raises:
            Exception: What the newest run raised, if it did.
        """
        if self._error is not None:
            raise self._error
        return self.results[-1]

    def close(self) -> None:
        """Watch no longer."""
        if self in self._stage.watches:
            self._stage.watches.remove(self)

    def look(self) -> None:
        """Run again if anything that was read has been written since."""
        before = self._done
        if self._stage.engine.window.touched_after(CommitTs(before.ts), before.points, before.ranges):
            self._done = self._run(before.journal)
            if self._done.content is None or self._done.content != before.content:
                self._show(self._done)

    def _run(self, journal: bytes | None) -> QueryDone:
        return self._stage.worker.query(self._compiled.name, self._arguments, self._identity, journal)

    def _show(self, done: QueryDone) -> None:
        if done.content is not None:
            self._error = None
            self.results.append(self._compiled.result.decode(done.content, self._stage.engine.table_name))
        elif done.failure is not None:
            self._error = self._stage.worker.error_of(done.failure.code, done.failure.message)
