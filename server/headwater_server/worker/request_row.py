"""The row that remembers how a request ended, so that a resend is answered and not run again."""

from __future__ import annotations

import msgspec

from headwater_server.worker.messages import Failure

REQUEST_NUMBER_BYTES = 8
"""A row's suffix is the session id and, in so many bytes big-endian, the request number."""


class RequestRow(msgspec.Struct, array_like=True, frozen=True):
    """What is stored of one decided call.

    Attributes:
        fingerprint: Digest of function, arguments and identity; a resend must have the same.
        outcome: Encoded result; None when it failed.
        code: Error code; "" on success.
        message: Error message.
        data: Encoded data of an application error.
    """

    fingerprint: bytes
    outcome: bytes | None
    code: str = ""
    message: str = ""
    data: bytes | None = None

    @property
    def failure(self) -> Failure | None:
        """How it failed, None if it did not."""
        return Failure(self.code, self.message, self.data) if self.code else None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(RequestRow).decode


def encode_request_row(fingerprint: bytes, outcome: bytes | None, failure: Failure | None) -> bytes:
    """Return the document of a request's row."""
    if failure is None:
        return _encode(RequestRow(fingerprint, outcome))
    return _encode(RequestRow(fingerprint, None, failure.code, failure.message, failure.data))


def decode_request_row(document: bytes) -> RequestRow:
    """Return what a row says."""
    return _decode(document)
