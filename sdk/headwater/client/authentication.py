"""Keeps a client signed in: fetches tokens, and another one when the server refuses one or before it ends."""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
import logging
from typing import TYPE_CHECKING, Literal

from headwater_protocol.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    TokenSource = str | Callable[[bool], Awaitable[str | None] | str | None]
    """A token, or what returns one of the sign-in service: told whether it must not be one kept from before."""

AuthState = Literal["nobody", "signing_in", "signed_in"]

log = logging.getLogger("headwater.client")

_FRESH_MAX = 2  # fresh tokens that the server may refuse before the client gives up
_LEEWAY_S = 30.0  # a token is replaced so long before it ends, or after half of what is left
_DELAY_MAX_S = 86_400.0


class Authentication:
    """The sign-in of one client.

    Args:
        ask: Hands a token to the session, None to sign out; and whether it is another one of the same user.
        changed: Called when the state is another one.
        wall_s: Wall clock, seconds since 1970: what tokens speak of.

    Attributes:
        state: Whether somebody is signed in, as far as the server has accepted it.
    """

    def __init__(
        self,
        ask: Callable[[str | None, bool], None],
        changed: Callable[[], None],
        wall_s: Callable[[], float],
    ) -> None:
        self._ask = ask
        self._changed = changed
        self._wall_s = wall_s
        self._source: TokenSource | None = None
        self._has_token = False
        self._user: tuple[object, object] | None = None  # whom the last token names
        self._refused = 0
        self._task: asyncio.Task[None] | None = None
        self._due: asyncio.TimerHandle | None = None
        self._verdict: asyncio.Future[bool] | None = None
        self.state: AuthState = "nobody"

    def begin(self, source: TokenSource) -> asyncio.Future[bool]:
        """Sign in with tokens of a source; the future tells once whether the server has accepted one."""
        self._forget()
        self._source, self._refused = source, 0
        verdict = self._verdict = asyncio.get_running_loop().create_future()
        self._move("signing_in")
        self._fetch(force=False)
        return verdict

    async def first_token(self) -> None:
        """Return once a token has been asked of the source, and has come or not."""
        if self._task is not None:
            await asyncio.wait([self._task])

    def end(self) -> None:
        """Sign out."""
        had_token = self._has_token
        self._forget()
        self._source = None
        self._has_token = had_token
        self._sign_out()

    def close(self) -> None:
        """Ask for nothing any more."""
        self._forget()
        self._source = None

    # ------------------------------------------------------------------ what the server says

    def accepted(self) -> None:
        """The server has accepted what it was asked for."""
        if self._source is not None and self._has_token:
            self._refused = 0
            self._move("signed_in")
            self._tell(signed_in=True)

    def refused(self) -> None:
        """The server has refused what it was asked for."""
        if self._source is None:
            return
        self._refused += 1
        if self._refused <= _FRESH_MAX:
            self._fetch(force=True)
        else:
            self._sign_out()

    def lost(self) -> None:
        """The token that held does so no more."""
        if self._source is not None:
            self._move("signing_in")
            self._fetch(force=True)

    # ------------------------------------------------------------------ tokens

    def _fetch(self, *, force: bool) -> None:
        if self._task is None:  # else what comes is asked for
            self._stop_timer()
            self._task = asyncio.create_task(self._bring(force=force), name="headwater-token")

    async def _bring(self, *, force: bool) -> None:
        token = None
        try:
            token = await self._token(force=force)
        except Exception:
            log.exception("fetching a token failed")
        self._task = None
        if token is None:
            self._sign_out()
            return
        user = user_of(token)
        # The sign-in service may know somebody else meanwhile: no call may go out as that user's.
        refresh = self._has_token and user == self._user
        self._has_token, self._user = True, user
        self._ask(token, refresh)
        self._plan(token)

    async def _token(self, *, force: bool) -> str | None:
        source = self._source
        if source is None or isinstance(source, str):
            return None if force else source
        found = source(force)
        return await found if inspect.isawaitable(found) else found

    def _plan(self, token: str) -> None:
        """Have another token fetched before this one ends."""
        end_s = end_of(token)
        if end_s is not None and not isinstance(self._source, str):
            left_s = max(end_s - self._wall_s(), 0.0)
            delay_s = min(max(left_s - _LEEWAY_S, left_s / 2), _DELAY_MAX_S)
            loop = asyncio.get_running_loop()
            self._due = loop.call_later(delay_s, lambda: self._fetch(force=True))

    def _sign_out(self) -> None:
        self._stop_timer()
        if self._has_token:
            self._has_token = False
            self._ask(None, False)
        self._move("nobody")
        self._tell(signed_in=False)

    def _move(self, state: AuthState) -> None:
        if state != self.state:
            self.state = state
            self._changed()

    def _tell(self, *, signed_in: bool) -> None:
        if self._verdict is not None and not self._verdict.done():
            self._verdict.set_result(signed_in)

    def _forget(self) -> None:
        self._stop_timer()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        self._tell(signed_in=False)
        self._has_token = False  # the next token is another user's

    def _stop_timer(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None


def not_accepted() -> RequestError:
    """Return what `sign_in` raises."""
    return RequestError("there is no token that the server accepts", code="unauthenticated")


def end_of(token: str) -> float | None:
    """Return when a JWT ends, in seconds since 1970; None if it does not say, or is none."""
    end = _claims(token).get("exp")
    return float(end) if isinstance(end, int | float) and not isinstance(end, bool) else None


def user_of(token: str) -> tuple[object, object]:
    """Return issuer and subject of a JWT, unverified; None for what it does not say."""
    claims = _claims(token)
    return claims.get("iss"), claims.get("sub")


def _claims(token: str) -> dict[str, object]:
    try:
        part = token.split(".")[1]
        found = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, IndexError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
