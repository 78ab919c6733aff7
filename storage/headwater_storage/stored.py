"""The stored value of a document: checksum, table shape, encoded document.

Pure. The checksum covers shape and document, and is verified whenever a document is read.
"""

from __future__ import annotations

from struct import Struct
from zlib import crc32

from headwater_protocol.errors import StorageError

STORED_HEADER_BYTES = 8

_header = Struct(">II")
_pack_shape = Struct(">I").pack
_unpack_header = _header.unpack_from


def pack_stored(shape: int, document: bytes) -> bytes:
    """Return the stored value of a document that a table shape wrote."""
    checked = _pack_shape(shape) + document
    return _pack_shape(crc32(checked)) + checked


def unpack_stored(value: bytes, key: bytes) -> tuple[int, bytes]:
    """Return shape number and encoded document of a stored value.

    Args:
        value: As it stands in the store.
        key: Its document key, for the error.

    Raises:
        StorageError: `damaged`, the checksum does not fit.
    """
    if len(value) >= STORED_HEADER_BYTES:
        checksum, shape = _unpack_header(value)
        if crc32(memoryview(value)[4:]) == checksum:
            return shape, value[STORED_HEADER_BYTES:]
    raise StorageError(
        f"the document with key {key.hex()} does not fit its checksum; run `headwater doctor`", code="damaged"
    )
