"""What is remembered of requests, so that a mutation takes effect once however often it is sent.

Pure over a transaction. Every decided call of a session leaves a row with its outcome, in the
same commit as its writes. A row goes when its client has said that it has the answer, or
after its retention; what is known then of a request without a row follows from the newest row
of its session and from the horizon:

    a row of its own                               its outcome
    else, first sent before the horizon            unknown: its row may have been dropped for its age
    else, a newer row, and it was to be forgotten  unknown: the client has said that it has the answer
    else, a newer row                              refused before and overtaken: never run
    else                                           not decided yet: run it

The calls of a session are decided in the order of their numbers, so its newest row is its
high-water mark, and goes by the horizon only. The client saw no later ts when it first sent a
request than the call saw when it ran, nor than any later call of the session saw: whatever
row was dropped, the horizon behind that row's snapshot tells. No clock is part of that.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import msgspec
from headwater_storage.catalog import DEPLOYMENT, REQUESTS, read_row
from headwater_storage.keys import NUMBER_BYTES, document_key, table_range
from headwater_storage.stored import unpack_stored
from msgspec.structs import replace

from headwater_server.worker.messages import REQUEST_NUMBER_BYTES, Failure

if TYPE_CHECKING:
    from headwater_storage.transaction import Transaction

    from headwater_server.worker.messages import Request

FORGOTTEN_AT_ONCE_MAX = 16
"""Rows that one commit drops because its client has their answers; the next commits drop the rest."""

_HORIZON_SUFFIX = b"request_horizon"

_FORGOTTEN = Failure(
    "outcome_unknown",
    "this mutation was sent before, and how it ended is not remembered any more: it was not run again",
)
_OVERTAKEN = Failure(
    "unavailable",
    "this mutation was refused before, and later ones of its session have been decided since: it was not run",
)
_OTHER_CLIENT = Failure(
    "session_in_use", "another client has used this session and request number; take a new session id"
)


class RequestRow(msgspec.Struct, array_like=True, frozen=True):
    """What is stored of one decided call.

    Attributes:
        fingerprint: Digest of function, arguments and user; a resend must have the same.
        outcome: Encoded result; None when it failed.
        code: Error code; "" on success.
        message: Error message.
        data: Encoded data of an application error.
        decided_us: Wall time of the call, 0 in a row from before it was kept.
        begin_ts: Snapshot that the call saw, or a later ts: its first sender had seen no later one.
        forgotten_below: Highest number that the session's client said it needs no outcomes below.
    """

    fingerprint: bytes
    outcome: bytes | None
    code: str = ""
    message: str = ""
    data: bytes | None = None
    decided_us: int = 0
    begin_ts: int = 0
    forgotten_below: int = 0

    @property
    def failure(self) -> Failure | None:
        """How it failed, None if it did not."""
        return Failure(self.code, self.message, self.data) if self.code else None


class Horizon(msgspec.Struct, array_like=True, frozen=True):
    """The row that says what may have been dropped for its age.

    Attributes:
        ts: Requests first sent when their client had seen less than this may have lost their rows.
    """

    ts: int = 0


class Answer(msgspec.Struct, frozen=True):
    """What a request is answered without being run: a stored outcome, or why there is none."""

    outcome: bytes | None
    failure: Failure | None


encode_request_row = msgspec.msgpack.Encoder().encode
decode_request_row = msgspec.msgpack.Decoder(RequestRow).decode


class RequestMemory:
    """One request, as a transaction sees it; what decides that it may run is part of the read set.

    Attributes:
        answer: What it is to be answered; None: it has to be run.
    """

    def __init__(self, transaction: Transaction, request: Request, published_ts: int = 0) -> None:
        """Look up what is known.

        Args:
            transaction: What the request is to run in.
            request: The request.
            published_ts: Newest ts that its client can have seen, if the snapshot may be older.
        """
        self._transaction = transaction
        self._request = request
        self._seen_ts = max(transaction.begin_ts, published_ts)
        self._forgotten_below = request.forget_below
        self.answer = self._recall()

    def keep(self, outcome: bytes | None, failure: Failure | None) -> None:
        """Write how the request ended, and drop rows that its client needs no more."""
        request, transaction = self._request, self._transaction
        row = RequestRow(
            request.fingerprint,
            None if failure else outcome,
            failure.code if failure else "",
            failure.message if failure else "",
            failure.data if failure else None,
            transaction.now_us,
            self._seen_ts,
            self._forgotten_below,
        )
        transaction.put_row(REQUESTS, request.row, encode_request_row(row))
        lo = document_key(REQUESTS, request.session)
        hi = lo + request.forget_below.to_bytes(REQUEST_NUMBER_BYTES, "big")
        for key, _ in islice(transaction.snapshot.documents(lo, hi), FORGOTTEN_AT_ONCE_MAX):
            transaction.put_row(REQUESTS, key[NUMBER_BYTES:], None)

    def _recall(self) -> Answer | None:
        request, transaction = self._request, self._transaction
        lo, hi = request.session, request.session + b"\xff" * REQUEST_NUMBER_BYTES
        found = next(transaction.read_rows(REQUESTS, lo, hi, descending=True), None)
        newest = None
        if found is not None:
            newest = decode_request_row(found[1])
            self._forgotten_below = max(request.forget_below, newest.forgotten_below)
            if found[0] == request.row:
                return self._stored(newest)
            if found[0] < request.row:
                newest = None
            elif (content := transaction.get_row(REQUESTS, request.row)) is not None:
                return self._stored(decode_request_row(content))
        if self._is_behind_horizon():
            return Answer(None, _FORGOTTEN)
        if newest is None:
            return None
        return Answer(None, _FORGOTTEN if request.number < newest.forgotten_below else _OVERTAKEN)

    def _stored(self, row: RequestRow) -> Answer:
        if row.fingerprint != self._request.fingerprint:
            return Answer(None, _OTHER_CLIENT)
        return Answer(row.outcome, row.failure)

    def _is_behind_horizon(self) -> bool:
        sent_ts = self._request.sent_ts
        return sent_ts is not None and sent_ts < read_horizon(self._transaction).ts


def read_horizon(transaction: Transaction) -> Horizon:
    """Return the horizon; it counts as read."""
    return read_row(transaction, DEPLOYMENT, _HORIZON_SUFFIX, Horizon) or Horizon()


@dataclass(frozen=True, slots=True)
class Trimmed:
    """What one step of trimming did.

    Attributes:
        next: Key at which to go on; None at the end of the table.
        kept: Rows that are younger than their retention.
        dropped: Rows that were not.
    """

    next: bytes | None
    kept: int
    dropped: int


def trim_requests(
    transaction: Transaction, begin: bytes | None, retention_us: int, *, rows_max: int, bytes_max: int
) -> Trimmed:
    """Drop rows older than their retention and move the horizon past them, in one transaction.

    A row without a time is given the present one. Rows are not counted as read: nothing but
    another drop can change one.

    Args:
        transaction: What to do it in; its time says how old a row is.
        begin: `next` of the step before; None at first.
        retention_us: Age at which a row goes.
        rows_max: Rows to look at.
        bytes_max: Bytes of rows after which no further one is looked at.
    """
    lo, hi = table_range(REQUESTS)
    oldest_us = transaction.now_us - retention_us
    kept = dropped = size = horizon = 0
    following = None
    for key, value in transaction.snapshot.documents(begin or lo, hi):
        if kept + dropped >= rows_max or size >= bytes_max:
            following = key
            break
        size += len(value)
        row = decode_request_row(unpack_stored(value, key)[1])
        suffix = key[NUMBER_BYTES:]
        if not row.decided_us:
            dated = replace(row, decided_us=transaction.now_us, begin_ts=transaction.begin_ts)
            transaction.add_point(key)
            transaction.put_row(REQUESTS, suffix, encode_request_row(dated))
        elif row.decided_us < oldest_us:
            transaction.put_row(REQUESTS, suffix, None)
            horizon = max(horizon, row.begin_ts + 1)
            dropped += 1
            continue
        kept += 1
    if horizon > read_horizon(transaction).ts:
        transaction.put_row(DEPLOYMENT, _HORIZON_SUFFIX, msgspec.msgpack.encode(Horizon(horizon)))
    return Trimmed(following, kept, dropped)
