"""Drops what is remembered of clients that never came back, a little at a time.

Lives on the event loop. Each step is a transaction of its own, and a bounded one: it looks at
some rows of `_requests`, drops those past their retention and moves the horizon with them.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from headwater_protocol.errors import TransientError

from headwater_server.worker.request_row import Trimmed, trim_requests

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from headwater_storage.proposal import CommitTs, Proposal
    from headwater_storage.transaction import Transaction

    from headwater_server.observe.metrics import Metrics

logger = logging.getLogger("headwater.requests")


@dataclass(frozen=True, slots=True)
class TrimOptions:
    """How what is remembered of requests goes.

    Attributes:
        retention_s: Age at which a row goes.
        interval_s: Pause between two passes over the table.
        rows_max: Rows that one step looks at.
        bytes_max: Bytes of rows after which a step ends.
        pause_s: Pause between two steps.
    """

    retention_s: float = 14 * 86_400.0
    interval_s: float = 600.0
    rows_max: int = 256
    bytes_max: int = 256 * 1024
    pause_s: float = 0.02


class Database(Protocol):
    """What the trimmer needs of the engine."""

    def begin(self) -> AbstractContextManager[Transaction]:
        """Open a transaction."""

    async def commit(self, proposal: Proposal) -> CommitTs:
        """Commit a proposal."""


class RequestTrimmer:
    """Goes over the table of requests again and again."""

    def __init__(self, database: Database, options: TrimOptions, metrics: Metrics) -> None:
        self._database = database
        self._options = options
        self._metrics = metrics

    async def run(self) -> None:
        """Pass after pass; ends when it is cancelled."""
        while True:
            try:
                await self.sweep()
            except TransientError as error:
                fields = {"code": error.code, "reason": error.message}
                logger.warning("request_trim_put_off", extra={"fields": fields})
            except Exception:  # of one pass; the next may find it repaired
                logger.exception("request_trim_failed")
            await asyncio.sleep(self._options.interval_s)

    async def sweep(self) -> Trimmed:
        """Make one pass over the table and return what became of its rows.

        Raises:
            TransientError: Nothing can be committed at present; the next pass goes on.
        """
        kept = dropped = 0
        step = await self.step(None)
        while step.next is not None:
            kept, dropped = kept + step.kept, dropped + step.dropped
            await asyncio.sleep(self._options.pause_s)
            step = await self.step(step.next)
        kept, dropped = kept + step.kept, dropped + step.dropped
        self._metrics.request_rows.set(kept)
        if dropped:
            logger.info("requests_trimmed", extra={"fields": {"dropped": dropped, "kept": kept}})
        return Trimmed(None, kept, dropped)

    async def step(self, begin: bytes | None) -> Trimmed:
        """Look at the rows from a key on (None: the first), as many as one step may."""
        options = self._options
        with self._database.begin() as transaction:
            trimmed = trim_requests(
                transaction,
                begin,
                round(options.retention_s * 1e6),
                rows_max=options.rows_max,
                bytes_max=options.bytes_max,
            )
            proposal = transaction.proposal()
        if proposal.writes:
            await self._database.commit(proposal)
            self._metrics.request_rows_dropped.inc(trimmed.dropped)
        return trimmed
