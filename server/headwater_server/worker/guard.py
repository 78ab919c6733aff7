"""Refuses, inside queries and mutations, what would make them more than a function of the database.

A guard for honest mistakes, not a sandbox: one deployment is one trust domain. It is an
audit hook, so it sees what libraries do as well; hooks cannot be removed again, and this
one does nothing while no call runs.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
from functools import wraps
from typing import TYPE_CHECKING, Any

from headwater_protocol.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

_REFUSED = {
    "subprocess.Popen": "start a process",
    "os.fork": "start a process",
    "os.forkpty": "start a process",
    "os.exec": "start a process",
    "os.spawn": "start a process",
    "os.posix_spawn": "start a process",
    "os.system": "start a process",
    "pty.spawn": "start a process",
    "os.kill": "send a signal",
    "os.killpg": "send a signal",
    "os.remove": "change files",
    "os.rename": "change files",
    "os.mkdir": "change files",
    "os.rmdir": "change files",
    "os.link": "change files",
    "os.symlink": "change files",
    "os.truncate": "change files",
    "os.chmod": "change files",
    "os.chown": "change files",
    "os.utime": "change files",
    "os.setxattr": "change files",
    "os.removexattr": "change files",
}
_THREAD_STARTERS = {
    "start_new_thread",
    "start_new",
    "start_joinable_thread",
    "_start_new_thread",
    "_start_joinable_thread",
}
_SIGNAL_SETTERS = {"alarm", "setitimer", "signal"}
_IN_AN_ACTION = "do it in an action"
_TIME_LIMITS = "`call_time_limit_s` bounds each call; in an action use asyncio.timeout"
_SOCKETS_ALLOWED = frozenset({"socket.gethostname"})


class Guard:
    """Says whether the hook refuses; on while a query or mutation runs.

    Attributes:
        active: Set by `serve` around each call.
    """

    __slots__ = ("active",)

    def __init__(self) -> None:
        self.active = False

    def install(
        self, add_hook: Callable[[Callable[[str, tuple[Any, ...]], None]], None] = sys.addaudithook
    ) -> None:
        """Install the hook in this process, for good."""
        add_hook(self.check)
        for module in (_thread, threading):
            for name in _THREAD_STARTERS & vars(module).keys():
                setattr(module, name, self._refusing(getattr(module, name), "start a thread"))
        for name in _SIGNAL_SETTERS:
            refusing = self._refusing(getattr(signal, name), "set alarms or signal handlers", _TIME_LIMITS)
            setattr(signal, name, refusing)

    def _refusing(
        self, real: Callable[..., Any], deed: str, instead: str = _IN_AN_ACTION
    ) -> Callable[..., Any]:
        """Return a function in the place of one for which Python has no audit event."""

        @wraps(real)
        def refusing(*arguments: Any, **named: Any) -> Any:
            if self.active:
                raise _refusal(deed, instead)
            return real(*arguments, **named)

        return refusing

    def check(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Handle one audit event.

        Raises:
            RequestError: `not_allowed_here`.
        """
        if not self.active:
            return
        if event == "open":
            # os.open() says nothing in its mode, so only the flags tell
            flags = arguments[2]
            if isinstance(flags, int) and flags & _WRITING:
                raise _refusal(f"open {arguments[0]!r} for writing")
            return
        deed = _REFUSED.get(event)
        if deed is not None:
            raise _refusal(deed)
        if event.startswith("socket.") and event not in _SOCKETS_ALLOWED:
            raise _refusal("use the network")
        if event == "sqlite3.connect" and arguments[0] != ":memory:":
            raise _refusal("open another database")


def _refusal(deed: str, instead: str = _IN_AN_ACTION) -> RequestError:
    return RequestError(f"queries and mutations cannot {deed}; {instead}", code="not_allowed_here")
