"""The actions that one client has called: their answers go to the connection that asked, and to no other."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headwater_protocol.messages import ErrorBody
    from headwater_protocol.server_session import ActionRequested, ServerSession

    from headwater_server.functions.actions import ActionHandle, Actions


class SessionActions:
    """The actions of one connection that are not over.

    Args:
        actions: Where they run.
        wire: The connection's protocol session.
        send: Sends frames, in order.
    """

    def __init__(
        self, actions: Actions, wire: ServerSession, send: Callable[[Sequence[bytes]], None]
    ) -> None:
        self._actions = actions
        self._wire = wire
        self._send = send
        self._running: dict[int, ActionHandle] = {}
        self._left = False

    def begin(self, asked: ActionRequested, identity: bytes | None) -> None:
        """Run an action that the client asked for."""
        caller = SessionCaller(self, asked.request)
        handle = self._actions.begin(asked.name, asked.arguments, caller, identity=identity)
        if not caller.over:
            self._running[asked.request] = handle

    def leave(self) -> None:
        """The client is gone: nothing is answered any more."""
        self._left = True
        running, self._running = self._running, {}
        for handle in running.values():
            handle.leave()

    def answer(self, request: int, content: bytes | None, error: ErrorBody | None) -> None:
        """Tell the client how an action ended."""
        self._running.pop(request, None)
        if not self._left:
            self._send((self._wire.action_answer(request, content, error),))


class SessionCaller:
    """Who called one action, by its number on the connection; implements `ActionCaller`.

    Attributes:
        over: Whether the action has ended.
    """

    def __init__(self, actions: SessionActions, request: int) -> None:
        self._actions = actions
        self._request = request
        self.over = False

    def action_piece(self, content: bytes) -> None:
        """None comes: one result was asked for."""

    def action_over(self, content: bytes | None, error: ErrorBody | None) -> None:
        """Answer the client."""
        self.over = True
        self._actions.answer(self._request, content, error)
