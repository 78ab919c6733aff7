"""Signs in at the accounts of a bundle and keeps the tokens: what a client's `auth` asks.

account = headwater.AccountClient("http://localhost:4510")
await account.sign_in("ada@example.com", password)
async with headwater.connect("http://localhost:4510", auth=account.fetch_token) as client:
...
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp
from headwater_protocol.errors import (
    ApplicationError,
    HeadwaterError,
    InternalError,
    RequestError,
    error_for,
)

from headwater.client.transport import DEFAULT_PORT, CannotConnectError, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger("headwater.client")

_ANSWER_TIMEOUT_S = 15.0
_ANSWER_BYTES_MAX = 256 * 1024
_PAUSES_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_LEEWAY_S = 30.0
"""A token that ends sooner is not handed out any more."""


class AccountClient:
    """One user's sign-in at the accounts of a bundle.

    Args:
        url: Address of the server.
        path: Below which the routes of the accounts are; as `Accounts(path=…)`, with what routes are served below.
        refresh_token: Of a session that goes on, as `keep` was told it.
        keep: Told each new refresh token, before the old one is void, and None once there is none: for programs that
            are to stay signed in when they start again. Whoever has it is signed in.
    """

    def __init__(
        self,
        url: str,
        *,
        path: str = "/http/auth",
        refresh_token: str | None = None,
        keep: Callable[[str | None], None] = lambda _: None,
    ) -> None:
        parts = urlsplit(url)
        scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
        if scheme not in ("http", "https") or not parts.netloc:
            raise RequestError(f"an address begins with http:// or https://, got {url!r}")
        netloc = parts.netloc if parts.port or scheme == "https" else f"{parts.netloc}:{DEFAULT_PORT}"
        self._address = f"{scheme}://{netloc}{parts.path.rstrip('/')}{path}"
        self._keep = keep
        self._refresh_token = refresh_token
        self._access: tuple[str, float] | None = None  # the token, and until when on the loop's clock
        self._refreshing: asyncio.Task[str | None] | None = None  # while an answer is waited for

    @property
    def is_signed_in(self) -> bool:
        """Whether there is a session, as far as is known here."""
        return self._refresh_token is not None

    async def sign_up(self, name: str, password: str) -> None:
        """Make an account with a name and a password, where accounts have no mail.

        Raises:
            HeadwaterError: It was not made: `application_error` with the data `{"code": "taken"}` if the name is taken.
        """
        await self._begin("sign-up", email=name, password=password)

    async def sign_in(self, email: str, password: str, *, new_password: str | None = None) -> None:
        """Sign in with a password, and choose another one if it is given.

        Raises:
            HeadwaterError: `unauthenticated`: it is wrong; or `rate_limited`, with `{"retry_after_s"}` as its data.
        """
        more = {} if new_password is None else {"new_password": new_password}
        await self._begin("password", email=email, password=password, **more)

    async def request_code(self, email: str) -> str:
        """Have a one-time code sent; returns what `redeem` needs beside it.

        Raises:
            HeadwaterError: As `sign_in`.
        """
        request: str = (await self._post("code", email=email))["request"]
        return request

    async def redeem(self, request: str, code: str, *, password: str | None = None) -> None:
        """Sign in with a one-time code, and choose a password if one is given.

        Args:
            request: What `request_code` returned.
            code: As it was sent.
            password: Ends all other sessions of the account.

        Raises:
            HeadwaterError: As `sign_in`.
        """
        more = {} if password is None else {"password": password}
        await self._begin("redeem", request=request, code=code, **more)

    async def sign_out(self, *, everywhere: bool = False) -> None:
        """End the session, or all sessions of the account; nobody is signed in here from now on, reached or not.

        Raises:
            HeadwaterError: The server could not be told.
        """
        shown = self._refresh_token
        self._forget()
        if shown is not None:
            await self._post("sign-out", refresh_token=shown, everywhere=everywhere)

    async def fetch_token(self, force_refresh: bool = False) -> str | None:
        """Return an access token, None if nobody is signed in; give this method to a client as `auth`.

        Waits for a server that cannot be reached: to give up would sign the user out.
        """
        now_s = asyncio.get_running_loop().time()
        if not force_refresh and self._access is not None and now_s < self._access[1] - _LEEWAY_S:
            return self._access[0]
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._refreshed(), name="headwater-refresh")
        # Who gives up waiting does not lose the answer: the next refresh token is in it.
        return await asyncio.shield(self._refreshing)

    async def _refreshed(self) -> str | None:
        tries = 0
        while (shown := self._refresh_token) is not None:
            try:
                told = await self._post("refresh", refresh_token=shown)
            except HeadwaterError as error:
                if error.code == "unauthenticated":
                    if self._refresh_token == shown:
                        self._forget()
                    continue
                if isinstance(error, RequestError):
                    raise
                log.warning("a token cannot be refreshed now, trying again: %s", error)
                await asyncio.sleep(_PAUSES_S[min(tries, len(_PAUSES_S) - 1)])
                tries += 1
            else:
                if self._refresh_token == shown:  # else somebody has signed out or in meanwhile
                    self._take(told)
                break
        return None if self._access is None else self._access[0]

    async def _begin(self, what: str, **fields: Any) -> None:
        self._take(await self._post(what, **fields))

    def _take(self, told: dict[str, Any]) -> None:
        ends_s = asyncio.get_running_loop().time() + told["expires_in"]
        self._keep(told["refresh_token"])
        self._refresh_token, self._access = told["refresh_token"], (told["access_token"], ends_s)

    def _forget(self) -> None:
        self._refresh_token = self._access = None
        self._keep(None)

    async def _post(self, what: str, **fields: Any) -> dict[str, Any]:
        """Return what a route answers.

        Raises:
            HeadwaterError: An error; CannotConnectError if there is no answer.
        """
        timeout = aiohttp.ClientTimeout(total=_ANSWER_TIMEOUT_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as http,
                http.post(f"{self._address}/{what}", json=fields, allow_redirects=False) as answer,
            ):
                content = await answer.content.read(_ANSWER_BYTES_MAX)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise CannotConnectError(f"no answer from {self._address}: {reason_of(error)}") from None
        if answer.status == 204:
            return {}
        try:
            told = json.loads(content)
        except ValueError:
            told = None
        if not isinstance(told, dict):
            raise InternalError(f"{self._address}/{what} answered {answer.status}, and no JSON")
        if answer.status < 300:
            return told
        raise _error_of(told)


def _error_of(told: dict[str, Any]) -> HeadwaterError:
    """Return the error that a route has answered with; what only accounts answer is one of the application."""
    code, message = str(told.get("code", "")), str(told.get("message", ""))
    if code == "taken":
        return ApplicationError(told, message=message)
    return error_for(
        code, message, {"retry_after_s": told.get("retry_after_s")} if code == "rate_limited" else None
    )
