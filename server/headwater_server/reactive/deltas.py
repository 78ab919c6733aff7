"""What to send so that a client's old result becomes the new one, in as few bytes as is quick to find.

Pure. A list is compared element by element on its encoded bytes: runs of kept elements,
inserted bytes, and patches for objects with the same `_id`. A map gets a field patch, and a
field or an element that is a list or a map itself a delta of its own where that is shorter. Only what
has changed is looked into, and compared as bytes, so that 1, 1.0 and true stay apart.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from itertools import accumulate
from typing import TYPE_CHECKING

import msgspec
from headwater_protocol.codec import encode_change_body
from headwater_protocol.messages import Delta, Failed, Removed, Unchanged, Value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater_server.reactive.contents import Content, ContentStore

WORTHWHILE = 0.6  # a delta larger than this part of the full value is not worth its work at the client
_MEMO_ENTRY_BYTES = 400  # what one costs beside its body and journal, measured: keys, digest, places in dicts
NESTED_MAX = 8  # levels that deltas go down; what is below is sent whole
_SMALL_BYTES = 32  # what is shorter is sent whole at once
LIST, MAP = 0, 1
KEEP, INSERT, PATCH, CHANGE = 0, 1, 2, 3

_Fields = dict[str, msgspec.Raw]
_Patch = tuple[_Fields, list[str]] | tuple[_Fields, list[str], _Fields]
"""Fields to set, names to remove, and deltas of fields, if there are any."""
_decode_fields = msgspec.msgpack.Decoder(_Fields).decode
_decode_elements = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.msgpack.Encoder().encode


def delta(old: Content, new: Content) -> bytes | None:
    """Return the operations that turn `old` into `new`, or None where the full value serves better."""
    if old.failure is not None or new.failure is not None:
        return None
    if old.bounds is not None and new.bounds is not None:
        return _list_delta(_Elements.of(old), _Elements.of(new), NESTED_MAX)
    return _delta_of(old.data, new.data, NESTED_MAX)


def _delta_of(old: bytes, new: bytes, depth: int) -> bytes | None:
    """Return the delta of an encoded list or map, going down so many levels; None where it is not worth it."""
    if not depth or len(new) < _SMALL_BYTES:
        return None
    if _is_array(old) and _is_array(new):
        return _list_delta(_Elements.parsed(old), _Elements.parsed(new), depth)
    if not _is_map(old) or not _is_map(new):
        return None
    patch = _field_patch(old, new, depth)
    encoded = None if patch is None else _encode([MAP, *patch])
    return encoded if encoded is not None and len(encoded) <= len(new) * WORTHWHILE else None


def _list_delta(old: _Elements, new: _Elements, depth: int) -> bytes | None:
    limit_bytes = len(new.data) * WORTHWHILE
    operations = _list_operations(old, new, limit_bytes, depth)
    encoded = None if operations is None else _encode([LIST, operations])
    return encoded if encoded is not None and len(encoded) <= limit_bytes else None


class _Elements:
    """A list by the offsets of its elements. Runs are compared as bytes: encoded elements end by themselves."""

    __slots__ = ("_by_bytes", "_by_id", "bounds", "count", "data", "ids")

    def __init__(self, data: bytes, bounds: Sequence[int], ids: Sequence[str | None] | None) -> None:
        self.data = data
        self.bounds = bounds
        self.count = len(bounds) - 1
        self.ids = ids
        self._by_id: dict[str | None, int] | None = None
        self._by_bytes: dict[bytes, int] | None = None

    @classmethod
    def of(cls, content: Content) -> _Elements:
        """Return those of a result that is a list; the worker has told where they are."""
        assert content.bounds is not None
        bounds = struct.unpack(f"<{len(content.bounds) // 4}I", content.bounds)
        return cls(content.data, bounds, content.ids)

    @classmethod
    def parsed(cls, data: bytes) -> _Elements:
        """Return those of an encoded list somewhere in a result."""
        elements = _decode_elements(data)
        sizes = [len(memoryview(element)) for element in elements]
        bounds = [*accumulate(sizes, initial=len(data) - sum(sizes))]
        return cls(data, bounds, [_id_of(element) for element in elements])

    def part(self, start: int, end: int) -> bytes:
        return self.data[self.bounds[start] : self.bounds[end]]

    def place_of(self, element: bytes, name: str | None) -> int | None:
        """Return where the element with this `_id`, or else with these bytes, stands."""
        if name is not None:
            if self._by_id is None:
                self._by_id = dict(zip(self.ids or (), range(self.count), strict=False))
            return self._by_id.get(name)
        if self._by_bytes is None:
            self._by_bytes = {self.part(place, place + 1): place for place in range(self.count)}
        return self._by_bytes.get(element)


def _run(old: _Elements, start: int, new: _Elements, place: int, most: int, step: int) -> int:
    """Return how many elements from `start` and `place` on are equal, going forwards (1) or back (-1)."""

    def equal(first: int, last: int) -> bool:
        a, b = sorted((start + step * first, start + step * last))
        c, d = sorted((place + step * first, place + step * last))
        if old.bounds[b] - old.bounds[a] != new.bounds[d] - new.bounds[c]:
            return False
        return old.part(a, b) == new.part(c, d)

    if not most or not equal(0, 1):
        return 0
    # In strides that double: what is looked at is about as long as the run, not as all that is left.
    same = stride = 1
    while equal(same, different := min(most, same + stride)):
        same = different
        if same == most:
            return most
        stride *= 2
    while different - same > 1:
        middle = (same + different) // 2
        if equal(same, middle):
            same = middle
        else:
            different = middle
    return same


def _list_operations(was: _Elements, now: _Elements, limit_bytes: float, depth: int) -> list[object] | None:
    """Return the operations of a list, None if they are larger than `limit_bytes`."""
    shorter = min(was.count, now.count)
    head = _run(was, 0, now, 0, shorter, 1)
    tail = _run(was, was.count, now, now.count, shorter - head, -1)
    operations = _Operations(limit_bytes, depth)
    operations.keep(0, head)
    place = following = head
    end, was_end = now.count - tail, was.count - tail
    while place < end and operations.worthwhile:
        element = now.part(place, place + 1)
        name = now.ids[place] if now.ids else None
        found = was.place_of(element, name)
        if found is None and (name is not None or following >= was_end):
            operations.insert(element)
            place += 1
            continue
        if found is None:  # no `_id`: the next one of the old list may be what it was
            found, run = following, 0
        else:
            run = _run(was, found, now, place, min(end - place, was.count - found), 1)
        if run:
            operations.keep(found, run)
        elif not operations.change(found, was.part(found, found + 1), element):
            operations.insert(element)
        following = found + (run or 1)
        place += run or 1
    operations.keep(was.count - tail, tail)
    return operations.finish()


class _Operations:
    """Operations of a list in the making: neighbours are joined, and it gives up when they grow too large."""

    def __init__(self, limit_bytes: float, depth: int) -> None:
        self._depth = depth
        self._done: list[object] = []
        self._inserted: list[bytes] = []
        self._kept: list[int] | None = None
        self._left = limit_bytes

    @property
    def worthwhile(self) -> bool:
        """Whether what there is so far may still be sent."""
        return self._left >= 0

    def keep(self, start: int, count: int) -> None:
        if not count:
            return
        self._flush()
        if self._kept is not None and self._kept[1] + self._kept[2] == start:
            self._kept[2] += count
            return
        self._kept = [KEEP, start, count]
        self._done.append(self._kept)
        self._left -= 4

    def insert(self, element: bytes) -> None:
        self._inserted.append(element)
        self._left -= len(element)

    def change(self, index: int, old: bytes, new: bytes) -> bool:
        """Append what makes an old element the new one; False if that would not be shorter."""
        operation = _change_of(index, old, new, self._depth)
        if operation is None or (size := len(_encode(operation))) >= len(new):
            return False
        self._flush()
        self._done.append(operation)
        self._kept = None
        self._left -= size
        return True

    def finish(self) -> list[object] | None:
        self._flush()
        return self._done if self._left >= 0 else None

    def _flush(self) -> None:
        if self._inserted:
            self._done.append(
                [INSERT, msgspec.Raw(_array_header(len(self._inserted)) + b"".join(self._inserted))]
            )
            self._inserted = []
            self._kept = None


def _change_of(index: int, old: bytes, new: bytes, depth: int) -> list[object] | None:
    """Return the operation that makes an old element the new one, None if there is none."""
    if not (_is_map(old) and _is_map(new)):
        nested = _delta_of(old, new, depth - 1)
        return None if nested is None else [CHANGE, index, msgspec.Raw(nested)]
    patch = _field_patch(old, new, depth)
    if patch is None:
        return None
    return [PATCH, index, *patch] if len(patch) == 2 else [CHANGE, index, [MAP, *patch]]


def _field_patch(old: bytes, new: bytes, depth: int) -> _Patch | None:
    """Return how the fields of a map change, None if one of the two is no map with text keys."""
    try:
        was, now = _decode_fields(old), _decode_fields(new)
    except msgspec.DecodeError:
        return None
    put: _Fields = {}
    nested: _Fields = {}
    for name, raw in now.items():
        before = was.get(name)
        if before is None:
            put[name] = raw
        elif (content := bytes(raw)) != (old_content := bytes(before)):
            change = _delta_of(old_content, content, depth - 1)
            if change is None:
                put[name] = raw
            else:
                nested[name] = msgspec.Raw(change)
    removed = [name for name in was if name not in now]
    return (put, removed, nested) if nested else (put, removed)


def _id_of(element: msgspec.Raw) -> str | None:
    try:
        return _decode_id(element).id
    except msgspec.DecodeError:
        return None


class _Identified(msgspec.Struct, rename={"id": "_id"}):
    id: str


_decode_id = msgspec.msgpack.Decoder(_Identified).decode


def _is_array(data: bytes) -> bool:
    return bool(data) and (data[0] >> 4 == 0x9 or data[0] in (0xDC, 0xDD))


def _is_map(data: bytes) -> bool:
    return bool(data) and (data[0] >> 4 == 0x8 or data[0] in (0xDE, 0xDF))


def _array_header(count: int) -> bytes:
    if count < 16:
        return bytes([0x90 | count])
    return struct.pack(">BH", 0xDC, count) if count < 65536 else struct.pack(">BI", 0xDD, count)


def _memo_entry_bytes(journal: bytes | None, body: bytes) -> int:
    return _MEMO_ENTRY_BYTES + len(journal or b"") + len(body)


class ChangeBodies:
    """Encoded bodies of changes, each made once and then shared by all clients that need it.

    The memo is bounded in bytes; what has left it is made again.
    """

    REMOVED = encode_change_body(Removed())

    def __init__(self, contents: ContentStore, memo_bytes: int) -> None:
        self._contents = contents
        self._memo_bytes = memo_bytes
        self._memo: OrderedDict[tuple[bytes | None, bytes, bytes | None], bytes] = OrderedDict()
        self.held_bytes = 0

    def change(self, base: bytes | None, content: Content, journal: bytes | None) -> bytes:
        """Return the body that takes a client to `content`.

        Args:
            base: Digest of the content this client holds, None if it holds none.
            content: What it is to hold.
            journal: What the client is to give back when it resumes.
        """
        key = (base, content.digest, journal)
        body = self._memo.get(key)
        if body is not None:
            self._memo.move_to_end(key)
            return body
        body = self._encode(base, content, journal)
        self._contents.keep(content)
        self._memo[key] = body
        self.held_bytes += _memo_entry_bytes(journal, body)
        while self.held_bytes > self._memo_bytes and len(self._memo) > 1:
            (_, _, gone_journal), gone = self._memo.popitem(last=False)
            self.held_bytes -= _memo_entry_bytes(gone_journal, gone)
        return body

    def unchanged(self, content: Content, journal: bytes | None) -> bytes:
        """Return the body for a client that has the right value already in its hands."""
        return encode_change_body(Unchanged(content.digest, journal))

    def _encode(self, base: bytes | None, content: Content, journal: bytes | None) -> bytes:
        if content.failure is not None:
            return encode_change_body(Failed(content.failure))
        old = self._contents.find(base) if base is not None else None
        operations = delta(old, content) if old is not None else None
        if operations is not None:
            return encode_change_body(Delta(operations, content.digest, journal))
        return encode_change_body(Value(content.data, content.digest, journal))
