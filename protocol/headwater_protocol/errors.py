"""Every error that crosses a boundary: one table, one tree of exceptions.

    HeadwaterError
    ├── ApplicationError    raised by user functions; its data reaches the client
    ├── RequestError        the request is wrong; the same request will fail again
    ├── TransientError      the same request may succeed later
    ├── OutcomeUnknown      may or may not have taken effect
    ├── ProtocolError       a peer broke the protocol (`LocalProtocolError`: our side did)
    ├── StorageError        the database cannot go on as it is
    └── InternalError       a fault of ours or of user code; clients see a request id only

A code is added only if some caller would act differently on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any


class Retry(Enum):
    """What a caller may do after an error."""

    NEVER = "never"
    SAME_REQUEST = "same_request"
    AFTER_RECONNECT = "after_reconnect"


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """One line of the error table.

    Attributes:
        code: Stable name, part of the interface.
        message: Default message; messages at the place say more.
        retry: What a caller may do.
        http_status: Status over HTTP.
        close_code: WebSocket close code when the error ends a connection, else None.
    """

    code: str
    message: str
    retry: Retry
    http_status: int
    close_code: int | None = None


_TABLE = (
    ErrorCode("application_error", "The function raised an ApplicationError", Retry.NEVER, 200),
    ErrorCode("unknown_function", "There is no such function", Retry.NEVER, 404),
    ErrorCode("invalid_arguments", "The arguments do not fit the function's signature", Retry.NEVER, 400),
    ErrorCode("invalid_result", "The function returned what its signature does not allow", Retry.NEVER, 500),
    ErrorCode("invalid_document", "The document does not fit its table", Retry.NEVER, 400),
    ErrorCode("invalid_cursor", "The cursor does not belong to this query", Retry.NEVER, 400),
    ErrorCode("invalid_request", "The request is malformed", Retry.NEVER, 400),
    ErrorCode("invalid_bundle", "The bundle cannot be deployed", Retry.NEVER, 400),
    ErrorCode("unknown_table", "There is no such table", Retry.NEVER, 400),
    ErrorCode("unknown_index", "There is no such index", Retry.NEVER, 400),
    ErrorCode("document_not_found", "There is no document with this id", Retry.NEVER, 404),
    ErrorCode("unique_violation", "Another document has this value in a unique index", Retry.NEVER, 409),
    ErrorCode("document_too_large", "The document is larger than the limit", Retry.NEVER, 413),
    ErrorCode("too_many_documents", "The call read or wrote more documents than the limit", Retry.NEVER, 413),
    ErrorCode("too_many_bytes", "The call read or wrote more bytes than the limit", Retry.NEVER, 413),
    ErrorCode("frame_too_large", "The message is larger than the limit", Retry.NEVER, 413, 1009),
    ErrorCode("time_limit", "The call ran longer than its limit and was ended", Retry.NEVER, 504),
    ErrorCode("worker_died", "The worker process ended during the call", Retry.NEVER, 500),
    ErrorCode("cancelled", "The caller cancelled the action, or went away", Retry.NEVER, 500),
    ErrorCode("not_allowed_here", "Queries and mutations cannot do this; use an action", Retry.NEVER, 400),
    ErrorCode("unauthenticated", "A valid key or token is needed", Retry.NEVER, 401, 4001),
    ErrorCode("forbidden", "This identity may not do that", Retry.NEVER, 403),
    ErrorCode("session_in_use", "Another client uses this session id", Retry.AFTER_RECONNECT, 409, 4002),
    ErrorCode("conflict", "Other writes came first too many times", Retry.SAME_REQUEST, 409),
    ErrorCode("overloaded", "The server has more work than it can take", Retry.SAME_REQUEST, 503, 1013),
    ErrorCode("rate_limited", "More requests came than may, for now", Retry.SAME_REQUEST, 429, 1013),
    ErrorCode("unavailable", "The server is starting or stopping", Retry.AFTER_RECONNECT, 503, 1012),
    ErrorCode("no_bundle", "No bundle has been deployed yet", Retry.SAME_REQUEST, 503),
    ErrorCode("disk_full", "The disk is full; writes are refused, reads go on", Retry.SAME_REQUEST, 507),
    ErrorCode("outcome_unknown", "The mutation may or may not have taken effect", Retry.NEVER, 500),
    ErrorCode("connection_lost", "The connection ended while the call was in flight", Retry.NEVER, 500),
    ErrorCode("protocol_error", "The peer broke the protocol", Retry.NEVER, 400, 1002),
    ErrorCode("unsupported_version", "No protocol version in common", Retry.NEVER, 400, 4003),
    ErrorCode("format_too_new", "A newer version of Headwater wrote this data", Retry.NEVER, 500),
    ErrorCode("damaged", "Stored data is damaged", Retry.NEVER, 500),
    ErrorCode(
        "disk_failed", "The disk failed; the daemon ends and recovers at its next start", Retry.NEVER, 500
    ),
    ErrorCode(
        "log_taken",
        "Another process has the log; the daemon ends and recovers at its next start",
        Retry.NEVER,
        500,
    ),
    ErrorCode("directory_in_use", "Another process has this data directory", Retry.NEVER, 500),
    ErrorCode("directory_unusable", "The daemon cannot use this as a data directory", Retry.NEVER, 500),
    ErrorCode("directory_copied", "This data directory was copied while it was in use", Retry.NEVER, 500),
    ErrorCode("internal_error", "Something went wrong", Retry.NEVER, 500, 1011),
)

ERROR_CODES: dict[str, ErrorCode] = {row.code: row for row in _TABLE}


class HeadwaterError(Exception):
    """Base of all errors that callers may want to tell apart, by `code`.

    Attributes:
        code: A key of `ERROR_CODES`.
        message: What happened, to which thing, what to do.
        data: Structured data for the caller (application errors), else None.
    """

    code = "internal_error"

    def __init__(self, message: str = "", *, code: str | None = None, data: Any = None) -> None:
        self.code = code or type(self).code
        if self.code not in ERROR_CODES:
            raise ValueError(f"{self.code!r} is not in the error table")
        self.message = message or ERROR_CODES[self.code].message
        self.data = data
        super().__init__(self.message)

    @property
    def entry(self) -> ErrorCode:
        """The line of the error table."""
        return ERROR_CODES[self.code]


class ApplicationError(HeadwaterError):
    """Raised by user functions to tell the client something: `ApplicationError({"code": "no_such_channel"})`."""

    code = "application_error"

    def __init__(self, data: Any = None, *, message: str = "") -> None:
        super().__init__(message or (data if isinstance(data, str) else ""), data=data)


class RequestError(HeadwaterError):
    """The request is wrong; the same request will fail again."""

    code = "invalid_request"


class TransientError(HeadwaterError):
    """The same request may succeed later."""

    code = "unavailable"


class OutcomeUnknown(HeadwaterError):  # noqa: N818 - neither error nor success, and named so everywhere
    """A mutation may or may not have taken effect."""

    code = "outcome_unknown"


class ProtocolError(HeadwaterError):
    """The peer broke the protocol."""

    code = "protocol_error"


class LocalProtocolError(ProtocolError):
    """Our own side was used against the protocol."""


class StorageError(HeadwaterError):
    """The database cannot go on as it is."""

    code = "damaged"


class InternalError(HeadwaterError):
    """A fault of ours or of user code; clients see a request id, nothing else."""

    code = "internal_error"


def error_for(code: str, message: str = "", data: Any = None) -> HeadwaterError:
    """Return the exception for a code that came over the wire; an unknown code becomes `InternalError`."""
    if code == "application_error":
        return ApplicationError(data, message=message)
    entry = ERROR_CODES.get(code)
    if entry is None:
        return InternalError(f"{code}: {message}")
    if code in {"outcome_unknown", "connection_lost"}:
        return OutcomeUnknown(message, code=code, data=data)
    if code in {"protocol_error", "unsupported_version"}:
        return ProtocolError(message, code=code, data=data)
    if code in {
        "format_too_new",
        "damaged",
        "disk_failed",
        "log_taken",
        "directory_in_use",
        "directory_copied",
        "directory_unusable",
    }:
        return StorageError(message, code=code, data=data)
    if code in {"internal_error", "worker_died", "time_limit", "invalid_result"}:
        return InternalError(message, code=code, data=data)
    if entry.retry is not Retry.NEVER:
        return TransientError(message, code=code, data=data)
    return RequestError(message, code=code, data=data)
