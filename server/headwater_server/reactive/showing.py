"""What the queries of a view show at some ts. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater_server.reactive.sessions import LiveQuery, Version


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
