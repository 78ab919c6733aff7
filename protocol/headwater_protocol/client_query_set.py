"""What a client changes about its query set, until it is sent.

Pure. All that is added and removed until the next frames are taken travels in one message: a page that
subscribes to a hundred queries is answered with one transition, and costs the server one look at the whole set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater_protocol.limits import LIST_ITEMS_MAX
from headwater_protocol.messages import AddQuery, ModifyQuerySet

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater_protocol.client_screen import Query

_REMOVED_BYTES = 9  # of one number in a message, at most


class QuerySet:
    """The query set of one connection after another.

    Args:
        send: Takes a message for the frames.

    Attributes:
        number: Of the last modification, what is not sent yet included; 0 on a new connection.
        frame_limit_bytes: Of a message.
    """

    def __init__(self, send: Callable[[ModifyQuerySet], None], frame_limit_bytes: int) -> None:
        self._send = send
        self.number = 0
        self.frame_limit_bytes = frame_limit_bytes
        self._added: dict[int, AddQuery] = {}
        self._removed: list[int] = []
        self._bytes_left = 0
        self._open = False

    def begin(self) -> None:
        """Begin a modification, which is sent though nothing may come in."""
        self.flush()
        self.number += 1
        self._bytes_left = self.frame_limit_bytes
        self._open = True

    def add(self, number: int, query: Query) -> None:
        """Add a query, as the client has it now."""
        query.carried = True
        self._make_room(query.size_bytes)
        self._added[number] = AddQuery(number, query.name, query.arguments, query.journal, query.digest)

    def remove(self, number: int) -> None:
        """Remove a query that was added; the server need not hear of one that it does not know yet."""
        if self._added.pop(number, None) is None:
            self._make_room(_REMOVED_BYTES)
            self._removed.append(number)

    def flush(self) -> None:
        """Send what has come together: before any other message, whose place behind it counts."""
        if self._open:
            added, removed = tuple(self._added.values()), tuple(self._removed)
            self._added, self._removed, self._open = {}, [], False
            self._send(ModifyQuerySet(self.number - 1, self.number, added, removed))

    def forget(self) -> None:
        """The connection has ended."""
        self.number, self._open = 0, False
        self._added, self._removed = {}, []

    def _make_room(self, size_bytes: int) -> None:
        full = max(len(self._added), len(self._removed)) >= LIST_ITEMS_MAX
        if not self._open or size_bytes > self._bytes_left or full:
            self.begin()
        self._bytes_left -= size_bytes
