"""Moves of sessions to a later ts: what their clients hold, and what becomes of it.

Pure. What clients hold and what they are told are objects that never change, shared by all that came to
the same together: of the many that hold the same, the first has its move worked out for all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater_protocol.messages import AddQuery

    from headwater_server.reactive.deltas import ChangeBodies
    from headwater_server.reactive.sessions import Version
    from headwater_server.reactive.showing import Showing


class Moved:
    """A move to a later ts, the same for all sessions that held the same before it.

    Attributes:
        ts: Commit ts at which all queries now hold.
        changes: Number of the query and encoded body of what became of it; the bytes are
            shared with all sessions for which the same became of it.
        made: Where the server keeps what it has made of it for one session, for the next ones; the core does not
            look at it.
    """

    __slots__ = ("changes", "made", "ts")

    def __init__(self, ts: int, changes: Sequence[tuple[int, bytes]]) -> None:
        self.ts = ts
        self.changes = changes
        self.made: Any = None


class Holding:
    """What a client holds over this connection. Never changed: sessions that came to the same together share one.

    Attributes:
        numbers: The client's numbers of its queries, in their order.
        shown: Digest of the content it was sent last for each of them; None before the first.
        resumed: Digests of values that it says it kept from an earlier connection, by number, until something
            has been shown.
        whole: Whether it takes whole results only, no deltas.
    """

    __slots__ = ("numbers", "resumed", "shown", "whole")

    def __init__(
        self,
        numbers: tuple[int, ...],
        shown: tuple[bytes | None, ...],
        resumed: dict[int, bytes],
        *,
        whole: bool = False,
    ) -> None:
        self.numbers = numbers
        self.shown = shown
        self.resumed = resumed
        self.whole = whole

    @property
    def content(self) -> tuple[object, ...]:
        """What makes two of them equal."""
        return (self.whole, self.numbers, self.shown, *self.resumed.items())

    def modified(self, add: Sequence[AddQuery], remove: Sequence[int]) -> Holding:
        """Return what a client holds that looks at some queries no more and at others from now on."""
        shown, resumed = dict(zip(self.numbers, self.shown, strict=True)), dict(self.resumed)
        for number in remove:
            del shown[number]
            resumed.pop(number, None)
        for query in add:
            shown[query.query] = None
            if query.digest is not None:
                resumed[query.query] = query.digest
        return Holding(tuple(shown), tuple(shown.values()), resumed, whole=self.whole)

    def differs(self, showing: Showing) -> bool:
        """Tell whether the client does not hold these contents and journals yet."""
        return self.shown != showing.digests or bool(showing.adopted)


NOTHING = Holding((), (), {})
NOTHING_OF_WHOLES = Holding((), (), {}, whole=True)


class Step(NamedTuple):
    """What becomes of sessions that hold the same when they move to certain versions.

    Attributes:
        moved: What their clients are told.
        after: What they hold then.
        adopted: Number and version of each query whose journal they take over.
    """

    moved: Moved
    after: Holding
    adopted: Sequence[tuple[int, Version]]


class Moves:
    """What becomes of the sessions of a view that move to a ts, at which its queries show certain versions.

    Args:
        bodies: Encodes what became of a query.
        showing: What the view's queries show there.
        ts: Where to.

    Attributes:
        steps: What was worked out, by what is held: the object, and its content.
    """

    __slots__ = ("_bodies", "_showing", "_ts", "steps")

    def __init__(self, bodies: ChangeBodies, showing: Showing, ts: int) -> None:
        self._bodies = bodies
        self._showing = showing
        self._ts = ts
        self.steps: dict[object, Step] = {}

    def step_of(self, holding: Holding) -> Step:
        """Return what becomes of a session whose client holds this, worked out if nobody held the same before."""
        content = holding.content
        step = self.steps.get(content)
        if step is None:
            step = self.steps[content] = self._work_out(holding)
        self.steps[holding] = step
        return step

    def _work_out(self, holding: Holding) -> Step:
        changes: list[tuple[int, bytes]] = []
        adopted: list[tuple[int, Version]] = []
        versions, digests, takes_over = self._showing
        pairs = enumerate(zip(holding.shown, digests, strict=True))
        other = [place for place, (shown, digest) in pairs if shown is not digest]  # mostly one of very many
        for place in sorted(takes_over.union(other)):
            number, shown, version = holding.numbers[place], holding.shown[place], versions[place]
            adopts = place in takes_over
            if shown == digests[place] and not adopts:
                continue
            content, journal = version.content, version.journal
            if holding.whole:
                body = self._bodies.change(None, content, journal)
            elif content.failure is None and content.digest in (shown, holding.resumed.get(number)):
                body = self._bodies.unchanged(content, journal)
            else:
                body = self._bodies.change(shown, content, journal)
            changes.append((number, body))
            if adopts:
                adopted.append((number, version))
        after = holding
        if digests != holding.shown:
            after = Holding(holding.numbers, digests, {}, whole=holding.whole)
        return Step(Moved(self._ts, changes), after, adopted)
