"""Errors as they cross the wire: an exception to its body and back.

Pure.
"""

from __future__ import annotations

from headwater_protocol.errors import HeadwaterError, RequestError, error_for
from headwater_protocol.messages import ErrorBody
from headwater_protocol.values import pack_value, unpack_value


def error_body(error: HeadwaterError) -> ErrorBody:
    """Return an error as it crosses the wire.

    Raises:
        RequestError: Its data is no value.
    """
    data = None if error.data is None else pack_value(error.data, "ApplicationError.data")
    return ErrorBody(error.code, error.message, data)


def error_from(body: ErrorBody) -> HeadwaterError:
    """Return the exception for an error that came over the wire.

    Raises:
        ProtocolError: Its data is no encoded value.
    """
    return error_for(body.code, body.message, None if body.data is None else unpack_value(body.data))


def too_large(size_bytes: int, limit_bytes: int) -> RequestError:
    """Return the error for a message that the server would not take."""
    return RequestError(
        f"a message of {size_bytes} bytes is larger than the server's limit of {limit_bytes}",
        code="frame_too_large",
    )
