"""The live queries there are, and what must be kept of result versions that have ended.

Pure.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from headwater_server.reactive.reruns import RerunLog, report
from headwater_server.reactive.sessions import (
    FOREVER,
    Killed,
    LiveQuery,
    QueryKey,
    QueryResult,
    Session,
    Version,
)
from headwater_server.reactive.tracker import Tracker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from headwater_server.costs import RunCosts
    from headwater_server.reactive.contents import Content, ContentStore
    from headwater_server.reactive.reruns import LiveReport, Writers

_PARKED_QUERY_BYTES = 2_000
"""What a live query with a version costs beside its key, its result and its reads, measured."""


@dataclass(slots=True)
class _Parked:
    """Queries that nobody looks at any more but that are still right, least recently used first."""

    sizes: OrderedDict[LiveQuery, int] = field(default_factory=OrderedDict)
    total_bytes: int = 0


class LiveQueries:
    """All live queries, their versions, and what must be kept of versions that have ended.

    Invariant: a version is in the tracker exactly as long as it has not ended; one that has
    ended is in `ended` or pinned by an open round.

    Attributes:
        heard: Told which versions a batch has ended and as of which ts, if somebody wants to know.
    """

    def __init__(
        self, contents: ContentStore, costs: RunCosts, parked_bytes: int, causes_kept: int = 0
    ) -> None:
        self._contents = contents
        self._costs = costs
        self._parked_bytes = parked_bytes
        self._parked = _Parked()
        self._serial = self._number = 0
        self._reruns = RerunLog(causes_kept)
        self.heard: Callable[[Mapping[Version, bytes], int], None] | None = None
        self.by_key: dict[QueryKey, LiveQuery] = {}
        self.tracker: Tracker[Version] = Tracker()
        self.ended: list[Version] = []

    def subscribe(self, key: QueryKey, session: Session) -> LiveQuery:
        """Return the live query under a key, found or made, with one more subscription of the session."""
        query = self.by_key.get(key)
        if query is None:
            self._number += 1
            query = self.by_key[key] = LiveQuery(key, self._costs.estimate_ms(key.name), self._number)
        elif not query.subscribers:
            self._unpark(query)
        query.subscribers += 1
        query.identities[session.identity] = query.identities.get(session.identity, 0) + 1
        return query

    def unsubscribe(self, query: LiveQuery, session: Session) -> None:
        """Take one subscription of a session away; the query goes, or is parked, with its last one."""
        self._forget_identity(query, session.identity)
        query.subscribers -= 1
        if not query.subscribers:
            self._leave(query)

    def change_identity(self, session: Session, identity: bytes | None, *, internal: bool = False) -> None:
        """Give a session another identity; versions that were for its old one alone go if it was the last."""
        if internal != session.internal:
            session.internal = internal
            for subscription in session.subscriptions.values():
                before_query = subscription.query
                subscription.query = self.subscribe(before_query.key._replace(internal=internal), session)
                self.unsubscribe(before_query, session)
        before, session.identity = session.identity, identity
        for subscription in session.subscriptions.values():
            query = subscription.query
            query.identities[identity] = query.identities.get(identity, 0) + 1
            self._forget_identity(query, before)

    def new_version(
        self, since: int, until: int, private: bool, identity: bytes | None,
        content: Content, journal: bytes | None,
    ) -> Version:  # fmt: skip
        """Make a version that no query holds yet."""
        self._serial += 1
        return Version(self._serial, since, until, private, identity, content, journal)

    def register(self, version: Version, result: QueryResult) -> None:
        """Have a version that some query holds found by the commits that touch what it read."""
        if version.until == FOREVER:
            self.tracker.add(version, result.points, result.ranges)
        else:
            self.ended.append(version)

    def touch(self, keys: Iterable[bytes], ts: int, writers: Writers) -> list[Version]:
        """End the versions that read any of these keys at `ts`; return them, oldest first."""
        hits = self.tracker.matching(keys)
        if not hits:
            return []
        self._reruns.stale(hits, ts, writers)
        if self.heard is not None:
            self.heard(hits, ts)
        stale = sorted(hits, key=lambda version: version.serial)
        for version in stale:
            version.until = ts
            for query in version.homes:
                query.changed()
            self.tracker.remove(version)
        self.ended += stale
        return stale

    def report(
        self, keys: Iterable[QueryKey], identity: bytes | None, published_ts: int, after: int
    ) -> LiveReport:
        """Return how the live queries under these keys get on; see `reruns.report`."""
        queries = [query for key in keys if (query := self.by_key.get(key)) is not None]
        return report(queries, self._reruns, identity, published_ts, after)

    def discard(self, version: Version) -> None:
        """Drop a version that has ended and that no round needs."""
        self._contents.keep(version.content)  # it may be what clients hold: the base of their next delta
        for query in version.homes.copy():
            query.release(version)
            if not query.subscribers:
                self._drop(query)

    def set_killed(self, query: LiveQuery, identity: bytes | None, killed: Killed | None) -> None:
        """Set or clear the error of killed runs; a query that nobody looks at goes when it is cleared."""
        query.changed()
        if killed is not None:
            query.killed[identity] = killed
            return
        query.killed.pop(identity, None)
        if not query.subscribers and not query.killed and query not in self._parked.sizes:
            self._leave(query)

    def _forget_identity(self, query: LiveQuery, identity: bytes | None) -> None:
        """Take one subscription of an identity away, and with the last one what is for it alone."""
        left = query.identities[identity] - 1
        if left:
            query.identities[identity] = left
            return
        del query.identities[identity]
        query.forget(identity)
        for version in list(query.private.get(identity, ())):
            self._release(query, version)

    def _release(self, query: LiveQuery, version: Version) -> None:
        query.release(version)
        if not version.homes and version.until == FOREVER:
            self.tracker.remove(version)

    def _leave(self, query: LiveQuery) -> None:
        """Decide what becomes of a query without subscribers: kept while its pause runs, parked, or dropped."""
        if query.killed:
            return  # else subscribing anew would kill the next worker at once
        versions = query.versions()
        size = _PARKED_QUERY_BYTES + query.key.size_bytes
        for version in versions:
            size += (
                version.content.size_bytes + len(version.journal or b"") + self.tracker.size_bytes(version)
            )
        failed = any(version.content.failure is not None for version in versions)
        live = any(version.until == FOREVER for version in versions)
        if failed or not live or size > self._parked_bytes:
            self._drop(query)
            return
        self._parked.sizes[query] = size
        self._parked.total_bytes += size
        while self._parked.total_bytes > self._parked_bytes:
            self._drop(next(iter(self._parked.sizes)))

    def _unpark(self, query: LiveQuery) -> None:
        self._parked.total_bytes -= self._parked.sizes.pop(query, 0)

    def _drop(self, query: LiveQuery) -> None:
        if query.killed or self.by_key.get(query.key) is not query:
            return
        self._unpark(query)
        del self.by_key[query.key]
        for version in query.versions():
            self._release(query, version)

    def check(self) -> None:
        """Verify the invariants of the class, and that no query is kept for nothing."""
        self.tracker.check()
        held: set[Version] = set()
        for key, query in self.by_key.items():
            assert query.key == key
            assert sum(query.identities.values()) == query.subscribers
            assert query.private.keys() <= query.identities.keys(), "a version for an identity that is gone"
            assert query.subscribers or query.killed or query in self._parked.sizes, (
                "a query is kept for nothing"
            )
            for version in query.versions():
                held.add(version)
                assert version.homes.count(query) == 1, "a version does not know its home"
                assert version.since < version.until, "a version is never right"
                assert (version in self.tracker) == (version.until == FOREVER), "registered and ended differ"
        assert len(self.tracker) == sum(version.until == FOREVER for version in held), "a lost registration"
        assert self._parked.total_bytes == sum(self._parked.sizes.values()) <= self._parked_bytes
        assert not any(query.subscribers for query in self._parked.sizes)
