"""What the queries of a view show at some ts.

Pure. A view of very many queries sees one of them change at a time, and its sessions hold what the others
show already: neither is worth touching each of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headwater_server.reactive.sessions import LiveQuery, Version

_FEW = 8
"""Changes that are put in one by one."""


class Showing(NamedTuple):
    """One version for each query, in the order of the queries.

    Attributes:
        versions: What they show.
        digests: Of the versions' contents.
        adopted: Places of those whose journal is not that of their query: sessions take it over.
    """

    versions: Sequence[Version]
    digests: tuple[bytes, ...]
    adopted: frozenset[int]

    @classmethod
    def of(cls, queries: Sequence[LiveQuery], versions: Sequence[Version]) -> Showing:
        """Return what these versions are together."""
        adopted = [
            place
            for place, (query, version) in enumerate(zip(queries, versions, strict=True))
            if version.journal != query.key.journal
        ]
        digests = tuple([version.content.digest for version in versions])
        return cls(versions, digests, frozenset(adopted))

    def after(self, queries: Sequence[LiveQuery], changed: Mapping[LiveQuery, Version]) -> Showing:
        """Return this with other versions of some queries."""
        versions, digests, adopted = list(self.versions), list(self.digests), set(self.adopted)
        if len(changed) > _FEW:
            return Showing.of(queries, [changed.get(query) or versions[i] for i, query in enumerate(queries)])
        for query, version in changed.items():
            for place in [place for place, each in enumerate(queries) if each is query]:
                versions[place] = version
                digests[place] = version.content.digest
                adopted.discard(place)
                if version.journal != query.key.journal:
                    adopted.add(place)
        return Showing(versions, tuple(digests), frozenset(adopted))
