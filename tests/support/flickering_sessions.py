"""Client sessions with a rule of optimistic updates taken out, for tests that have to see them fail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headwater_protocol.client_session import ClientSession

if TYPE_CHECKING:
    from headwater_protocol.client_events import ClientEvent
    from headwater_protocol.client_requests import Request
    from headwater_protocol.client_screen import Update


class Early(ClientSession):
    """Drops an update with the answer of its mutation, before the results show the change."""

    def _updates(self) -> Any:
        return ((n, r.update) for n, r in self._requests.items() if r.update and r.success is None)


class Late(ClientSession):
    """Drops an update one step behind the results that show its change."""

    def _settle(self) -> list[ClientEvent]:
        before: list[tuple[int, Update]] = list(self._updates())
        updates, self._updates = self._updates, lambda: iter(before)  # type: ignore[method-assign]
        try:
            return super()._settle()
        finally:
            self._updates = updates  # type: ignore[method-assign]


class Hasty(ClientSession):
    """Shows results although the answer to a mutation that they may have in them was lost."""

    def _send_request(self, request: Request, frame: bytes) -> None:
        super()._send_request(request, frame)
        request.resent = False


class Partial(ClientSession):
    """Shows what a part of the messages that resume it has brought, next to values of the last connection."""

    def _settle(self) -> list[ClientEvent]:
        self._resumed = 0
        return super()._settle()


BROKEN = (Early, Late, Hasty)
