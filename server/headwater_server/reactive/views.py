"""Views: what sessions that look at the same thing have in common.

Pure. Whether a session is up to date, waits or takes part in a round follows from its identity and
its live queries alone. Sessions with equal ones share a view, for which that is worked out once,
whether it has one session or thousands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headwater_server.reactive.rounds import Round, Waiting
    from headwater_server.reactive.sessions import LiveQuery, Session, Version

ViewKey = tuple[object, ...]


class View:
    """The sessions of one identity that look at the same live queries, in the same order.

    Attributes:
        key: Identity and live queries.
        queries: Of each of its sessions, in the order of their subscriptions.
        sessions: Those that may be sent something, in the order in which they came.
        since_ms: Since when it has been stale, monotonic; None while it is up to date.
        round: The round it takes part in, if any.
    """

    __slots__ = ("identity", "key", "queries", "round", "sessions", "since_ms")

    def __init__(self, identity: bytes | None, queries: tuple[LiveQuery, ...], key: ViewKey) -> None:
        self.identity = identity
        self.queries = queries
        self.key = key
        self.sessions: dict[Session, None] = {}
        self.since_ms: float | None = None
        self.round: Round | None = None

    def versions_at(self, ts: int) -> list[Version] | None:
        """Return what its queries show at `ts`, in their order; None if one of them has no version there."""
        identity = self.identity
        found = []
        for query in self.queries:
            version = query.version_at(identity, ts)
            if version is None:
                return None
            found.append(version)
        return found


class Views:
    """All views that have a session."""

    def __init__(self) -> None:
        self._by_key: dict[ViewKey, View] = {}

    def join(self, session: Session) -> View:
        """Put a session that has no view into the one that fits it, found or made."""
        queries = tuple([subscription.query for subscription in session.subscriptions.values()])
        key = (session.identity, *queries)
        view = self._by_key.get(key)
        if view is None:
            view = self._by_key[key] = View(session.identity, queries, key)
            for query in queries:
                query.views[view] = None
        view.sessions[session] = None
        session.view = view
        return view

    def leave(self, session: Session) -> View | None:
        """Take a session out of its view and return that; without sessions it is gone."""
        view, session.view = session.view, None
        if view is not None:
            del view.sessions[session]
            if not view.sessions:
                del self._by_key[view.key]
                for query in view.queries:
                    query.views.pop(view, None)
        return view

    def check(self, sessions: Iterable[Session], waiting: Waiting, published_ts: int) -> None:
        """Verify that all know each other, and that each view is up to date, or waits, or is in a round.

        Args:
            sessions: All there are.
            waiting: Which views wait for a round.
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
            waits = view in waiting.views
            versions = view.versions_at(published_ts)
            if versions is None:
                assert waits != (view.round is not None), "a stale view sleeps"
                assert view.since_ms is not None
            else:
                assert not waits, "an up-to-date view waits"
            for session in view.sessions:
                _check_session(session, view, versions)
        assert waiting.views.keys() <= set(self._by_key.values()), "a view waits for nobody"


def _check_session(session: Session, view: View, versions: list[Version] | None) -> None:
    assert session.view is view
    assert session.identity == view.identity, "a view of another identity"
    queries = [subscription.query for subscription in session.subscriptions.values()]
    assert queries == list(view.queries), "a view of other queries"
    assert not session.answers, "answers are kept from a client that could take them"
    if versions is not None:
        assert not session.due, "an answer or modification is not covered"
        assert not session.differs(versions), "a client was not told of a change"
