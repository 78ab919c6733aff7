"""LMDB's file read without LMDB: pages, trees and values from bytes, so that no damage can end the process.

Pure but for reading pages from a source. Knows what LMDB 0.9 writes on a 64-bit machine, and of
that what a store uses: keys of bytes, one value a key, named databases, overflow pages. A page
that is not exactly what LMDB would have written raises `BadPageError`; nothing of it is trusted.
"""

from __future__ import annotations

from functools import cache
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwater_storage.files import FileSystem

FIRST_PAGE = 2
"""The two before it are meta pages."""

HEADER_BYTES = 16
NO_PAGE = (1 << 64) - 1
DEPTH_MAX = 32
KEY_BYTES_MAX = 511

_MAGIC, _VERSION = 0xBEEFC0DE, 1
_BRANCH, _LEAF, _OVERFLOW, _META = 1, 2, 4, 8
_BIG, _SUBTREE = 1, 2
_NODE_HEADER_BYTES = 8

_page_header = Struct("=QHHHH").unpack_from
_page_count = Struct("=I").unpack_from
_node_header = Struct("=HHHH").unpack_from
_number = Struct("=Q").unpack_from
_TREE = Struct("=IHHQQQQQ")
_META_HEAD = Struct("=IIQQ")
_META_TAIL = Struct("=QQ")
_META_BYTES = HEADER_BYTES + _META_HEAD.size + 2 * _TREE.size + _META_TAIL.size


@cache
def _slots(count: int) -> Struct:
    return Struct(f"={count}H")


class BadPageError(Exception):
    """A page is not what LMDB writes.

    Attributes:
        offset: Where in the file.
        text: What is wrong.
    """

    def __init__(self, offset: int, text: str) -> None:
        super().__init__(f"offset {offset}: {text}")
        self.offset = offset
        self.text = text


class Tree(NamedTuple):
    """What LMDB notes of one of its trees; the names are its own."""

    pad: int
    flags: int
    depth: int
    branch_pages: int
    leaf_pages: int
    overflow_pages: int
    entries: int
    root: int


class Meta(NamedTuple):
    """One meta page.

    Attributes:
        page_bytes: Size of every page.
        free: The tree of free pages, by the transaction that freed them.
        main: The tree of named trees.
        last_page: The last page in use.
        transaction: Number of the transaction that wrote it: the newer of two counts.
    """

    page_bytes: int
    free: Tree
    main: Tree
    last_page: int
    transaction: int


class Node(NamedTuple):
    """One page of a tree.

    Attributes:
        number: Its number.
        data: Its bytes.
        keys: In order. The first of a branch page stands for everything below the second.
        children: Numbers of the pages below, of a branch page; else empty.
        values: Offset in the page, size and kind of each value, of a leaf page; else empty.
    """

    number: int
    data: bytes
    keys: list[bytes]
    children: list[int]
    values: list[tuple[int, int, int]]


def metas_of(metas: bytes, *, both: bool = True) -> list[Meta]:
    """Return the meta pages, that which LMDB would use first.

    Args:
        metas: Both pages, and maybe more.
        both: Whether both have to be what LMDB writes; else the good ones are returned.

    Raises:
        BadPageError: One of them is damaged, or, where one is enough, the first.
    """
    first = _meta(metas, 0, 0)
    try:
        second = _meta(metas, 1, first.page_bytes)
    except BadPageError:
        if both:
            raise
        return [first]
    return [first, second] if first.transaction >= second.transaction else [second, first]


def _meta(metas: bytes, number: int, page_bytes: int) -> Meta:
    offset = number * page_bytes
    if len(metas) < offset + _META_BYTES:
        raise BadPageError(offset, f"meta page {number} is not there")
    stored_number, _, flags, _, _ = _page_header(metas, offset)
    start = offset + HEADER_BYTES
    magic, version, _, _ = _META_HEAD.unpack_from(metas, start)
    start += _META_HEAD.size
    free = Tree(*_TREE.unpack_from(metas, start))
    main = Tree(*_TREE.unpack_from(metas, start + _TREE.size))
    last_page, transaction = _META_TAIL.unpack_from(metas, start + 2 * _TREE.size)
    size = free.pad
    if (stored_number, flags, magic, version) != (number, _META, _MAGIC, _VERSION) or (
        size < 512 or size > 1 << 15 or size & (size - 1) or page_bytes not in (0, size)
    ):
        raise BadPageError(offset, f"meta page {number} is damaged")
    if transaction and transaction & 1 != number:
        raise BadPageError(offset, f"meta page {number} has the transaction number {transaction}")
    return Meta(size, free, main, last_page, transaction)


class PageFile:
    """Pages of a file.

    Args:
        files: The file system.
        descriptor: Of the file, open; the caller closes it.
        whole_bytes: A file up to this size is read at once.
    """

    def __init__(self, files: FileSystem, descriptor: int, *, whole_bytes: int = 64 << 20) -> None:
        self._files = files
        self._descriptor = descriptor
        self.size = files.size(descriptor)
        self._whole = files.pread(descriptor, self.size, 0) if self.size <= whole_bytes else None

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes of the file, fewer at its end."""
        if self._whole is not None:
            return self._whole[offset : offset + size]
        return self._files.pread(self._descriptor, size, offset)


class Pages:
    """The pages of one snapshot, each checked when it is read.

    Attributes:
        meta: The snapshot's meta page.
        file: Where the pages are.
        bytes_read: How much was read so far.
    """

    def __init__(self, file: PageFile, meta: Meta) -> None:
        self.file = file
        self.meta = meta
        self.bytes_read = 0
        self._size = meta.page_bytes

    def node(self, number: int) -> Node:
        """Return a branch or leaf page.

        Raises:
            BadPageError: It is not what LMDB writes.
        """
        data = self._read(number, 1)
        stored_number, _, flags, lower, upper = _page_header(data)
        if stored_number != number:
            raise self.bad(number, 0, f"page {number} says that it is page {stored_number}")
        if flags not in (_BRANCH, _LEAF):
            raise self.bad(number, 10, f"page {number} is no page of a tree, its flags are {flags:#x}")
        if lower < HEADER_BYTES or lower & 1 or lower > upper or upper > self._size:
            raise self.bad(number, 12, f"page {number} has its free space at {lower} to {upper}")
        slots = _slots((lower - HEADER_BYTES) >> 1).unpack_from(data, HEADER_BYTES)
        return (
            self._branch(number, data, slots, upper)
            if flags == _BRANCH
            else self._leaf(number, data, slots, upper)
        )

    def _read(self, number: int, count: int) -> bytes:
        if not FIRST_PAGE <= number <= self.meta.last_page or number + count - 1 > self.meta.last_page:
            raise self.bad(number, 0, f"page {number} lies outside of the file's pages")
        data = self.file.read(number * self._size, count * self._size)
        self.bytes_read += len(data)
        if len(data) < count * self._size:
            raise self.bad(number, 0, f"page {number} is cut off: the file ends before")
        return data

    def bad(self, number: int, offset: int, text: str) -> BadPageError:
        """Return the error for a place in a page."""
        return BadPageError(number * self._size + offset, text)

    def _branch(self, number: int, data: bytes, slots: tuple[int, ...], upper: int) -> Node:
        keys: list[bytes] = []
        children: list[int] = []
        used = 0
        for at in slots:
            if not upper <= at <= self._size - _NODE_HEADER_BYTES:
                raise self.bad(number, at, f"page {number} has a node outside of its place")
            low, high, top, key_bytes = _node_header(data, at)
            start = at + _NODE_HEADER_BYTES
            if key_bytes > KEY_BYTES_MAX or start + key_bytes > self._size:
                raise self.bad(number, at, f"page {number} has a key of {key_bytes} bytes")
            keys.append(data[start : start + key_bytes])
            children.append(low | high << 16 | top << 32)
            used += _NODE_HEADER_BYTES + key_bytes + (key_bytes & 1)
        if len(keys) < 2 or keys[0]:
            raise self.bad(number, 0, f"branch page {number} has {len(keys)} children or a wrong first key")
        self._check_space(number, used, upper)
        return Node(number, data, keys, children, [])

    def _leaf(self, number: int, data: bytes, slots: tuple[int, ...], upper: int) -> Node:
        keys: list[bytes] = []
        values: list[tuple[int, int, int]] = []
        used, page_bytes = 0, self._size
        last_start = page_bytes - _NODE_HEADER_BYTES
        for at in slots:
            if not upper <= at <= last_start:
                raise self.bad(number, at, f"page {number} has a node outside of its place")
            low, high, flags, key_bytes = _node_header(data, at)
            start = at + _NODE_HEADER_BYTES
            value = start + key_bytes
            size = low | high << 16
            on_page = 8 if flags == _BIG else size
            if not 0 < key_bytes <= KEY_BYTES_MAX or flags > _SUBTREE or value + on_page > page_bytes:
                raise self.bad(number, at, f"page {number} has a node that is damaged or too large")
            keys.append(data[start:value])
            values.append((value, size, flags))
            space = _NODE_HEADER_BYTES + key_bytes + on_page
            used += space + (space & 1)
        if not keys:
            raise self.bad(number, 0, f"leaf page {number} is empty")
        self._check_space(number, used, upper)
        return Node(number, data, keys, [], values)

    def _check_space(self, number: int, used: int, upper: int) -> None:
        """Nodes lie without gaps behind the free space."""
        if used != self._size - upper:
            raise self.bad(
                number, 14, f"the nodes of page {number} take {used} bytes of {self._size - upper}"
            )

    def overflow_pages(self, node: Node, index: int) -> tuple[int, int]:
        """Return first page and count of pages of a value that has pages of its own; 0, 0 if it has none."""
        at, size, flags = node.values[index]
        if flags != _BIG:
            return 0, 0
        return _number(node.data, at)[0], (HEADER_BYTES - 1 + size) // self._size + 1

    def value(self, node: Node, index: int) -> bytes:
        """Return a value of a leaf page.

        Raises:
            BadPageError: Its overflow pages are not what LMDB writes.
        """
        at, size, flags = node.values[index]
        if flags != _BIG:
            return node.data[at : at + size]
        first, count = self.overflow_pages(node, index)
        data = self._read(first, count)
        self._check_overflow(first, count, data)
        return data[HEADER_BYTES : HEADER_BYTES + size]

    def check_overflow(self, first: int, count: int) -> None:
        """Check the head of a value's own pages, and that they are there."""
        if first + count - 1 > self.meta.last_page or (first + count) * self._size > self.file.size:
            raise self.bad(first, 0, f"overflow pages {first} to {first + count - 1} are not there")
        self._check_overflow(first, count, self._read(first, 1))

    def _check_overflow(self, first: int, count: int, data: bytes) -> None:
        stored_number, _, flags, _, _ = _page_header(data)
        if (stored_number, flags, _page_count(data, 12)[0]) != (first, _OVERFLOW, count):
            raise self.bad(first, 0, f"page {first} is not the first of {count} overflow pages")

    def named_trees(self) -> dict[bytes, Tree]:
        """Return the named trees.

        Raises:
            BadPageError: The main tree, or a record in it, is damaged.
        """
        found: dict[bytes, Tree] = {}
        for node in self.leaves(self.meta.main):
            for index, key in enumerate(node.keys):
                at, size, flags = node.values[index]
                if flags != _SUBTREE or size != _TREE.size:
                    raise self.bad(node.number, at, f"page {node.number} has a value that names no tree")
                found[key] = Tree(*_TREE.unpack_from(node.data, at))
                if found[key].flags or found[key].depth > DEPTH_MAX:
                    raise self.bad(node.number, at, f"page {node.number} has a damaged record of a tree")
        return found

    def leaves(self, tree: Tree) -> Iterator[Node]:
        """Iterate the leaf pages of a tree in order of keys."""
        if tree.root != NO_PAGE:
            yield from self._leaves(tree.root, 1)

    def _leaves(self, number: int, depth: int) -> Iterator[Node]:
        node = self.node(number)
        if not node.children:
            yield node
            return
        if depth >= DEPTH_MAX:
            raise self.bad(number, 0, f"page {number} lies deeper than any tree is")
        for child in node.children:
            yield from self._leaves(child, depth + 1)
