"""Walk over encoded msgpack without building anything: what an element is, and where it ends.

Pure. Both the message decoder and the scan of values stand on this one table of the format.
"""

from __future__ import annotations

UINT_BYTES = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
SINT_BYTES = {0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
TEXT_LENGTH_BYTES = {0xD9: 1, 0xDA: 2, 0xDB: 4}
BIN_LENGTH_BYTES = {0xC4: 1, 0xC5: 2, 0xC6: 4}
ARRAY_LENGTH_BYTES = {0xDC: 2, 0xDD: 4}
_MAP_LENGTH_BYTES = {0xDE: 2, 0xDF: 4}
_EXT_LENGTH_BYTES = {0xC7: 1, 0xC8: 2, 0xC9: 4}
_FIXED_BYTES = {
    0xC0: 1, 0xC2: 1, 0xC3: 1, 0xCA: 5, 0xCB: 9,
    0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9,
    0xD4: 3, 0xD5: 4, 0xD6: 6, 0xD7: 10, 0xD8: 18,
}  # fmt: skip
_NAMES = {
    0xC0: "nil",
    0xC1: "the unused byte 0xc1",
    0xC2: "false",
    0xC3: "true",
    0xCA: "a float",
    0xCB: "a float",
}


class UnexpectedElement(Exception):  # noqa: N818 - never leaves the package; says what stands there
    """What stands at a place is not what belongs there; the caller adds which place that is."""


def truncated() -> UnexpectedElement:
    """Return the error for bytes that end too early."""
    return UnexpectedElement("the bytes end inside the value")


def length_at(data: bytes, pos: int, width: int) -> int:
    """Return the length that stands in the `width` bytes behind the one at `pos`."""
    end = pos + 1 + width
    if end > len(data):
        raise truncated()
    return int.from_bytes(data[pos + 1 : end], "big")


def step(data: bytes, pos: int) -> tuple[int, int, bool]:
    """Step over the element at `pos`; of a list or dict only over its head.

    Returns:
        Where it ends, how many elements follow inside, and whether it is a list or dict.

    Raises:
        UnexpectedElement: No element stands there, or the bytes end inside it.
    """
    if pos >= len(data):
        raise truncated()
    byte = data[pos]
    if byte < 0x80 or byte >= 0xE0:
        return pos + 1, 0, False
    if byte <= 0x8F:
        return pos + 1, 2 * (byte & 15), True
    if byte <= 0x9F:
        return pos + 1, byte & 15, True
    if byte <= 0xBF:
        end = pos + 1 + (byte & 31)
    elif byte in _FIXED_BYTES:
        end = pos + _FIXED_BYTES[byte]
    else:
        return _step_sized(data, pos, byte)
    if end > len(data):
        raise truncated()
    return end, 0, False


def _step_sized(data: bytes, pos: int, byte: int) -> tuple[int, int, bool]:
    """Step over what has its length in bytes of its own."""
    width = ARRAY_LENGTH_BYTES.get(byte)
    if width is not None:
        return pos + 1 + width, length_at(data, pos, width), True
    width = _MAP_LENGTH_BYTES.get(byte)
    if width is not None:
        return pos + 1 + width, 2 * length_at(data, pos, width), True
    width = TEXT_LENGTH_BYTES.get(byte) or BIN_LENGTH_BYTES.get(byte)
    kind = 0
    if width is None:
        width = _EXT_LENGTH_BYTES.get(byte)
        kind = 1
    if width is None:
        raise UnexpectedElement("expected a msgpack value, got the unused byte 0xc1")
    end = pos + 1 + width + kind + length_at(data, pos, width)
    if end > len(data):
        raise truncated()
    return end, 0, False


def describe(data: bytes, pos: int) -> str:
    """Name what begins at `pos`, for a message to the peer's developer."""
    byte = data[pos]
    if byte in UINT_BYTES or byte < 0x80:
        return "an integer"
    if byte in SINT_BYTES or byte >= 0xE0:
        return "a signed integer"
    if byte in TEXT_LENGTH_BYTES or 0xA0 <= byte <= 0xBF:
        return "text"
    if byte in BIN_LENGTH_BYTES:
        return "bytes"
    if byte in ARRAY_LENGTH_BYTES or 0x90 <= byte <= 0x9F:
        return "an array"
    if byte in _MAP_LENGTH_BYTES or 0x80 <= byte <= 0x8F:
        return "a map"
    return _NAMES.get(byte, "an extension value")
