"""A function worker in this process: the real loop over the real frames, with a bundle that is imported already."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from itertools import count
from typing import TYPE_CHECKING, Any

import msgspec
from headwater_protocol.errors import HeadwaterError, InternalError, error_for
from headwater_protocol.manifest import Manifest
from headwater_server.worker.link import FrameSplitter, FrameWriter
from headwater_server.worker.messages import MutationDone, QueryDone, RunMutation, RunQuery, WorkerMessage
from headwater_server.worker.output import CallOutput
from headwater_server.worker.serve import Server, Surroundings

from headwater.bundle import Bundle
from headwater.call_failures import CallFailure, failure_of
from headwater.context import MutationCtx
from headwater.testing.process import prepared_process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from headwater_server.functions.limits import WorkerLimits
    from headwater_server.worker.messages import TransactionOrder
    from headwater_storage.memory_engine import MemoryEngine
    from headwater_storage.transaction import Transaction

_SECOND_NS = 1_000_000_000


class TestedBundle(Bundle):
    """A bundle that keeps the exception that ended a call, for the test that made the call.

    Attributes:
        error: Of the last call that failed, until it is taken.
        name: Stands where a deployed bundle has its hash.
        declared: Everything that it declares.
    """

    ends = (Exception, SystemExit)  # what breaks a test off goes through to it
    error: BaseException | None = None
    name = ""
    declared: Manifest = Manifest()

    def failure_of(self, error: BaseException) -> CallFailure:
        """Return what an exception that ended a call means for its caller."""
        self.error = error
        return failure_of(error)

    def take_error(self) -> BaseException | None:
        """Return the exception that ended the last call, None if none did; it is kept no longer."""
        error, self.error = self.error, None
        return error

    @contextmanager
    def ctx(self, transaction: Transaction, identity: bytes | None, seed: bytes) -> Iterator[MutationCtx]:
        """Give the ctx of a test's own transaction for the length of a block."""
        call = self._call("a test", transaction, identity, None, seed)
        try:
            yield MutationCtx.of(call)
        finally:
            call.end()


@cache
def load(package: ModuleType) -> TestedBundle:
    """Return the bundle of a package; it is loaded once in a process.

    Raises:
        RequestError: `invalid_bundle`.
    """
    process = prepared_process()
    bundle = TestedBundle.load(package)
    process.adopt(package)
    bundle.declared = bundle.manifest()
    bundle.name = sha256(bundle.declared.to_json()).hexdigest()
    return bundle


class _Unwatched:
    """Nobody looks at how far a call has come: without a process of its own it cannot be ended."""

    def begin(self, call: int, mono_ns: int) -> None:
        """A call begins."""

    def end(self) -> None:
        """It has ended."""


class _Link:
    """The link to a daemon that hands over one message and takes the answer."""

    def __init__(self) -> None:
        self._writer = FrameWriter()
        self._splitter = FrameSplitter(msgspec.msgpack.Decoder(WorkerMessage))
        self._arrived: list[Any] = []

    def receive(self) -> None:
        """Nothing is waited for: see `Server.answer`."""

    def add(self, message: object) -> None:
        """Append a message for the next `flush`."""
        self._writer.add(message)

    @property
    def unsent_bytes(self) -> int:
        """Bytes that wait for `flush`."""
        return len(self._writer)

    def flush(self) -> None:
        """Send what was added."""
        self._arrived += self._splitter.feed(self._writer.take())

    def take(self) -> Any:
        """Return the one answer that there is."""
        (answer,) = self._arrived
        self._arrived = []
        return answer


class Worker:
    """Runs calls of one bundle over one database in memory.

    Attributes:
        bundle: Loaded.
    """

    def __init__(
        self,
        bundle: TestedBundle,
        engine: MemoryEngine,
        limits: WorkerLimits,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self.bundle = bundle
        self._engine = engine
        self._process = prepared_process()
        self._link = _Link()
        self._numbers = count(1)
        seconds = count(1)  # each reading is so much later that no two calls share a snapshot
        self._server = Server(
            self._link,
            engine.store,
            bundle,
            bundle.name,
            _Unwatched(),
            self._process.guard,
            self._process.determinism,
            CallOutput(limits.log_lines_max, limits.log_bytes_max),  # what calls print is left to the tests
            limits,
            Surroundings(lambda: next(seconds) * _SECOND_NS, random_bytes),
        )

    def query(self, name: str, arguments: bytes, identity: bytes | None, journal: bytes | None) -> QueryDone:
        """Run a query over the newest state."""
        call, now_us = next(self._numbers), self._engine.next_us()
        message = RunQuery(call, 0, now_us, name, arguments, identity, journal, internal=True)
        done: QueryDone = self._answer(message)
        return done

    def mutation(self, name: str, arguments: bytes, identity: bytes | None, *, job: str = "") -> MutationDone:
        """Run a mutation over the newest state, one of a scheduled job if that is given; nothing is committed."""
        call, now_us = next(self._numbers), self._engine.next_us()
        message = RunMutation(call, name, arguments, identity, None, now_us, internal=True, job=job)
        done: MutationDone = self._answer(message)
        return done

    def error_of(self, failure_code: str, message: str) -> BaseException:
        """Return what a test shall see of the last call, which failed: the exception itself where it tells the same."""
        error = self.bundle.take_error()
        code = error.code if isinstance(error, HeadwaterError) else InternalError.code
        if isinstance(error, Exception) and code == failure_code:
            return error
        told = error_for(failure_code, message)
        told.__cause__ = error
        return told

    def _answer(self, message: TransactionOrder) -> Any:
        __tracebackhide__ = True
        with self._process.during_call():
            self._server.answer([message])
        return self._link.take()
