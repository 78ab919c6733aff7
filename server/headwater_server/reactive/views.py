"""Views: what sessions that look at the same thing have in common.

Pure. Whether a session is up to date, waits or takes part in a round follows from its identity and
its live queries alone. Sessions with equal ones share a view, for which that is worked out once,
whether it has one session or thousands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater_server.reactive.sessions import FOREVER
from headwater_server.reactive.showing import Showing

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headwater_server.reactive.rounds import Round, Waiting
    from headwater_server.reactive.sessions import LiveQuery, Session, Version

ViewKey = tuple[object, ...]

_LAST = FOREVER - 1
"""What is right then is so until a commit ends it."""


class View:
    """The sessions of one identity that look at the same live queries, in the same order.

    What its queries show is kept, and only those are asked again that have changed since: a commit mostly
    concerns one of very many.

    Attributes:
        key: Identity and live queries.
        queries: Of each of its sessions, in the order of their subscriptions.
        sessions: Those that may be sent something, in the order in which they came.
        since_ms: Since when it has been stale, monotonic; None while it is up to date.
        round: The round it takes part in, if any.
    """

    __slots__ = (
        "_adopted", "_digests", "_missing", "_open", "_places", "_showing", "_since", "_versions",
        "identity", "key", "queries", "round", "sessions", "since_ms",
    )  # fmt: skip

    def __init__(self, identity: bytes | None, queries: tuple[LiveQuery, ...], key: ViewKey) -> None:
        self.identity = identity
        self.queries = queries
        self.key = key
        self.sessions: dict[Session, None] = {}
        self.since_ms: float | None = None
        self.round: Round | None = None
        self._places: dict[LiveQuery, tuple[int, ...]] = {}
        for place, query in enumerate(queries):
            self._places[query] = (*self._places.get(query, ()), place)
        self._digests = [b""] * len(queries)
        self._adopted: set[int] = set()
        self.forget()

    def forget(self) -> None:
        """Keep nothing of what its queries show: it may outlive its last session in lists that are cleared later."""
        self._open: dict[LiveQuery, None] = dict.fromkeys(self.queries)  # without a version that lasts
        self._versions: list[Version | None] = [None] * len(self.queries)  # those that last
        self._since = 0  # from this ts on they are right
        self._showing: Showing | None = None  # all of them, while none is open
        self._missing: LiveQuery | None = None  # lacked a version when that was last looked for

    def look_again_at(self, query: LiveQuery) -> None:
        """Take note that one of its queries may show another version than it did, or none."""
        if query not in self._open:
            self._open[query] = self._showing = None
            for place in self._places[query]:
                self._versions[place] = None

    def showing_at(self, ts: int) -> Showing | None:
        """Return what its queries show at `ts`, in their order; None if one of them has no version there.

        Asked after each run of a round: of many that lack their versions, one that did when that was last looked for
        is asked first.
        """
        missing = self._missing
        if missing is not None and missing.version_at(self.identity, ts) is None:
            return None
        if ts < self._since:
            return self.asked_at(ts)
        ending = self._settle(ts)
        if self._missing is not None:
            return None
        if ending:
            found = zip(self.queries, self._versions, strict=True)
            return Showing.of(self.queries, [version or ending[query] for query, version in found])
        if self._showing is None:
            versions = [version for version in self._versions if version is not None]
            self._showing = Showing(versions, tuple(self._digests), frozenset(self._adopted))
        return self._showing

    def _settle(self, ts: int) -> dict[LiveQuery, Version]:
        """Ask the open queries, up to one that lacks its version; return those versions that do not last."""
        lasting, ending = [], {}
        self._missing = None
        for query in reversed(self._open):
            version = query.version_at(self.identity, ts)
            if version is None:
                self._missing = query
                break
            if version is query.result_at(self.identity, _LAST):
                lasting.append((query, version))
            else:
                ending[query] = version
        for query, version in lasting:
            del self._open[query]
            self._since = max(self._since, version.since)
            for place in self._places[query]:
                self._versions[place] = version
                self._digests[place] = version.content.digest
                self._adopted.discard(place)
                if version.journal != query.key.journal:
                    self._adopted.add(place)
        return ending

    def asked_at(self, ts: int) -> Showing | None:
        """Return what `showing_at` does, with each query asked anew: where a round is behind what others have found."""
        found = []
        for query in reversed(self.queries):
            version = query.version_at(self.identity, ts)
            if version is None:
                self._missing = query
                return None
            found.append(version)
        found.reverse()
        return Showing.of(self.queries, found)

    def lacking_at(self, ts: int) -> list[LiveQuery]:
        """Return those of its queries that have no version at `ts`."""
        asked = self.queries if ts < self._since else self._open
        return [query for query in asked if query.version_at(self.identity, ts) is None]


def key_of(session: Session) -> ViewKey:
    """Return the key of the view that fits a session."""
    return (session.identity, *[subscription.query for subscription in session.subscriptions.values()])


class Views:
    """All views that have a session.

    Args:
        waiting: Which of them wait for a round.
    """

    def __init__(self, waiting: Waiting) -> None:
        self._waiting = waiting
        self._by_key: dict[ViewKey, View] = {}

    def join(self, session: Session) -> View:
        """Put a session that has no view into the one that fits it, found or made."""
        key = key_of(session)
        view = self._by_key.get(key)
        if view is None:
            queries = tuple([subscription.query for subscription in session.subscriptions.values()])
            view = self._by_key[key] = View(session.identity, queries, key)
            for query in queries:
                query.views[view] = None
        view.sessions[session] = None
        session.view = view
        return view

    def leave(self, session: Session) -> None:
        """Take a session out of its view, if it has one; without sessions that is gone, from its round as well."""
        view, session.view = session.view, None
        if view is None:
            return
        del view.sessions[session]
        if view.sessions:
            return
        del self._by_key[view.key]
        view.forget()
        for query in view.queries:
            query.views.pop(view, None)
        self._waiting.views.pop(view, None)
        if view.round is not None:
            view.round.views.pop(view, None)
            view.round = None

    def review(self, session: Session) -> None:
        """Find the view of a session that looks at something else now; it keeps its place among what waits."""
        before = session.view
        if before is None or before.key == key_of(session):
            return
        since_ms, round_ = before.since_ms, before.round
        self.leave(session)
        view = self.join(session)
        if since_ms is not None:
            view.since_ms = since_ms if view.since_ms is None else min(since_ms, view.since_ms)
        if (
            round_ is not None and len(view.sessions) == 1
        ):  # others shall not wait for what this one waits for
            view.round = round_
            round_.views[view] = None

    def check(self, sessions: Iterable[Session], published_ts: int) -> None:
        """Verify that all know each other, and that each view is up to date, or waits, or is in a round.

        Args:
            sessions: All there are.
            published_ts: What they must be up to date with.
        """
        for session in sessions:
            assert not session.closed
            assert (session.view is None) == session.blocked, (
                "a blocked session has a view, or another has none"
            )
            assert session.view is None or session in session.view.sessions
        for key, view in self._by_key.items():
            assert view.key == key
            assert view.sessions, "a view without sessions"
            for query in view.queries:
                assert view in query.views, "a query does not know who looks at it"
            waits = view in self._waiting.views
            showing = view.showing_at(published_ts)
            assert showing == view.asked_at(published_ts), "a view keeps what is not so"
            if showing is None:
                assert waits != (view.round is not None), "a stale view sleeps"
                assert view.since_ms is not None
            else:
                assert not waits, "an up-to-date view waits"
            for session in view.sessions:
                _check_session(session, view, showing)
        assert self._waiting.views.keys() <= set(self._by_key.values()), "a view waits for nobody"


def _check_session(session: Session, view: View, showing: Showing | None) -> None:
    assert session.view is view
    assert session.identity == view.identity, "a view of another identity"
    queries = [subscription.query for subscription in session.subscriptions.values()]
    assert queries == list(view.queries), "a view of other queries"
    assert session.holding.numbers == tuple(session.subscriptions), "a session holds other queries"
    assert session.due or not session.removed, "nothing owed though a removal was not told"
    assert not session.answers, "answers are kept from a client that could take them"
    if showing is not None:
        assert not session.due, "an answer or modification is not covered"
        assert not session.holding.differs(showing), "a client was not told of a change"
