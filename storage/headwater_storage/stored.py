"""The stored value of a document: checksum, table shape, encoded document.

Pure. The checksum covers shape, document key and document, and is verified whenever a document
is read: neither another content nor a sound document in the place of another is ever served.

Values that format 1 wrote have a checksum over shape and document alone. The first bit of the
shape field tells the two apart; they are never rewritten for it, only when they change.
"""

from __future__ import annotations

from struct import Struct
from zlib import crc32

from headwater_protocol.errors import StorageError

STORED_HEADER_BYTES = 8
KEY_COVERED = 1 << 31
"""Set in the shape field when the checksum covers the document key too."""

_header = Struct(">II")
_pack_number = Struct(">I").pack
_unpack_header = _header.unpack_from


def shape_field(shape: int) -> bytes:
    """Return a shape number as stored values have it."""
    return _pack_number(KEY_COVERED | shape)


def pack_stored(shape: int, document: bytes, key: bytes) -> bytes:
    """Return the stored value, under a document key, of a document that a table shape wrote."""
    field = shape_field(shape)
    return _pack_number(crc32(document, crc32(key, crc32(field)))) + field + document


def document_in(value: bytes) -> bytes:
    """Return the encoded document of a stored value whose bytes were verified otherwise: a log record's."""
    return value[STORED_HEADER_BYTES:]


def unpack_stored(value: bytes, key: bytes) -> tuple[int, bytes]:
    """Return shape number and encoded document of a stored value.

    Args:
        value: As it stands in the store.
        key: Its document key.

    Raises:
        StorageError: `damaged`, the checksum does not fit.
    """
    if len(value) >= STORED_HEADER_BYTES:
        checksum, shape = _unpack_header(value)
        document = value[STORED_HEADER_BYTES:]
        start = crc32(value[4:STORED_HEADER_BYTES])
        if shape & KEY_COVERED:
            start = crc32(key, start)
        if crc32(document, start) == checksum:
            return shape & ~KEY_COVERED, document
    raise StorageError(
        f"the document with key {key.hex()} does not fit its checksum; stop the daemon and run"
        " `headwater doctor`",
        code="damaged",
    )
