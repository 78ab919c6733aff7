"""Is every page of an LMDB file what it should be? Asked before LMDB itself may open the file.

A damaged page can abort or break the process that has it mapped, or make LMDB hand out a page
that is in use. Here each tree is walked from bytes alone: what each page says of itself, order
of keys and their bounds, and in the end that trees have the pages and keys that LMDB counted and
that each page is either used once or free. Values are nobody's business here.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from headwater_storage.findings import Finding
from headwater_storage.pages import FIRST_PAGE, NO_PAGE, BadPageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from headwater_storage.pages import Node, Pages, Tree

FINDINGS_MAX = 100
_Ordered = TypeVar("_Ordered", bytes, int)
_USED, _FREE = 1, 2
_PAGE_NUMBER_BYTES = 8


class _Place(NamedTuple):
    """A page still to be looked at, and the bounds that the pages above set for its keys."""

    number: int
    lo: bytes | None
    hi: bytes | None


class _Walk:
    """One tree, level by level from its root."""

    def __init__(self, name: str, tree: Tree, order: Callable[[bytes], bytes]) -> None:
        self.name = name
        self.tree = tree
        self.order = order
        self.depth = 1
        self.level = [] if tree.root == NO_PAGE else [_Place(tree.root, None, None)]
        self.counts = [0, 0, 0, 0]  # branch, leaf and overflow pages, entries
        self.has_bad_page = False

    @property
    def at_leaves(self) -> bool:
        return self.depth >= self.tree.depth


class PageCheck:
    """Looks at the pages of one snapshot.

    Attributes:
        findings: What is wrong.
        complete: Every page was looked at.
    """

    def __init__(self, pages: Pages, path: Path, budget_bytes: int | None = None) -> None:
        """Prepare.

        Args:
            pages: The snapshot.
            path: Its file, for findings.
            budget_bytes: How much to read; None: all. Upper pages come first.
        """
        self.findings: list[Finding] = []
        self.complete = True
        self._pages = pages
        self._path = path
        self._budget = budget_bytes
        self._marks = bytearray(pages.meta.last_page + 1)
        self._free_lists: list[tuple[int, bytes]] = []

    def run(self) -> list[Finding]:
        """Look at all pages that the budget allows and return what is wrong."""
        meta = self._pages.meta
        walks = [_Walk("of free pages", meta.free, lambda key: key[::-1])]
        walks.append(_Walk("of trees", meta.main, bytes))
        try:
            named = self._pages.named_trees()
        except BadPageError as error:
            self._found(error)
            named = {}
            self.complete = False
        walks += [_Walk(f"`{name.decode('ascii', 'replace')}`", tree, bytes) for name, tree in named.items()]
        for walk in walks:
            while not walk.at_leaves and self._step(walk):
                pass
        for walk in walks:
            self._step(walk)
        if self.complete and not self.findings:
            for walk in walks:
                self._check_counts(walk)
            self._check_free()
        return self.findings

    def _found(self, error: BadPageError) -> None:
        finding = Finding(str(self._path), error.offset, error.text)
        if (
            len(self.findings) < FINDINGS_MAX and finding not in self.findings
        ):  # a page may be met on two ways
            self.findings.append(finding)

    def _step(self, walk: _Walk) -> bool:
        """Look at one level of a tree; False if there is nothing to go on with."""
        below: list[_Place] = []
        for place in walk.level:
            if self._budget is not None and self._pages.bytes_read > self._budget:
                self.complete = False
                return False
            try:
                below += self._look(walk, place)
            except BadPageError as error:
                self._found(error)
        walk.level = below
        walk.depth += 1
        return bool(below)

    def _look(self, walk: _Walk, place: _Place) -> list[_Place]:
        pages, number = self._pages, place.number
        self._mark(number, 1)
        node = pages.node(number)
        if bool(node.children) is walk.at_leaves:
            raise pages.bad(number, 10, f"page {number} of tree {walk.name} is at the wrong depth")
        self._check_order(walk, node, place)
        if not node.children:
            walk.counts[1] += 1
            walk.counts[3] += len(node.keys)
            self._look_at_values(walk, node)
            return []
        walk.counts[0] += 1
        los: list[bytes | None] = [place.lo, *node.keys[1:]]
        his: list[bytes | None] = [*node.keys[1:], place.hi]
        return list(map(_Place, node.children, los, his))

    def _check_order(self, walk: _Walk, node: Node, place: _Place) -> None:
        keys = node.keys[1:] if node.children else node.keys
        bounded = keys if place.hi is None else [*keys, place.hi]
        if walk.order is not bytes:
            bounded = list(map(walk.order, bounded))
        if any(map(_not_before, bounded, bounded[1:])):
            raise self._pages.bad(node.number, 0, f"keys of page {node.number} are out of order")
        if place.lo is not None and walk.order(keys[0]) < walk.order(place.lo):
            raise self._pages.bad(
                node.number, 0, f"page {node.number} begins before what the page above it says"
            )

    def _look_at_values(self, walk: _Walk, node: Node) -> None:
        pages = self._pages
        is_free = walk.tree is pages.meta.free
        for index, (at, _, flags) in enumerate(node.values):
            if flags > 1 and walk.tree is not pages.meta.main:
                raise pages.bad(node.number, at, f"page {node.number} has a value of a kind that is not used")
            if flags == 1:
                first, count = pages.overflow_pages(node, index)
                pages.check_overflow(first, count)
                self._mark(first, count)
                walk.counts[2] += count
            if is_free:
                self._free_lists.append((node.number, pages.value(node, index)))

    def _mark(self, first: int, count: int) -> None:
        last = self._pages.meta.last_page
        for number in range(first, first + count):
            if not FIRST_PAGE <= number <= last:
                raise self._pages.bad(number, 0, f"page {number} lies outside of the file's pages")
            if self._marks[number]:
                raise self._pages.bad(number, 0, f"page {number} is used twice")
            self._marks[number] = _USED

    def _check_counts(self, walk: _Walk) -> None:
        tree = walk.tree
        noted = [tree.branch_pages, tree.leaf_pages, tree.overflow_pages, tree.entries]
        if walk.counts != noted:
            offset = tree.root * self._pages.meta.page_bytes if tree.root != NO_PAGE else None
            self.findings.append(
                Finding(
                    str(self._path),
                    offset,
                    f"tree {walk.name} has {walk.counts} branch, leaf and overflow pages and entries,"
                    f" LMDB counted {noted}",
                )
            )

    def _check_free(self) -> None:
        marks = self._marks
        for number, listed in self._free_lists:
            try:
                for page in _free_pages(listed):
                    if not FIRST_PAGE <= page < len(marks):
                        raise self._pages.bad(number, 0, f"page {number} lists page {page} as free")
                    if marks[page]:
                        said = "used" if marks[page] == _USED else "listed twice"
                        raise self._pages.bad(number, 0, f"the free page {page} is {said}")
                    marks[page] = _FREE
            except ValueError:
                self._found(self._pages.bad(number, 0, f"page {number} has a damaged list of free pages"))
            except BadPageError as error:
                self._found(error)
        lost = marks.count(0, FIRST_PAGE)
        if lost and not self.findings:
            first = marks.index(0, FIRST_PAGE)
            self._found(
                self._pages.bad(first, 0, f"{lost} pages are neither used nor free, the first is {first}")
            )


def _not_before(one: _Ordered, other: _Ordered) -> bool:
    return one >= other


def _free_pages(listed: bytes) -> tuple[int, ...]:
    """Return the page numbers in a record of free pages: a count, then numbers in falling order.

    Raises:
        ValueError: It is something else.
    """
    count, rest = divmod(len(listed), _PAGE_NUMBER_BYTES)
    if rest or not count:
        raise ValueError
    noted, *numbers = Struct(f"={count}Q").unpack(listed)
    if noted != len(numbers) or any(map(_not_before, numbers[1:], numbers)):
        raise ValueError
    return tuple(numbers)
