"""A store read from its pages, without LMDB: for what must go on whatever is damaged.

Does IO. Slower than LMDB by far, and used where that does not matter: before a start, by
`headwater doctor` and when a damaged store is built anew.
"""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec
from headwater_protocol.errors import StorageError

from headwater_storage.findings import Finding
from headwater_storage.lmdb_store import DOCUMENTS, ENTRIES, META, STATE_KEY, decode_state
from headwater_storage.page_check import PageCheck
from headwater_storage.pages import DEPTH_MAX, NO_PAGE, BadPageError, PageFile, Pages, metas_of
from headwater_storage.store import EMPTY_STATE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Self

    from headwater_storage.files import FileSystem
    from headwater_storage.pages import Meta, Node, Tree
    from headwater_storage.proposal import CommitTs
    from headwater_storage.store import State

_NODES_KEPT = 2048
_META_PAGES_BYTES_MAX = 2 << 15


@contextmanager
def opened(files: FileSystem, path: Path) -> Iterator[PageFile]:
    """Open a store's file for reading, for the length of a block.

    Raises:
        OSError: It cannot be opened.
    """
    descriptor = files.open(path, os.O_RDONLY)
    try:
        yield PageFile(files, descriptor)
    finally:
        files.close(descriptor)


def check_pages(files: FileSystem, path: Path, metas: bytes, budget_bytes: int | None) -> list[Finding]:
    """Return what is wrong with the pages of a snapshot.

    Args:
        files: The file system.
        path: LMDB's file.
        metas: The snapshot's meta pages.
        budget_bytes: How much to read, upper pages first; None: all.
    """
    with opened(files, path) as file:
        try:
            meta = metas_of(metas)[0]
        except BadPageError as error:
            return [Finding(str(path), error.offset, error.text)]
        return PageCheck(Pages(file, meta), path, budget_bytes).run()


def newest_shown(files: FileSystem, path: Path) -> int:
    """Return the newest log record whose traces a store's file shows by its own meta pages; 0 if none.

    The file may be any mixture of old and new pages. But whatever state stands in it was put
    there after its record was durable, so a log that ends earlier has lost something.
    """
    newest = 0
    with opened(files, path) as file:
        metas: list[Meta] = []
        with suppress(BadPageError):
            metas = metas_of(file.read(0, _META_PAGES_BYTES_MAX), both=False)
        for meta in metas:
            with suppress(StorageError), PageSnapshot(Pages(file, meta), path) as snapshot:
                newest = max(newest, snapshot.state.record_number)
    return newest


def state_offset(files: FileSystem, path: Path, metas: bytes) -> int:
    """Return where in a store's file a snapshot's state lies; 0 if it is not found."""
    with opened(files, path) as file, suppress(BadPageError):
        pages = Pages(file, metas_of(metas)[0])
        for node in pages.leaves(pages.named_trees()[META]):
            if STATE_KEY in node.keys:
                return node.number * pages.meta.page_bytes + node.values[node.keys.index(STATE_KEY)][0]
    return 0


class PageSnapshot:
    """Implements `StoreSnapshot` over pages."""

    def __init__(self, pages: Pages, path: Path) -> None:
        """Find its trees.

        Raises:
            StorageError: `damaged`, here and from every method.
        """
        self.pages = pages
        self._path = path
        self._node = lru_cache(_NODES_KEPT)(pages.node)
        with self._damage_named():
            trees = pages.named_trees()
        missing = {DOCUMENTS, ENTRIES, META} - trees.keys()
        if missing:
            raise StorageError(f"{path}: the tree {sorted(missing)[0]!r} is missing", code="damaged")
        self.document_tree = trees[DOCUMENTS]
        self.entry_tree = trees[ENTRIES]
        raw = self._get(trees[META], STATE_KEY)
        try:
            self.state: State = EMPTY_STATE if raw is None else decode_state(raw)
        except msgspec.DecodeError as error:
            raise StorageError(f"{path}: the store's state is damaged: {error}", code="damaged") from None

    @property
    def ts(self) -> CommitTs:
        """Its commit ts."""
        return self.state.ts

    def get_document(self, key: bytes) -> bytes | None:
        """Return a stored value, None if there is no such document."""
        return self._get(self.document_tree, key)

    def get_entry(self, key: bytes) -> bytes | None:
        """Return an index entry's value, None if there is no such entry."""
        return self._get(self.entry_tree, key)

    def documents(self, lo: bytes, hi: bytes, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Iterate keys and stored values of `[lo, hi)`, lazily."""
        return self._scan(self.document_tree, lo, hi, reverse)

    def entries(self, lo: bytes, hi: bytes, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Iterate entry keys and values of `[lo, hi)`, lazily."""
        return self._scan(self.entry_tree, lo, hi, reverse)

    def salvage(self, tree: Tree, unreadable: list[str]) -> Iterator[tuple[bytes, bytes]]:
        """Iterate all of a tree that can be read, noting what cannot."""
        if tree.root != NO_PAGE:
            yield from self._salvage_page(tree.root, unreadable, set())

    def _salvage_page(
        self, number: int, unreadable: list[str], seen: set[int]
    ) -> Iterator[tuple[bytes, bytes]]:
        try:
            if number in seen or len(seen) > self.pages.meta.last_page:
                raise self.pages.bad(number, 0, f"page {number} is used twice")
            seen.add(number)
            node = self.pages.node(number)
        except BadPageError as error:
            unreadable.append(f"{self._path}, offset {error.offset}: {error.text}")
            return
        for child in node.children:
            yield from self._salvage_page(child, unreadable, seen)
        for index in range(len(node.values)):
            try:
                value = self.pages.value(node, index)
            except BadPageError as error:
                unreadable.append(f"{self._path}, offset {error.offset}: {error.text}")
            else:
                yield node.keys[index], value

    def close(self) -> None:
        """Do nothing: whoever opened the file closes it."""

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing."""

    @contextmanager
    def _damage_named(self) -> Iterator[None]:
        try:
            yield
        except BadPageError as error:
            raise StorageError(f"{self._path}, offset {error.offset}: {error.text}", code="damaged") from None

    def _get(self, tree: Tree, key: bytes) -> bytes | None:
        if tree.root == NO_PAGE:
            return None
        with self._damage_named():
            node = self._node(tree.root)
            for _ in range(DEPTH_MAX):
                if not node.children:
                    index = bisect_left(node.keys, key)
                    there = index < len(node.keys) and node.keys[index] == key
                    return self.pages.value(node, index) if there else None
                node = self._node(node.children[bisect_right(node.keys, key, 1) - 1])
            raise self.pages.bad(node.number, 0, f"page {node.number} lies deeper than any tree is")

    def _scan(self, tree: Tree, lo: bytes, hi: bytes, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        if tree.root == NO_PAGE:
            return
        with self._damage_named():
            yield from self._scan_page(tree.root, lo, hi, reverse, 1)

    def _scan_page(
        self, number: int, lo: bytes, hi: bytes, reverse: bool, depth: int
    ) -> Iterator[tuple[bytes, bytes]]:
        node: Node = self._node(number)
        keys = node.keys
        if depth > DEPTH_MAX:
            raise self.pages.bad(number, 0, f"page {number} lies deeper than any tree is")
        if node.children:
            places = range(bisect_right(keys, lo, 1) - 1, bisect_left(keys, hi, 1))
            for place in reversed(places) if reverse else places:
                yield from self._scan_page(node.children[place], lo, hi, reverse, depth + 1)
        else:
            places = range(bisect_left(keys, lo), bisect_left(keys, hi))
            for place in reversed(places) if reverse else places:
                yield keys[place], self.pages.value(node, place)
