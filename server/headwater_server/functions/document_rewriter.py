"""Brings documents that were written under an earlier shape of their table to the current one, a little at a time.

Lives on the event loop; the documents are read and written anew by a worker of the active bundle. Each part is an
ordinary transaction, which also says how far it went: a restart goes on from there. It rests after each part for a
multiple of what that took, so a busy daemon is left to its calls, and stands still while a deploy goes on.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from headwater_protocol.errors import HeadwaterError, TransientError
from headwater_storage.catalog import (
    ACTIVE_SUFFIX,
    DEPLOYMENT,
    ActiveBundle,
    RewriteProgress,
    read_row,
    rewrite_row_suffix,
)

from headwater_server.worker.messages import DocumentsRewritten, RewriteDocuments

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractContextManager

    from headwater_storage.catalog import TableDefinition
    from headwater_storage.proposal import CommitTs, Proposal
    from headwater_storage.transaction import Transaction

    from headwater_server.observe.metrics import Metrics
    from headwater_server.worker.messages import Question, Reply

logger = logging.getLogger("headwater.rewrites")


@dataclass(frozen=True, slots=True)
class RewriteOptions:
    """How fast documents are rewritten.

    Attributes:
        delay_s: Time after a deploy before it begins: a roll back until then finds all as it was.
        documents_max: Documents that one part rewrites.
        share: Part of the time that goes into it; the rest it rests.
        retry_s: First pause after a part that failed; doubles.
        failures_max: After so many failures in a row pauses grow no more; if the last one was no matter of the
            moment, it waits for the next deploy or start.
    """

    delay_s: float = 60.0
    documents_max: int = 200
    share: float = 0.2
    retry_s: float = 0.1
    failures_max: int = 8


class Database(Protocol):
    """What the rewriter needs of the engine."""

    @property
    def published_ts(self) -> CommitTs:
        """Newest ts that the outside may see."""

    def hold(self, ts: CommitTs) -> None:
        """Have what began at a ts checked against all that is committed since."""

    def release(self, ts: CommitTs) -> None:
        """Hold a ts no longer."""

    def begin(self, *, writable: bool = True) -> AbstractContextManager[Transaction]:
        """Open a transaction."""

    async def commit(self, proposal: Proposal) -> CommitTs:
        """Commit a proposal."""

    def next_us(self) -> int:
        """Return the time in µs."""


class DocumentRewriter:
    """Goes over the tables after each deploy and each start.

    Args:
        database: The engine.
        ask: Has a worker of the active bundle look at documents.
        turn: Held during each part; whoever holds it keeps documents as they are.
        options: How fast.
        mono_s: Monotonic clock.
        metrics: Counts documents.
    """

    def __init__(
        self,
        database: Database,
        ask: Callable[[Question], Awaitable[Reply]],
        turn: asyncio.Lock,
        options: RewriteOptions,
        mono_s: Callable[[], float],
        metrics: Metrics,
    ) -> None:
        self._database = database
        self._ask = ask
        self._turn = turn
        self._options = options
        self._mono_s = mono_s
        self._metrics = metrics
        self._due = asyncio.Event()
        self._due.set()

    def wake(self) -> None:
        """Look again whether there is something to rewrite: another bundle has become active."""
        self._due.set()

    async def run(self) -> None:
        """Rewrite whenever there is something; ends when it is cancelled."""
        while True:
            await self._due.wait()
            self._due.clear()
            try:
                await self.rewrite_all()
            except Exception:  # the next deploy or start tries again
                logger.exception("document_rewrite_failed")

    async def rewrite_all(self) -> None:
        """Rewrite until nothing is left, or it has failed too often in a row."""
        failures = 0
        while (remaining_s := self._remaining_s()) is not None:
            if remaining_s > 0:
                await asyncio.sleep(remaining_s)  # again then: there may have been a deploy meanwhile
                continue
            try:
                async with self._turn:
                    started_s = self._mono_s()
                    if not await self._part():
                        return
                failures = 0
                share = self._options.share
                await asyncio.sleep((self._mono_s() - started_s) * (1 - share) / share)
            except HeadwaterError as error:
                failures += 1
                most = self._options.failures_max
                fields = {"code": error.code, "reason": error.message}
                if failures >= most and not isinstance(error, TransientError):
                    logger.error("document_rewrite_given_up", extra={"fields": fields})
                    return
                if failures == most:
                    logger.warning("document_rewrite_put_off", extra={"fields": fields})
                await asyncio.sleep(self._options.retry_s * 2 ** min(failures, most))

    def _remaining_s(self) -> float | None:
        """Return how long it has to wait before it may begin, None if no bundle is active."""
        with self._database.begin(writable=False) as transaction:
            active = read_row(transaction, DEPLOYMENT, ACTIVE_SUFFIX, ActiveBundle)
        if active is None:
            return None
        return active.deployed_us / 1e6 + self._options.delay_s - self._database.next_us() / 1e6

    async def _part(self) -> bool:
        """Rewrite the next documents; return whether there was anything to do.

        Raises:
            HeadwaterError: The part failed: a document was written meanwhile, a worker ended, the disk is full.
        """
        table = self._next_table()
        if table is None:
            return False
        begun_ts = self._database.published_ts  # the worker sees this or more
        self._database.hold(begun_ts)
        try:
            await self._rewrite(table)
        finally:
            self._database.release(begun_ts)
        return True

    async def _rewrite(self, table: TableDefinition) -> None:
        reply = await self._ask(
            RewriteDocuments(table.number, self._options.documents_max, self._database.next_us())
        )
        assert isinstance(reply, DocumentsRewritten), "what was asked for"
        for document_id, reason in reply.left:
            fields = {"table": table.name, "document": document_id, "reason": reason}
            logger.warning("document_left_as_it_is", extra={"fields": fields})
        if reply.proposal is not None:
            await self._database.commit(reply.proposal)
            self._metrics.deploys.documents_rewritten.inc(reply.rewritten)
        if reply.done:
            logger.info("table_rewritten", extra={"fields": {"table": table.name, "left": reply.stay}})

    def _next_table(self) -> TableDefinition | None:
        with self._database.begin(writable=False) as transaction:
            for handle in transaction.catalog.by_name.values():
                table = handle.definition
                progress = read_row(
                    transaction, DEPLOYMENT, rewrite_row_suffix(table.number), RewriteProgress
                ) or RewriteProgress(0)
                # A table that never had another shape has no document of one.
                if table.shape > 1 and not (progress.done and progress.shape == table.shape):
                    return table
        return None
