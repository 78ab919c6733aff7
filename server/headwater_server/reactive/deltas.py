"""What to send so that a client's old result becomes the new one, in as few bytes as is quick to find.

Pure. A list is compared element by element on its encoded bytes: runs of kept elements,
inserted bytes, and field patches for objects with the same `_id`. A map gets a field
patch. Only changed elements are looked into, and their fields are compared as bytes, so
that 1, 1.0 and true stay apart.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from typing import TYPE_CHECKING

import msgspec
from headwater_protocol.codec import encode_change_body
from headwater_protocol.messages import Delta, Failed, Removed, Unchanged, Value

if TYPE_CHECKING:
    from headwater_server.reactive.contents import Content, ContentStore

WORTHWHILE = 0.6  # a delta larger than this part of the full value is not worth its work at the client
_MEMO_ENTRY_BYTES = 400  # what one costs beside its body and journal, measured: keys, digest, places in dicts
LIST, MAP = 0, 1
KEEP, INSERT, PATCH = 0, 1, 2

_Fields = dict[str, msgspec.Raw]
_decode_fields = msgspec.msgpack.Decoder(_Fields).decode
_encode = msgspec.msgpack.Encoder().encode


def delta(old: Content, new: Content) -> bytes | None:
    """Return the operations that turn `old` into `new`, or None where the full value serves better."""
    if old.failure is not None or new.failure is not None:
        return None
    limit_bytes = len(new.data) * WORTHWHILE
    if old.bounds is not None and new.bounds is not None:
        operations = _list_operations(old, new, limit_bytes)
        encoded = None if operations is None else _encode([LIST, operations])
    elif old.bounds is None and new.bounds is None and _is_map(old.data) and _is_map(new.data):
        patch = _field_patch(old.data, new.data)
        encoded = None if patch is None else _encode([MAP, *patch])
    else:
        return None
    return encoded if encoded is not None and len(encoded) <= limit_bytes else None


class _Elements:
    """A list by the offsets of its elements. Runs are compared as bytes: encoded elements end by themselves."""

    __slots__ = ("_by_bytes", "_by_id", "bounds", "count", "data", "ids")

    def __init__(self, content: Content) -> None:
        assert content.bounds is not None
        self.data = content.data
        self.bounds = struct.unpack(f"<{len(content.bounds) // 4}I", content.bounds)
        self.count = len(self.bounds) - 1
        self.ids = content.ids
        self._by_id: dict[str | None, int] | None = None
        self._by_bytes: dict[bytes, int] | None = None

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
    if equal(1, most):
        return most
    same, different = 1, most
    while different - same > 1:
        middle = (same + different) // 2
        if equal(same, middle):
            same = middle
        else:
            different = middle
    return same


def _list_operations(old: Content, new: Content, limit_bytes: float) -> list[object] | None:
    """Return the operations of a list, None if they are larger than `limit_bytes`."""
    was, now = _Elements(old), _Elements(new)
    shorter = min(was.count, now.count)
    head = _run(was, 0, now, 0, shorter, 1)
    tail = _run(was, was.count, now, now.count, shorter - head, -1)
    operations = _Operations(limit_bytes)
    operations.keep(0, head)
    place = head
    end = now.count - tail
    while place < end and operations.worthwhile:
        element = now.part(place, place + 1)
        found = was.place_of(element, now.ids[place] if now.ids else None)
        if found is None:
            operations.insert(element)
            place += 1
            continue
        run = _run(was, found, now, place, min(end - place, was.count - found), 1)
        if run:
            operations.keep(found, run)
            place += run
        else:
            operations.patch(found, was.part(found, found + 1), element)
            place += 1
    operations.keep(was.count - tail, tail)
    return operations.finish()


class _Operations:
    """Operations of a list in the making: neighbours are joined, and it gives up when they grow too large."""

    def __init__(self, limit_bytes: float) -> None:
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

    def patch(self, index: int, old: bytes, new: bytes) -> None:
        fields = _field_patch(old, new)
        size = len(_encode(fields)) if fields is not None else len(new)
        if fields is None or size >= len(new):
            self.insert(new)
            return
        self._flush()
        self._done.append([PATCH, index, *fields])
        self._kept = None
        self._left -= size

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


def _field_patch(old: bytes, new: bytes) -> tuple[_Fields, list[str]] | None:
    """Return the fields to set and the names to remove; None if one of the two is no map with text keys."""
    try:
        was, now = _decode_fields(old), _decode_fields(new)
    except msgspec.DecodeError:
        return None
    changed = {name: raw for name, raw in now.items() if name not in was or bytes(was[name]) != bytes(raw)}
    return changed, [name for name in was if name not in now]


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
