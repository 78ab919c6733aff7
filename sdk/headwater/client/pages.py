"""Pages of a query, all of them live, shown as one list.

Each loaded page is a subscription of its own whose end the server keeps, so that pages neither overlap nor
leave gaps when rows come and go; those that grew are split and those that shrank are joined. What is shown changes only behind whole steps of the session, when
all pages hold at one moment: a row that moves from one page to another is never there twice.
"""

from __future__ import annotations

import asyncio
import weakref
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

from headwater_protocol.errors import HeadwaterError, ProtocolError

from headwater.client.local_results import copied
from headwater.client.subscription import Slot, call_later

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

T = TypeVar("T")
Status = Literal["loading_first_page", "can_load_more", "loading_more", "exhausted"]

_SPLIT_TIMES = 2  # a page with more than this many times the rows it was asked for is split
_JOIN_PART = 2  # two neighbours with at most this part of the rows one was asked for become one page


@dataclass(frozen=True, slots=True)
class Paged(Generic[T]):
    """What the pages show together.

    Attributes:
        items: Rows of all loaded pages, in the query's order.
        status: `loading_first_page`, `can_load_more`, `loading_more` or `exhausted`.
    """

    items: list[T]
    status: Status


class Follow(Protocol):
    """Subscribe to a page: called with its options and its slot, returns the subscription's number."""

    def __call__(self, options: dict[str, Any], slot: PageSlot, /) -> int:
        """Subscribe."""
        ...


class PageSlot:
    """One page: what was asked for, and the newest that came.

    Attributes:
        options: As sent.
        value: `page`, `isDone` and `continueCursor`; None before the first result and after an error.
        error: Why it failed last, if it did.
        number: Its subscription; None once it was dropped.
        split_above: With more rows than this it is split.
        joins: Whether it may become one page with the next.
    """

    def __init__(self, chain: PageChain, options: dict[str, Any]) -> None:
        self.options = options
        self.value: dict[str, Any] | None = None
        self.error: HeadwaterError | None = None
        self.number: int | None = None
        self.split_above: int = self.size * _SPLIT_TIMES
        self.joins = True
        self._chain = chain

    @property
    def size(self) -> int:
        """How many rows it was asked for."""
        size: int = self.options["numItems"]
        return size

    @property
    def items(self) -> list[Any]:
        """Rows that it shows."""
        return [] if self.value is None else self.value["page"]

    @property
    def begin(self) -> str | None:
        """Where it begins, None for the first page."""
        cursor: str | None = self.options["cursor"]
        return cursor

    @property
    def end_kept(self) -> str | None:
        """Where it ends for good; None while it is not known or the last page, whose end is open."""
        return None if self.value is None or self.value["isDone"] else self.value["continueCursor"]

    def put(self, value: Any, error: HeadwaterError | None) -> None:
        """Take a result; the chain looks at it behind the step."""
        if error is None and not _is_page(value):
            error = ProtocolError("expected a function that returns a Page")
        self.value, self.error = (value, None) if error is None else (None, error)
        self._chain.touched()

    def end(self, error: HeadwaterError | None) -> None:
        """Nothing comes any more, as the client is over; a page that was dropped ends without a word."""
        if self.number is not None:
            self._chain.end(error)


class Exchange:
    """Pages that take the place of others once they show exactly the same rows.

    Attributes:
        old: One page that is to be split, or two neighbours that are to be joined.
        new: What replaces them; of two halves the second once it is known where it begins.
    """

    def __init__(self, old: list[PageSlot], new: list[PageSlot]) -> None:
        self.old = old
        self.new = new

    @property
    def splits(self) -> bool:
        """Whether it makes two pages of one."""
        return len(self.old) == 1

    @property
    def waits(self) -> bool:
        """Whether a new page has not come yet."""
        return any(page.value is None and page.error is None for page in self.new)

    @property
    def fits(self) -> bool:
        """Whether the new pages end where the old ones do and show the same."""
        ends = [page.end_kept for page in self.new]
        if None in ends or ends[-1] != self.old[-1].end_kept:
            return False
        return rows_of(self.new) == rows_of(self.old)

    def give_up(self) -> None:
        """Do not try again soon: a page must have grown as much again."""
        for page in self.old:
            page.joins = page.joins and self.splits
            page.split_above = max(page.split_above, len(page.items)) * _SPLIT_TIMES


def rows_of(pages: list[PageSlot]) -> list[Any]:
    """Return the rows of pages in their order."""
    return [row for page in pages for row in page.items]


class PageChain:
    """The loaded pages of one query.

    Attributes:
        shown: What they show together.
        out: Where that goes.
    """

    def __init__(
        self,
        page_size: int,
        follow: Follow,
        unfollow: Callable[[int], None],
        touch: Callable[[PageChain], None],
    ) -> None:
        """Prepare it; `load` subscribes to the first page.

        Args:
            page_size: Rows of a new page.
            follow: Subscribes to a page.
            unfollow: Ends a subscription.
            touch: Has `settle` called behind the step that goes on.
        """
        self.shown: Paged[Any] = Paged([], "loading_first_page")
        self.out = Slot()
        self._size = page_size
        self._follow = follow
        self._unfollow = unfollow
        self._touch = touch
        self._pages: list[PageSlot] = []
        self._sizes: list[int] = []  # of the pages that were asked for
        self._exchange: Exchange | None = None  # at most one goes on at a time
        self._marks = 0
        self._error: HeadwaterError | None = None
        self._settling = False
        self._unsettled = False

    def load(self, size: int | None = None) -> None:
        """Ask for one page more."""
        self._sizes.append(self._size if size is None else size)
        try:
            self.settle()
        except HeadwaterError:
            self._sizes.pop()
            raise

    def touched(self) -> None:
        """A page has changed."""
        self._touch(self)

    def close(self) -> None:
        """Drop all pages."""
        self._drop_exchange()
        self._drop(self._pages)
        self.out.end(None)

    def end(self, error: HeadwaterError | None) -> None:
        """Nothing comes any more."""
        if not self.out.over:
            self.out.end(error)

    def settle(self) -> None:
        """Look at all pages together, which hold at one moment; load, split and show what is due.

        Raises:
            HeadwaterError: A page cannot be subscribed to: the client has too many queries.
        """
        self._unsettled = True
        if self._settling:  # subscribing may bring what an optimistic update shows
            return
        self._settling = True
        try:
            while self._unsettled and not self.out.over:
                self._unsettled = False
                self._keep_chained()
                self._go_on_exchanging()
                self._load_due()
                self._show()
        finally:
            self._settling = False

    def _keep_chained(self) -> None:
        """Drop the pages behind one that has another end than it had; they are loaded again.

        The server keeps the ends of pages. It cannot after a deploy that changed the query.
        """
        for place, page in enumerate(self._pages):
            before = self._pages[place - 1] if place else None
            lost = page.error is not None and page.error.code == "invalid_cursor" and page.begin is not None
            if lost:
                self._drop(self._pages)
                return
            if (
                before is not None
                and before.value is not None
                and before.value["continueCursor"] != page.begin
            ):
                self._drop(self._pages[place:])
                return

    def _load_due(self) -> None:
        if not self._pages:
            self._pages.append(self._subscribe(self._sizes[0], None))
        last = self._pages[-1]
        more = len(self._pages) < len(self._sizes) and last.value is not None and not last.value["isDone"]
        if more and last.value is not None:
            size = self._sizes[len(self._pages)]
            self._pages.append(self._subscribe(size, last.value["continueCursor"]))

    def _show(self) -> None:
        failed = next((page.error for page in self._pages if page.error is not None), None)
        if failed is not None:
            if failed is not self._error:
                self.out.put(None, failed)
            self._error = failed
            return
        shown = self._joined()
        if self._error is None and shown == self.shown:
            return
        self._error, self.shown = None, shown
        if shown.status != "loading_first_page":
            self.out.put(shown, None)

    def _joined(self) -> Paged[Any]:
        items: list[Any] = []
        for page in self._pages:
            if page.value is None:
                return Paged(items, "loading_more" if page is not self._pages[0] else "loading_first_page")
            items += page.items
        value = self._pages[-1].value
        return Paged(items, "exhausted" if value is not None and value["isDone"] else "can_load_more")

    # ------------------------------------------------------------------------------------ splitting, joining

    def _go_on_exchanging(self) -> None:
        exchange = self._exchange
        if exchange is None:
            self._exchange = self._due_exchange()
            return
        if any(page.number is None or page.end_kept is None for page in exchange.old):
            self._drop_exchange()
        elif exchange.waits:
            return
        elif exchange.splits and len(exchange.new) == 1 and self._takes_second(exchange):
            page = exchange.old[0]
            begin = exchange.new[0].end_kept
            exchange.new.append(self._subscribe(page.size, begin, end=page.end_kept, mark=True))
        elif exchange.fits:
            self._put_in_place(exchange)
        else:
            exchange.give_up()
            self._drop_exchange()

    def _takes_second(self, exchange: Exchange) -> bool:
        page, first = exchange.old[0], exchange.new[0]
        return first.end_kept is not None and len(page.items) > page.size

    def _due_exchange(self) -> Exchange | None:
        """Return what is to be exchanged next, begun."""
        for page in self._pages:
            if page.end_kept is not None and len(page.items) > page.split_above:
                return Exchange([page], [self._subscribe(page.size, page.begin, mark=True)])
        for page, after in pairwise(self._pages):
            few = (len(page.items) + len(after.items)) * _JOIN_PART <= page.size
            if few and page.joins and page.end_kept is not None and after.end_kept is not None:
                joined = self._subscribe(page.size, page.begin, end=after.end_kept, mark=True)
                return Exchange([page, after], [joined])
        return None

    def _put_in_place(self, exchange: Exchange) -> None:
        place, count = self._pages.index(exchange.old[0]), len(exchange.old)
        self._pages[place : place + count] = exchange.new
        self._sizes[place : place + count] = [page.size for page in exchange.new]
        self._exchange = None
        self._drop(exchange.old)
        self._unsettled = True

    def _drop_exchange(self) -> None:
        if self._exchange is not None:
            self._drop(self._exchange.new)
            self._exchange = None

    # ------------------------------------------------------------------------------------------ subscriptions

    def _subscribe(
        self, size: int, begin: str | None, *, end: str | None = None, mark: bool = False
    ) -> PageSlot:
        options: dict[str, Any] = {"numItems": size, "cursor": begin}
        if end is not None:
            options["endCursor"] = end
        if mark:  # the same arguments as those of a page that is there would mean that page to an update
            self._marks += 1
            options["id"] = self._marks
        page = PageSlot(self, options)
        page.number = self._follow(options, page)
        return page

    def _drop(self, pages: list[PageSlot]) -> None:
        for page in list(pages):
            number, page.number = page.number, None
            if number is not None:
                self._unfollow(number)
            if page in self._pages:
                self._pages.remove(page)


def _is_page(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("page"), list)
        and isinstance(value.get("isDone"), bool)
        and isinstance(value.get("continueCursor"), str)
    )


class Pages(Generic[T]):
    """The pages of a live query as one list, an asynchronous iterator of `Paged`. Made by `Client.paginate`.

    Holds one value: the newest that was not taken. It ends when it is closed, when nothing refers to it any
    more, or with the client. A failure of the query is raised once; iterating on waits for what comes next.
    Rows are the consumer's own to change.
    """

    def __init__(self, chain: PageChain) -> None:
        self._chain = chain
        loop = asyncio.get_running_loop()
        weakref.finalize(self, call_later, loop, chain.close).atexit = False

    @property
    def status(self) -> Status:
        """Whether there is more, and whether it is on its way."""
        return self._chain.shown.status

    def load_more(self, page_size: int | None = None) -> bool:
        """Ask for the next page; return whether there may be one and none was on its way.

        Args:
            page_size: How many rows; None: as many as in the first.
        """
        if self._chain.out.over or self.status != "can_load_more":
            return False
        self._chain.load(page_size)
        return True

    def __aiter__(self) -> Pages[T]:
        return self

    async def __anext__(self) -> Paged[T]:
        paged: Paged[T] = await self._chain.out.take()
        return replace(paged, items=copied(paged.items))

    async def aclose(self) -> None:
        """Unsubscribe. May be called twice."""
        self._chain.close()

    async def __aenter__(self) -> Pages[T]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
