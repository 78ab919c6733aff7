"""Whether who is connected has gone away, while nothing is read from them.

A socket that is not read does not tell of its end: where a client is made to wait with what it sends, its going away
would be found only with the time limit.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

_LOOK_S = 0.5
_TCP_INFO: int | None = getattr(socket, "TCP_INFO", None)  # Linux has it
_ENDED = frozenset({4, 5, 6, 7, 8, 9, 11})  # all states in which the other side has closed, or both have


def has_hung_up(connection: socket.socket) -> bool:
    """Tell whether the other side of a TCP connection has closed it or reset it; no if that cannot be found out."""
    if _TCP_INFO is None:
        return False
    try:
        return connection.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 1)[0] in _ENDED
    except OSError:
        return False


class HangupWatch:
    """Looks now and then at a connection that is not read, and ends it once its client has gone.

    Args:
        transport: Of the connection.
        later: Calls something after so many seconds.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        later: Callable[[float, Callable[[], None]], asyncio.TimerHandle],
    ) -> None:
        self._transport = transport
        self._later = later
        self._timer = later(_LOOK_S, self._look)

    def stop(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def _look(self) -> None:
        transport = self._transport
        if transport.is_closing():
            return
        connection = transport.get_extra_info("socket")
        if not transport.is_reading() and has_hung_up(cast("socket.socket", connection)):
            transport.abort()
            return
        self._timer = self._later(_LOOK_S, self._look)
