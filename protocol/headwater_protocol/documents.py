"""Documents as they pass from storage to the authoring API, which know nothing of each other.

Pure.
"""

from __future__ import annotations

from typing import NamedTuple


class StoredDocument(NamedTuple):
    """An encoded document as it is stored.

    Attributes:
        document: msgpack map with `_id` and `_creationTime`.
        current: Whether the current shape of its table wrote it; only then may the bytes
            be spliced into a result unread.
    """

    document: bytes
    current: bool
