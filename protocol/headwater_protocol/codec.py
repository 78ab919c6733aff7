"""Messages to bytes and back.

Pure. The decoder follows the fields of the message classes and builds only what a field
holds: it never builds a structure that no message has, so what a hostile frame can cost is
bounded by its size. Every refusal is a `ProtocolError` that names message, field, what was
expected and what stood there.

The wire form of a message is derived once from its class in `messages.py`, so that the two
cannot differ.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import MISSING, fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Union, cast, get_args, get_origin, get_type_hints

import msgpack

from headwater_protocol import messages
from headwater_protocol.elements import (
    ARRAY_LENGTH_BYTES,
    BIN_LENGTH_BYTES,
    SINT_BYTES,
    TEXT_LENGTH_BYTES,
    UINT_BYTES,
    UnexpectedElement,
    describe,
    length_at,
    step,
    truncated,
)
from headwater_protocol.errors import ProtocolError
from headwater_protocol.limits import INTEGER_MAX, LIST_ITEMS_MAX, UNKNOWN_VALUES_MAX
from headwater_protocol.messages import ChangeBody, ClientMessage, ServerMessage, Transition, Version

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_Reader = Callable[[bytes, int], tuple[Any, int]]

_NIL = 0xC0


# ------------------------------------------------------------------------------------------- reading


def _read_integer(data: bytes, pos: int) -> tuple[int, int]:
    byte = data[pos]
    if byte < 0x80:
        return byte, pos + 1
    width = UINT_BYTES.get(byte)
    if width is None:
        width = SINT_BYTES.get(byte)
        if width is None or data[pos + 1 : pos + 2] >= b"\x80":
            raise UnexpectedElement(f"expected an integer from 0 to 2^53-1, got {describe(data, pos)}")
    value = length_at(data, pos, width)
    if value > INTEGER_MAX:
        raise UnexpectedElement(f"expected an integer from 0 to 2^53-1, got {value}")
    return value, pos + 1 + width


def _read_text(data: bytes, pos: int) -> tuple[str, int]:
    byte = data[pos]
    if 0xA0 <= byte <= 0xBF:
        start, length = pos + 1, byte & 31
    else:
        width = TEXT_LENGTH_BYTES.get(byte)
        if width is None:
            raise UnexpectedElement(f"expected text, got {describe(data, pos)}")
        start, length = pos + 1 + width, length_at(data, pos, width)
    end = start + length
    if end > len(data):
        raise truncated()
    try:
        return data[start:end].decode(), end
    except UnicodeDecodeError:
        raise UnexpectedElement("expected text, got bytes that are not valid UTF-8") from None


def _read_bytes(data: bytes, pos: int) -> tuple[bytes, int]:
    width = BIN_LENGTH_BYTES.get(data[pos])
    if width is None:
        raise UnexpectedElement(f"expected bytes (bin), got {describe(data, pos)}")
    start = pos + 1 + width
    end = start + length_at(data, pos, width)
    if end > len(data):
        raise truncated()
    return data[start:end], end


def _read_array_header(data: bytes, pos: int) -> tuple[int, int]:
    byte = data[pos]
    if 0x90 <= byte <= 0x9F:
        return byte & 15, pos + 1
    width = ARRAY_LENGTH_BYTES.get(byte)
    if width is None:
        raise UnexpectedElement(f"expected an array, got {describe(data, pos)}")
    return length_at(data, pos, width), pos + 1 + width


def _skip(data: bytes, pos: int, count: int) -> int:
    """Return where `count` values after `pos` end, without building them.

    Bounded: a peer may send values that this version does not know, but not make us walk
    through megabytes of them.
    """
    walked = 0
    while count:
        walked += 1
        if walked > UNKNOWN_VALUES_MAX:
            raise UnexpectedElement(f"more than {UNKNOWN_VALUES_MAX} values behind the known fields")
        pos, inside, _ = step(data, pos)
        count += inside - 1
    return pos


# ---------------------------------------------------------------------------- readers from the classes


class _Shape:
    """The fields of one message class, in wire order, with how each is read."""

    def __init__(self, cls: type, readers: Mapping[Any, _Reader]) -> None:
        hints = get_type_hints(cls)
        if cls is Version:
            names: tuple[str, ...] = Version._fields
            defaults: dict[str, Any] = {}
        else:
            names = tuple(field.name for field in fields(cls))
            defaults = {field.name: field.default for field in fields(cls) if field.default is not MISSING}
        self.cls = cls
        self.names = names
        self.fields = tuple((name, _reader_for(hints[name], readers)) for name in names)
        self.required = len(names) - len(defaults)
        # So many of its last fields are left out, from the end on, while they have their defaults: senders of before
        # had none of them.
        sparse = getattr(cls, "SPARSE", 0)
        self.sparse_defaults = tuple(defaults[name] for name in names[: -sparse - 1 : -1]) if sparse else ()
        self.flat = all(_is_plain(hints[name]) for name in names)

    def read(self, data: bytes, pos: int, count: int) -> tuple[Any, int]:
        """Read the `count` elements from `pos` as the fields of an object; skip those behind them."""
        if count < self.required:
            raise ProtocolError(f"{self.cls.__name__}: expected {self.required} fields, got {count}")
        values = []
        for name, read in self.fields[:count]:
            try:
                value, pos = read(data, pos)
            except UnexpectedElement as wrong:
                raise ProtocolError(f"{self.cls.__name__}.{name}: {wrong}") from None
            except IndexError:
                raise ProtocolError(f"{self.cls.__name__}.{name}: the frame ends before the value") from None
            values.append(value)
        if count > len(self.fields):
            try:
                pos = _skip(data, pos, count - len(self.fields))
            except UnexpectedElement as wrong:
                raise ProtocolError(f"{self.cls.__name__}: behind the known fields: {wrong}") from None
        return self.cls(*values), pos

    def read_array(self, data: bytes, pos: int) -> tuple[Any, int]:
        """Read an array whose elements are the fields."""
        count, pos = _read_array_header(data, pos)
        return self.read(data, pos, count)


def _is_plain(hint: Any) -> bool:
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return all(option in (int, str, bytes, type(None)) for option in options)


def _reader_for(hint: Any, readers: Mapping[Any, _Reader]) -> _Reader:
    """Return the reader of a field annotated `hint`."""
    if hint in readers:
        return readers[hint]
    if get_origin(hint) is tuple:
        return _list_reader(_reader_for(get_args(hint)[0], readers))
    options = [option for option in get_args(hint) if option is not type(None)]
    if len(options) != 1:
        raise TypeError(f"no wire form for {hint}")
    return _optional_reader(_reader_for(options[0], readers))


def _list_reader(read: _Reader) -> _Reader:
    def read_list(data: bytes, pos: int) -> tuple[tuple[Any, ...], int]:
        count, pos = _read_array_header(data, pos)
        if count > LIST_ITEMS_MAX:
            raise UnexpectedElement(f"expected at most {LIST_ITEMS_MAX} items, got {count}")
        items = []
        for _ in range(count):
            item, pos = read(data, pos)
            items.append(item)
        return tuple(items), pos

    return read_list


def _optional_reader(read: _Reader) -> _Reader:
    def read_optional(data: bytes, pos: int) -> tuple[Any, int]:
        return (None, pos + 1) if data[pos] == _NIL else read(data, pos)

    return read_optional


def _tagged_reader(shapes: Mapping[int, _Shape], what: str) -> _Reader:
    def read_tagged(data: bytes, pos: int) -> tuple[Any, int]:
        count, pos = _read_array_header(data, pos)
        if not count:
            raise UnexpectedElement(f"expected {what}, got an empty array")
        tag, pos = _read_integer(data, pos)
        shape = shapes.get(tag)
        if shape is None:
            raise UnexpectedElement(f"expected {what}, got number {tag}")
        return shape.read(data, pos, count - 1)

    return read_tagged


def _plain_readers() -> dict[Any, _Reader]:
    return {int: _read_integer, str: _read_text, bytes: _read_bytes}


def _all_readers() -> dict[Any, _Reader]:
    readers = _plain_readers()
    for part in (Version, messages.ErrorBody, messages.AddQuery):
        readers[part] = _Shape(part, readers).read_array
    bodies = {body.KIND: _Shape(body, readers) for body in get_args(ChangeBody)}
    readers[ChangeBody] = _tagged_reader(bodies, "a change body")
    readers[messages.Change] = _Shape(messages.Change, readers).read_array
    return readers


_READERS = _all_readers()
_CLIENT_SHAPES = {cls.TAG: _Shape(cls, _READERS) for cls in get_args(ClientMessage)}
_SERVER_SHAPES = {cls.TAG: _Shape(cls, _READERS) for cls in get_args(ServerMessage)}
_SHAPES = {shape.cls: shape for shape in (*_CLIENT_SHAPES.values(), *_SERVER_SHAPES.values())}


# ------------------------------------------------------------------------------------------- decoding


def decode_client_message(data: bytes) -> ClientMessage:
    """Return the message that a client sent.

    Raises:
        ProtocolError: It is not one; names message, field and what was expected.
    """
    message: ClientMessage = _decode(data, _CLIENT_SHAPES, "client")
    return message


def decode_server_message(data: bytes) -> ServerMessage:
    """Return the message that a server sent.

    Raises:
        ProtocolError: It is not one; names message, field and what was expected.
    """
    message: ServerMessage = _decode(data, _SERVER_SHAPES, "server")
    return message


def _decode(data: bytes, shapes: Mapping[int, _Shape], sender: str) -> Any:
    try:
        count, pos = _read_array_header(data, 0)
        if not count:
            raise ProtocolError("message: expected its number first, got an empty array")
        tag, pos = _read_integer(data, pos)
    except UnexpectedElement as wrong:
        raise ProtocolError(f"message: {wrong}") from None
    except IndexError:
        raise ProtocolError("message: the frame ends before its number") from None
    shape = shapes.get(tag)
    if shape is None:
        raise ProtocolError(f"message: expected the number of a {sender} message, got {tag}")
    message, pos = shape.read(data, pos, count - 1)
    if pos != len(data):
        raise ProtocolError(f"{shape.cls.__name__}: {len(data) - pos} bytes follow the message")
    return message


# ------------------------------------------------------------------------------------------- encoding


def encode_message(message: ClientMessage | ServerMessage) -> bytes:
    """Return the bytes of a message."""
    shape = _SHAPES[type(message)]
    values = attrgetter(*shape.names)(message)
    if len(shape.names) == 1:
        values = (values,)
    kept = len(values)
    for default in shape.sparse_defaults:
        if values[kept - 1] != default:
            break
        kept -= 1
    values = values[:kept]
    if not shape.flat:
        values = tuple(map(_wire_form, values))
    return cast("bytes", msgpack.packb((message.TAG, *values)))


def encode_change_body(body: ChangeBody) -> bytes:
    """Return the bytes of a change body: made once, sent to every client that needs it."""
    return cast("bytes", msgpack.packb(_wire_form(body)))


def encode_transition(start: Version, end: Version, changes: Sequence[tuple[int, bytes]]) -> bytes:
    """Return the bytes of a transition, its change bodies already encoded: `(query, body)` each."""
    return join_transition(encode_version(start), encode_version(end), changes)


def encode_version(version: Version) -> bytes:
    """Return a version as it stands in a transition."""
    return b"\x93" + b"".join(map(encode_integer, version))


def join_transition(start: bytes, end: bytes, changes: Iterable[tuple[int, bytes]]) -> bytes:
    """Return the bytes of a transition from encoded versions and change bodies."""
    parts = [b"\x92" + encode_integer(query) + body for query, body in changes]
    return b"".join((_TRANSITION_HEAD, start, end, _array_header(len(parts)), *parts))


_TRANSITION_HEAD = bytes((0x94, Transition.TAG))


def encode_integer(value: int) -> bytes:
    """Return a number from 0 to 2^64-1 in its shortest form."""
    if value < 0x80:
        return value.to_bytes(1, "big")
    if value < 0x100:
        return b"\xcc" + value.to_bytes(1, "big")
    if value < 0x10000:
        return b"\xcd" + value.to_bytes(2, "big")
    if value < 0x100000000:
        return b"\xce" + value.to_bytes(4, "big")
    return b"\xcf" + value.to_bytes(8, "big")


def _array_header(count: int) -> bytes:
    if count < 16:
        return (0x90 | count).to_bytes(1, "big")
    return b"\xdc" + count.to_bytes(2, "big") if count < 0x10000 else b"\xdd" + count.to_bytes(4, "big")


_BODY_NAMES = {body: tuple(field.name for field in fields(body)) for body in get_args(ChangeBody)}
_PART_NAMES = {
    part: tuple(field.name for field in fields(part))
    for part in (messages.AddQuery, messages.Change, messages.ErrorBody)
}


def _wire_form(value: Any) -> Any:
    """Return what msgpack packs for a field: objects become arrays of their fields."""
    if type(value) is tuple:
        return [_wire_form(item) for item in value]
    names = _BODY_NAMES.get(type(value))
    if names is not None:
        return [value.KIND, *[_wire_form(getattr(value, name)) for name in names]]
    names = _PART_NAMES.get(type(value))
    if names is not None:
        return [_wire_form(getattr(value, name)) for name in names]
    return value
