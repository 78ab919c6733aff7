"""The actions that one client has called: their pieces and answers go to the connection that asked, and to no other."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from headwater_server.observe.traces import span_context

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headwater_protocol.messages import ErrorBody
    from headwater_protocol.server_events import ActionRequested

    from headwater_server.functions.actions import ActionHandle, Actions
    from headwater_server.net.dialect import AddLines, WireSession


class SessionActions:
    """The actions of one connection that are not over.

    Pieces for a client that does not read wait here, and the answers behind them. Windows bound those of each
    action, a limit those of all.

    Args:
        actions: Where they run.
        wire: The connection's protocol session.
        session: The client's name across connections.
        send: Sends frames, in order.
        is_blocked: Tells whether the client does not read at present.
        held_bytes_max: Bytes of frames that may wait.
        overflowed: Called when more do; it ends the connection.
        answered: Called when one has been answered.
        with_lines: Adds to an answer what its call printed; None: the client is not told.
    """

    def __init__(
        self,
        actions: Actions,
        wire: WireSession,
        session: bytes,
        send: Callable[[Sequence[bytes]], None],
        is_blocked: Callable[[], bool],
        held_bytes_max: int,
        overflowed: Callable[[], None],
        answered: Callable[[], None],
        with_lines: AddLines | None = None,
    ) -> None:
        self._actions = actions
        self._wire = wire
        self._session = session
        self._send = send
        self._is_blocked = is_blocked
        self._held_bytes_max = held_bytes_max
        self._overflowed = overflowed
        self._answered = answered
        self._with_lines = with_lines
        self._running: dict[int, ActionHandle] = {}
        self._held: deque[bytes] = deque()
        self._held_bytes = 0
        self._left = False

    def begin(self, asked: ActionRequested, identity: bytes | None, *, internal: bool) -> None:
        """Run an action that the client asked for."""
        caller = SessionCaller(self, asked.request, streams=asked.window > 0)
        handle = self._actions.begin(
            asked.name,
            asked.arguments,
            caller,
            identity=identity,
            internal=internal,
            window=asked.window,
            session=self._session,
            parent=span_context(asked.traceparent),
        )
        if not caller.over:
            self._running[asked.request] = handle

    def credit(self, request: int, size: int) -> None:
        """The client has taken pieces of that size."""
        handle = self._running.get(request)
        if handle is not None:
            handle.credit(size)

    def cancel(self, request: int) -> None:
        """The client does not wait for an action any more; it is answered all the same."""
        handle = self._running.get(request)
        if handle is not None:
            handle.leave()

    def leave(self) -> None:
        """The client is gone: nothing is answered any more."""
        self._left = True
        self._held.clear()
        self._held_bytes = 0
        running, self._running = self._running, {}
        for handle in running.values():
            handle.leave()

    def resume(self) -> None:
        """Go on sending: the client reads again."""
        while self._held and not self._is_blocked():
            frame = self._held.popleft()
            self._held_bytes -= len(frame)
            self._send((frame,))

    def piece(self, request: int, content: bytes) -> None:
        """Send a piece of an action."""
        if not self._left:
            self._hold_or_send(self._wire.action_piece(request, content))

    def answer(self, request: int, content: bytes | None, error: ErrorBody | None, *, streams: bool) -> None:
        """Tell the client how an action ended, behind its last piece."""
        handle = self._running.pop(request, None)
        if self._left:
            return
        frame = self._wire.action_answer(request, content, error)
        if self._with_lines is not None and handle is not None and handle.lines:
            frame = self._with_lines(frame, handle.lines)
        if streams:
            self._hold_or_send(frame)
        else:
            self._send((frame,))
        self._answered()

    def _hold_or_send(self, frame: bytes) -> None:
        if self._held or self._is_blocked():
            self._held.append(frame)
            self._held_bytes += len(frame)
            if self._held_bytes > self._held_bytes_max:
                self._overflowed()
        else:
            self._send((frame,))


class SessionCaller:
    """Who called one action, by its number on the connection; implements `ActionCaller`.

    Attributes:
        over: Whether the action has ended.
    """

    def __init__(self, actions: SessionActions, request: int, *, streams: bool) -> None:
        self._actions = actions
        self._request = request
        self._streams = streams
        self.over = False

    def action_piece(self, content: bytes) -> None:
        """Send it."""
        self._actions.piece(self._request, content)

    def action_over(self, content: bytes | None, error: ErrorBody | None) -> None:
        """Answer the client."""
        self.over = True
        self._actions.answer(self._request, content, error, streams=self._streams)
