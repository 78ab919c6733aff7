"""What Convex's clients are told of a failure, in the form in which they read it.

Pure. The text begins with a request id and `Server Error`, as they expect; hooks look for words in it.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from headwater_protocol.errors import ERROR_CODES, RequestError
from headwater_protocol.messages import ErrorBody

from headwater_server.convex.values import json_text

if TYPE_CHECKING:
    from headwater_protocol.errors import HeadwaterError

_NAMES = {
    "invalid_arguments": "ArgumentValidationError",
    "invalid_result": "ReturnsValidationError",
    "invalid_cursor": "InvalidCursor",  # `usePaginatedQuery` begins anew when this word stands in the text
}
_SAYS_NOTHING = ERROR_CODES["application_error"].message
_OUR_ID = re.compile(r" ?\[request id ([0-9a-f]+)\]")


_SYSTEM = re.compile(r"'(_system/[^']*)'")
_INSTEAD = (
    ("mport", "there is no import; write documents with a mutation of yours, as `headwater run` calls it"),
    ("xport", "there is no export; read documents with `headwater data`, or copy the data directory"),
    ("canonical_urls", "use `headwater dev`"),
    ("config", "use `headwater deploy`"),
    ("deploy", "use `headwater deploy`"),
    ("push", "use `headwater deploy`"),
    ("run_test_function", "use `headwater run` with a function of your bundle"),
    ("app_metrics", "see /metrics"),
    ("able", "use `headwater data`"),
    ("chemas", "use `headwater data`"),
    ("apiSpec", "use `headwater spec`"),
    ("nvironment", "use `headwater env`"),
    ("logs", "use `headwater logs`"),
)


class Told(NamedTuple):
    """A failure as it is told.

    Attributes:
        message: For developers.
        data: JSON of an application error's data; None for any other error: a client takes one that
            has data for an application's.
    """

    message: str
    data: bytes | None


def told(error: ErrorBody) -> Told:
    """Return what is told of an error; the same for the same error, so that a query that fails again tells nothing new."""
    if error.code == "application_error":
        try:
            data = b"null" if error.data is None else json_text(error.data)
        except RequestError as misfit:
            return told(ErrorBody(misfit.code, misfit.message))
        text = data.decode() if error.message in ("", _SAYS_NOTHING) else error.message
        return Told(f"{_head(error)}\nUncaught ConvexError: {text}", data)
    found = _OUR_ID.search(error.message)
    if found is not None:
        rest = (error.message[: found.start()] + error.message[found.end() :]).strip()
        uncaught = "" if rest == "Server error" else f"\nUncaught {rest}"
        return Told(f"[Request ID: {found[1]}] Server Error{uncaught}", None)
    asked = _SYSTEM.search(error.message) if error.code == "unknown_function" else None
    advice = "" if asked is None else f". {instead_of(asked[1])}"
    return Told(f"{_head(error)}\n{_NAMES.get(error.code, error.code)}: {error.message}{advice}", None)


def instead_of(asked: str) -> str:
    """Return what to use instead of something that Convex's command line or dashboard asks for."""
    advice = next((advice for part, advice in _INSTEAD if part in asked), "see `headwater --help`")
    return f"This server is not Convex's: {advice}"


def _head(error: ErrorBody) -> str:
    text = f"{error.code}|{error.message}".encode(errors="replace") + (error.data or b"")
    return f"[Request ID: {blake2b(text, digest_size=8).hexdigest()}] Server Error"


def close_of(error: HeadwaterError) -> tuple[int, str]:
    """Return the close code and reason for an error that ends a connection; clients know the reasons' first words."""
    match error.code:
        case "unauthenticated":  # it has been told, and its client comes back with another token
            return 1000, "AuthError"
        case "internal_error":
            return 1011, "InternalServerError"
        case "overloaded" | "conflict":
            return 1013, f"TooManyConcurrentRequests: {error.message}"
        case "protocol_error" | "frame_too_large":
            return error.entry.close_code or 1002, error.message
    return 1013, error.message
