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

    __slots__ = ("_missing", "identity", "key", "queries", "round", "sessions", "since_ms")

    def __init__(self, identity: bytes | None, queries: tuple[LiveQuery, ...], key: ViewKey) -> None:
        self.identity = identity
        self.queries = queries
        self.key = key
        self.sessions: dict[Session, None] = {}
        self.since_ms: float | None = None
        self.round: Round | None = None
        self._missing: LiveQuery | None = None  # lacked a version when that was last looked for

    def versions_at(self, ts: int) -> list[Version] | None:
        """Return what its queries show at `ts`, in their order; None if one of them has no version there.

        Asked after each run of a round, which goes through the queries from the front: the last one that lacks
        its version does so until the end, and is asked first.
        """
        identity, missing = self.identity, self._missing
        if missing is not None and missing.version_at(identity, ts) is None:
            return None
        found = []
        for query in reversed(self.queries):
            version = query.version_at(identity, ts)
            if version is None:
                self._missing = query
                return None
            found.append(version)
        self._missing = None
        found.reverse()
        return found


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
            versions = view.versions_at(published_ts)
            if versions is None:
                assert waits != (view.round is not None), "a stale view sleeps"
                assert view.since_ms is not None
            else:
                assert not waits, "an up-to-date view waits"
            for session in view.sessions:
                _check_session(session, view, versions)
        assert self._waiting.views.keys() <= set(self._by_key.values()), "a view waits for nobody"


def _check_session(session: Session, view: View, versions: list[Version] | None) -> None:
    assert session.view is view
    assert session.identity == view.identity, "a view of another identity"
    queries = [subscription.query for subscription in session.subscriptions.values()]
    assert queries == list(view.queries), "a view of other queries"
    assert session.holding.numbers == tuple(session.subscriptions), "a session holds other queries"
    assert session.due or not session.removed, "nothing owed though a removal was not told"
    assert not session.answers, "answers are kept from a client that could take them"
    if versions is not None:
        assert not session.due, "an answer or modification is not covered"
        assert not session.holding.differs(queries, versions), "a client was not told of a change"
