"""Who a client is to the server: the tokens that it has asked with, and which of them holds.

Pure; a part of `client_session`. A *sign-in* is what the caller begins with a token, or ends without one; a
*refresh* brings it another token for the same user. Calls belong to the sign-in under which they were made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from headwater_protocol.errors import ProtocolError
from headwater_protocol.messages import Authenticate

if TYPE_CHECKING:
    from collections.abc import Callable

_NONE = -1


class _Attempt(NamedTuple):
    token: str | None
    sign_in: int


class Identity:
    """The identity of one connection after another.

    Args:
        send: Takes a message for the frames.

    Attributes:
        asked: How many times this connection has asked.
        sign_in: Number of the present sign-in; 0 before the first.
        signed_in: Whether that is with a token; else the client is nobody.
    """

    def __init__(self, send: Callable[[Authenticate], None]) -> None:
        self._send = send
        self.asked = 0
        self.sign_in = 0
        self.signed_in = False
        self._holds = _Attempt(None, 0)  # the last accepted one
        self._attempts: dict[int, _Attempt] = {}  # without a verdict, by number
        self._is_first = (
            True  # nobody signed in, and no connection yet: what was called waits for who that will be
        )
        self._known_as = _NONE  # the sign-in that this connection's server has accepted

    @property
    def is_ready(self) -> bool:
        """Whether calls of the present sign-in may be sent: the server would run them as its user's."""
        return not self.signed_in or self._known_as == self.sign_in

    @property
    def waits(self) -> bool:
        """Whether calls wait for a verdict that is on its way."""
        return not self.is_ready and bool(self._attempts)

    def ask(self, token: str | None, *, refresh: bool, now: bool) -> None:
        """Ask for another identity: now if there is a connection, else with the next one."""
        if token is None or not refresh or not self.signed_in:
            if not self._is_first:
                self.sign_in += 1
            self._is_first = False
            self.signed_in = token is not None
        attempt = _Attempt(token, self.sign_in)
        if now:
            self._send_attempt(attempt)
        else:
            self._attempts = {0: attempt}

    def resume(self) -> None:
        """Ask the new connection for the last identity that was asked for."""
        self._is_first = False
        self.asked = 0
        pending = list(self._attempts.values())
        self._attempts = {}
        wanted = pending[-1] if pending else self._holds
        if pending or wanted.token is not None:
            self._holds = _Attempt(None, wanted.sign_in)
            self._send_attempt(wanted)

    def disconnected(self) -> None:
        """The connection has ended: of several attempts only the last still counts."""
        self._known_as = _NONE
        if self._attempts:
            self._attempts = {0: list(self._attempts.values())[-1]}

    def accepted(self, identity: int) -> bool:
        """Take note that values hold under an identity from now on; False if its token was taken back meanwhile."""
        attempt = self._attempts.pop(identity - 1, None)
        for number in [number for number in self._attempts if number < identity]:
            del self._attempts[number]
        if attempt is None:
            self._holds = _Attempt(None, self._holds.sign_in)
            return False
        self._holds = attempt
        self._known_as = max(self._known_as, attempt.sign_in)
        return True

    def refused(self, number: int, reflected: int) -> bool:
        """Take note that an attempt was refused, or that the token which holds does so no more.

        Args:
            number: Of the attempt.
            reflected: Identity of the last transition.

        Returns:
            Whether it was a refusal: the identity stays what it was.

        Raises:
            ProtocolError: It neither waits for a verdict nor holds.
        """
        if self._attempts.pop(number, None) is not None:
            return True
        if number + 1 != reflected or self._holds.token is None:
            raise ProtocolError(f"AuthError: authentication {number} neither waits for a verdict nor holds")
        self._holds = _Attempt(None, self._holds.sign_in)
        if self.signed_in:
            self._known_as = _NONE
        return False

    def _send_attempt(self, attempt: _Attempt) -> None:
        self._attempts[self.asked] = attempt
        self._send(Authenticate(self.asked, attempt.token))
        self.asked += 1
        if attempt.token is None:  # never refused
            self._known_as = attempt.sign_in
