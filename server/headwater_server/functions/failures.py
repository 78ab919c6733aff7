"""What a client may know of a failure: application errors and bad requests whole, faults by a request id."""

from __future__ import annotations

import logging
from hashlib import blake2b
from typing import TYPE_CHECKING, Literal

from headwater_protocol.messages import ErrorBody

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater_server.worker.messages import Failure

logger = logging.getLogger("headwater.functions")

CallKind = Literal["query", "mutation", "action", "route"]

_HIDDEN = frozenset({"internal_error", "invalid_result", "worker_died"})


class ErrorReporter:
    """Turns failures into error bodies and logs each fault once, with the request id that the client gets.

    Args:
        production: Whether texts and traces of faults stay in the log.
        random_bytes: Source of request ids.
    """

    def __init__(self, *, production: bool, random_bytes: Callable[[int], bytes]) -> None:
        self._production = production
        self._random_bytes = random_bytes

    def body(self, kind: CallKind, name: str, failure: Failure) -> ErrorBody:
        """Return what crosses the wire."""
        if failure.code not in _HIDDEN:
            return ErrorBody(failure.code, failure.message, failure.data)
        request_id = self._request_id(kind, failure)
        logger.error(
            "call_failed",
            extra={
                "fields": {
                    "request_id": request_id,
                    "kind": kind,
                    "function": name,
                    "code": failure.code,
                    "error": failure.message,
                    "trace": failure.trace,
                }
            },
        )
        if self._production:
            return ErrorBody(failure.code, f"Server error [request id {request_id}]")
        trace = f"\n{failure.trace.rstrip()}" if failure.trace else ""
        return ErrorBody(failure.code, f"{failure.message} [request id {request_id}]{trace}")

    def _request_id(self, kind: CallKind, failure: Failure) -> str:
        """Return the id that client and log share.

        A query that fails in the same way again has the same one: its result has not changed
        and is not sent again.
        """
        if kind != "query":
            return self._random_bytes(6).hex()
        text = f"{failure.code}|{failure.message}|{failure.trace}"
        return blake2b(text.encode(), digest_size=6).hexdigest()
