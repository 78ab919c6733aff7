"""The routes of accounts: what is asked over HTTP, checked and bounded, and the tokens that are answered."""

from __future__ import annotations

import hmac
import re
import unicodedata
from hashlib import sha256
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
from headwater_protocol.errors import ApplicationError, RequestError
from msgspec import Meta, Struct
from msgspec.structs import replace

from headwater.accounts.functions import MODULE
from headwater.accounts.oauth import FlowSecret
from headwater.accounts.passwords import CURRENT, checked_password, normal_password
from headwater.accounts.refresh_tokens import RANDOM_BYTES, SALT_BYTES, RefreshToken
from headwater.accounts.sessions import FirstToken
from headwater.actions import ActionCtx
from headwater.http_fields import Headers
from headwater.http_messages import Request, Response
from headwater.routes import RouteFunction, route
from headwater.values import encode

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from headwater.accounts.accounts import Accounts
    from headwater.accounts.functions import AccountFunctions
    from headwater.accounts.sessions import Opened

_T = TypeVar("_T")

_BODY_BYTES_MAX = 8192
_EMAIL_CHARACTERS_MAX = 254
_REQUEST_BYTES = 32
_WRONG_PASSWORD = "the e-mail address or the password is wrong"
_WRONG_CODE = "the code does not count"
_WRONG_FLOW = "this sign-in was not begun here, or is over; begin again"
_NO_ACCOUNT = "there is no account for this user, and none can be made"

Text = Annotated[str, Meta(max_length=512)]


class _Password(Struct, forbid_unknown_fields=True):
    email: Text
    password: Text
    new_password: Text | None = None


class _Wish(Struct, forbid_unknown_fields=True):
    email: Text


class _Redemption(Struct, forbid_unknown_fields=True):
    request: Text
    code: Text
    password: Text | None = None


class _Shown(Struct, forbid_unknown_fields=True):
    refresh_token: Text


class _Leave(Struct, forbid_unknown_fields=True):
    refresh_token: Text
    everywhere: bool = False


class _FlowWish(Struct, forbid_unknown_fields=True):
    provider: Text
    redirect_uri: Text


class _FlowEnd(Struct, forbid_unknown_fields=True):
    flow: Text
    state: Text
    code: Annotated[str, Meta(max_length=4096)]
    iss: Text | None = None


class AccountRoutes:
    """The routes of one bundle's accounts.

    Args:
        accounts: Whose.
        functions: What they run.
    """

    def __init__(self, accounts: Accounts, functions: AccountFunctions) -> None:
        self._accounts = accounts
        self._functions = functions

    def named(self) -> dict[str, RouteFunction[Any]]:
        """Return the routes by the names they go by in the bundle."""
        served = {"password": self._password, "refresh": self._refresh, "sign-out": self._sign_out}
        if self._accounts.send is not None:
            served |= {"code": self._ask_for_code, "redeem": self._redeem}
        elif self._accounts.sign_up:
            served |= {"sign-up": self._sign_up}
        if self._accounts.providers:
            served |= {"oauth/start": self._start_flow, "oauth/finish": self._finish_flow}
        found: dict[str, RouteFunction[Any]] = {}
        for label, handle in served.items():
            item = self._route(label, handle)
            item.name = f"{MODULE}:{re.sub('[-/]', '_', label)}"
            found[item.name] = item
        return found

    def _route(
        self, label: str, handle: Callable[[ActionCtx, Request], Coroutine[Any, Any, Response]]
    ) -> RouteFunction[Any]:
        @route("POST", f"{self._accounts.path}/{label}", cors=self._accounts.cors)
        async def served(ctx: ActionCtx, request: Request) -> Response:
            try:
                answered = await handle(ctx, request)
            except ApplicationError as error:
                answered = _too_often(error)
            answered.headers = Headers([*answered.headers.pairs, ("Cache-Control", "no-store")])
            return answered

        served.declared.__doc__ = handle.__doc__
        return served

    async def _password(self, ctx: ActionCtx, request: Request) -> Response:
        """Sign in with a password, and change it if a new one comes along."""
        asked = await _body(request, _Password)
        email, password = self._email(asked.email), normal_password(asked.password)
        new = None if asked.new_password is None else checked_password(asked.new_password)
        stored = await ctx.run_mutation(self._functions.password_of, email, counted_address(request.address))
        if not await self._accounts.hasher.fits(password, stored) or stored is None:
            raise RequestError(_WRONG_PASSWORD, code="unauthenticated")
        replaced = new if new is not None else None if stored.startswith(CURRENT) else password
        hashed = None if replaced is None else await self._hashed(ctx, replaced)
        token = self._first(ctx)
        opened = await ctx.run_mutation(
            self._functions.enter, email, stored, hashed, new is not None, _stored(token)
        )
        return await self._tokens(ctx, opened, token, _WRONG_PASSWORD)

    async def _sign_up(self, ctx: ActionCtx, request: Request) -> Response:
        """Make an account with a name and a password."""
        asked = await _body(request, _Password)
        email, password = self._email(asked.email), checked_password(asked.password)
        await ctx.run_mutation(self._functions.password_of, email, counted_address(request.address))
        hashed, token = await self._hashed(ctx, password), self._first(ctx)
        opened = await ctx.run_mutation(self._functions.register, email, hashed, _stored(token))
        if opened is None:
            return Response({"code": "taken", "message": "somebody has this name already"}, status=409)
        return await self._tokens(ctx, opened, token, _WRONG_PASSWORD)

    async def _ask_for_code(self, ctx: ActionCtx, request: Request) -> Response:
        """Have a one-time code sent; `request` of the answer is needed beside it."""
        email = self._email((await _body(request, _Wish)).email)
        secret = ctx._call.backend.random_bytes(_REQUEST_BYTES).hex()
        address = counted_address(request.address)
        await ctx.run_mutation(self._functions.ask_for_code, email, _hash(secret), address)
        return Response({"request": secret, "expires_in": self._accounts.code_s}, status=202)

    async def _redeem(self, ctx: ActionCtx, request: Request) -> Response:
        """Sign in with a one-time code, and choose a password if one comes along."""
        asked = await _body(request, _Redemption)
        password = None if asked.password is None else checked_password(asked.password)
        wish, code = _hash(asked.request), "".join(asked.code.split()).replace("-", "")
        stored = await ctx.run_mutation(self._functions.code_of, wish, counted_address(request.address))
        if not await self._accounts.hasher.fits(code, stored) or stored is None:
            raise RequestError(_WRONG_CODE, code="unauthenticated")
        hashed = None if password is None else await self._hashed(ctx, password)
        token = self._first(ctx)
        opened = await ctx.run_mutation(self._functions.redeem, wish, stored, hashed, _stored(token))
        return await self._tokens(ctx, opened, token, _WRONG_CODE)

    async def _refresh(self, ctx: ActionCtx, request: Request) -> Response:
        """Get another access token, and the refresh token that is to be used next."""
        token = RefreshToken.read((await _body(request, _Shown)).refresh_token)
        family, shown = token.family_hash, token.secret_hash
        # Signed before the token is used up: where nothing can be signed now, it is good for another time.
        session = await ctx.run_query(self._functions.standing_of, family, shown)
        access = None if session is None else await self._access(ctx, session)
        salt = ctx._call.backend.random_bytes(SALT_BYTES)
        opened = await ctx.run_mutation(
            self._functions.refresh, family, shown, token.next(salt).secret_hash, salt
        )
        if opened is None:
            raise RequestError("the refresh token does not count", code="unauthenticated")
        return _answer(access or await self._access(ctx, opened), token.next(opened.salt), opened)

    async def _sign_out(self, ctx: ActionCtx, request: Request) -> Response:
        """End the session of a refresh token, or all of its account."""
        asked = await _body(request, _Leave)
        token = RefreshToken.read(asked.refresh_token)
        await ctx.run_mutation(self._functions.leave, token.family_hash, token.secret_hash, asked.everywhere)
        return Response(status=204)

    async def _start_flow(self, ctx: ActionCtx, request: Request) -> Response:
        """Begin to sign in with another provider: where to send the browser, and what it has to keep meanwhile."""
        asked = await _body(request, _FlowWish)
        oauth = self._accounts.oauth
        provider = oauth.named(asked.provider)
        if asked.redirect_uri not in provider.redirect_uris:
            raise RequestError(
                "redirect_uri is none of those of the bundle, which it has to be to the letter"
            )
        flow = FlowSecret.made(ctx._call.backend.random_bytes(_REQUEST_BYTES))
        address = counted_address(request.address)
        await ctx.run_mutation(
            self._functions.begin_flow, flow.hash, provider.name, asked.redirect_uri, address
        )
        url = await oauth.address_of(provider, asked.redirect_uri, flow)
        return Response({"url": url, "flow": flow.text})

    async def _finish_flow(self, ctx: ActionCtx, request: Request) -> Response:
        """Sign in with what a provider has sent the browser back with."""
        asked = await _body(request, _FlowEnd)
        flow = FlowSecret.read(asked.flow)
        begun = await ctx.run_mutation(self._functions.take_flow, flow.hash)
        if begun is None or not hmac.compare_digest(asked.state.encode(), flow.state.encode()):
            raise RequestError(_WRONG_FLOW, code="unauthenticated")
        name, redirect_uri = begun
        oauth = self._accounts.oauth
        provider = oauth.named(name)
        if asked.iss is not None and asked.iss != provider.issuer:
            raise RequestError(_WRONG_FLOW, code="unauthenticated")
        found = await oauth.person(ctx, provider, redirect_uri, flow, asked.code)
        person = found if found.email is None else replace(found, email=self._provided_email(found.email))
        token = self._first(ctx)
        opened = await ctx.run_mutation(self._functions.enter_with, provider.issuer, person, _stored(token))
        if opened is None:
            return Response({"code": "taken", "message": _NO_ACCOUNT}, status=409)
        return await self._tokens(ctx, opened, token, _WRONG_FLOW)

    def _provided_email(self, text: str) -> str | None:
        """Return the address that a provider tells, None if it is none that an account may be linked by.

        Only ASCII: another mailbox, whose letters look like or are folded to those of one here, is somebody else's.
        """
        if not text.isascii():
            return None
        try:
            return self._email(text)
        except RequestError:
            return None

    async def _tokens(
        self, ctx: ActionCtx, opened: Opened | None, token: RefreshToken, refusal: str
    ) -> Response:
        if opened is None:
            raise RequestError(refusal, code="unauthenticated")
        return _answer(await self._access(ctx, opened), token, opened)

    async def _access(self, ctx: ActionCtx, opened: Opened) -> tuple[str, int]:
        """Return an access token, and how many seconds it lives."""
        left_s = int((opened.ends_ms - ctx.now_ms) / 1000)
        lifetime_s = max(1, min(self._accounts.access_s, left_s))
        claims = encode({"sub": opened.account, "sid": opened.session, **opened.claims})
        return await ctx._call.backend.sign_token(claims, lifetime_s), lifetime_s

    def _email(self, text: str) -> str:
        """Return the one form in which an address, or a name, is kept.

        Raises:
            RequestError: It cannot be one.
        """
        email = unicodedata.normalize("NFKC", text).strip().lower()
        if not 0 < len(email) <= _EMAIL_CHARACTERS_MAX or not email.isprintable() or " " in email:
            raise RequestError("the e-mail address or name is none")
        if self._accounts.send is not None and "@" not in email[1:-1]:
            raise RequestError("the e-mail address is none")
        return email

    def _first(self, ctx: ActionCtx) -> RefreshToken:
        return RefreshToken.made(ctx._call.backend.random_bytes(RANDOM_BYTES))

    async def _hashed(self, ctx: ActionCtx, password: str) -> str:
        return await self._accounts.hasher.hashed(password, ctx._call.backend.random_bytes(16))


def counted_address(address: str) -> str:
    """Return what attempts from a network address are counted under: of IPv6, its /64, which is one customer's."""
    try:
        found = ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(found, IPv6Address) and found.ipv4_mapped is None:
        return f"{IPv6Address(int(found) >> 64 << 64)}/64"
    return str(getattr(found, "ipv4_mapped", None) or found)


async def _body(request: Request, kind: type[_T]) -> _T:
    """Return what is asked; the error names no value, which may be a password."""
    content = await request.body(limit_bytes=_BODY_BYTES_MAX)
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"the body: {error}") from None


def _answer(access: tuple[str, int], token: RefreshToken, opened: Opened) -> Response:
    signed, lifetime_s = access
    return Response(
        {
            "access_token": signed,
            "token_type": "Bearer",
            "expires_in": lifetime_s,
            "refresh_token": token.text,
            "account": opened.account,
        }
    )


def _stored(token: RefreshToken) -> FirstToken:
    return FirstToken(token.family_hash, token.secret_hash)


def _hash(secret: str) -> str:
    return sha256(secret.encode(errors="surrogatepass")).hexdigest()


def _too_often(error: ApplicationError) -> Response:
    """Return the answer to who was refused by a rate limit."""
    data = error.data
    if not isinstance(data, dict) or data.get("kind") != "rate_limited":
        raise error
    wait_s = max(1, round(data["retry_after_s"]))
    told = {"code": "rate_limited", "message": "too many attempts; try again later", "retry_after_s": wait_s}
    return Response(told, status=429, headers={"Retry-After": str(wait_s)})
