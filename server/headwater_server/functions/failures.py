"""What becomes of a call that has ended: the log of calls has all of it, its caller what a client may know.

Application errors and bad requests are told whole, faults by a request id.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from headwater_protocol.messages import ErrorBody

from headwater_server.observe.call_log import SUCCESS, CallEvent
from headwater_server.worker.messages import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headwater_server.observe.call_log import CallKind, CallLog, Origin
    from headwater_server.worker.messages import QueryDone

_HIDDEN = frozenset({"internal_error", "invalid_result", "worker_died"})


class Told(NamedTuple):
    """What a caller is told of a failure.

    Attributes:
        body: What crosses the wire.
        request_id: The id in it, by which the log has the rest; "" if there is none.
    """

    body: ErrorBody
    request_id: str


class CallReporter:
    """Turns failures into error bodies, and hands each call that has ended to the log.

    Args:
        production: Whether texts and traces of faults stay in the log.
        random_bytes: Source of request ids.
        log: The log of calls.

    Attributes:
        log: Logs an event of which its caller has been told, or need not be.
    """

    def __init__(self, *, production: bool, random_bytes: Callable[[int], bytes], log: CallLog) -> None:
        self._production = production
        self._random_bytes = random_bytes
        self.log = log.record

    def told(self, kind: CallKind, failure: Failure) -> Told:
        """Return what a caller is told."""
        if failure.code not in _HIDDEN:
            return Told(ErrorBody(failure.code, failure.message, failure.data), "")
        request_id = self._request_id(kind, failure)
        if self._production:
            return Told(ErrorBody(failure.code, f"Server error [request id {request_id}]"), request_id)
        trace = f"\n{failure.trace.rstrip()}" if failure.trace else ""
        message = f"{failure.message} [request id {request_id}]{trace}"
        return Told(ErrorBody(failure.code, message), request_id)

    def shown(self, lines: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
        """Return what a caller may be shown of what its call printed: nothing in production."""
        return () if self._production else lines

    def query_ended(
        self,
        name: str,
        done: QueryDone,
        origin: Origin,
        *,
        total_s: float | None = None,
        identity: bytes | None = None,
        action: int = 0,
    ) -> ErrorBody | None:
        """Log a query that has run; return what its caller is told if it failed."""
        failure = done.failure
        if failure is None and done.content is None:
            failure = Failure("internal_error", "the worker sent neither result nor failure")
        event = CallEvent(
            "query",
            name,
            origin,
            SUCCESS,
            done.usage,
            total_s,
            identity=identity,
            action=action,
            lines=done.logs,
        )
        return self.ended(event, failure)

    def ended(self, event: CallEvent, failure: Failure | None) -> ErrorBody | None:
        """Log a call that has ended; return what its caller is told if it failed."""
        body = None
        if failure is not None:
            body, event.request_id = self.told(event.kind, failure)
            event.outcome, event.failure = failure.code, failure
        self.log(event)
        return body

    def _request_id(self, kind: CallKind, failure: Failure) -> str:
        """Return the id that client and log share.

        A query that fails in the same way again has the same one: its result has not changed
        and is not sent again.
        """
        if kind != "query":
            return self._random_bytes(6).hex()
        text = f"{failure.code}|{failure.message}|{failure.trace}"
        return blake2b(text.encode(), digest_size=6).hexdigest()
