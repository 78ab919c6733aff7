"""The functions that accounts bring into their bundle. All are internal: routes run them, clients cannot."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any

from headwater_protocol.errors import RequestError

from headwater.accounts.accounts import OneTimeCode
from headwater.accounts.oauth import Person
from headwater.accounts.sessions import (
    FirstToken,
    Opened,
    end_session,
    end_sessions,
    go_on,
    open_session,
    standing,
    sweep,
)
from headwater.accounts.tables import Account, Code, Flow, Login, Refresh
from headwater.actions import ActionCtx
from headwater.authoring import action, mutation, query
from headwater.context import MutationCtx, QueryCtx
from headwater.crons import DeclaredCron
from headwater.fields import Id
from headwater.schedules import every

if TYPE_CHECKING:
    from headwater.accounts.accounts import Accounts
    from headwater.context import RegisteredFunction

MODULE = "headwater_accounts"
"""Stands in the names of these functions where others have their module."""

_CODE_DIGITS = 8
_OPEN_CODES_MAX = 8
_FLOW_S = 600
_CRON = "headwater_accounts:sweep"


class AccountFunctions:
    """The functions of one bundle's accounts.

    Args:
        accounts: Whose.
    """

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self._make_passwords()
        self._make_codes()
        self._make_redemption()
        self._make_sessions()
        self._make_flows()

    def named(self) -> dict[str, RegisteredFunction]:
        """Return them by the names they go by in the bundle."""
        found: dict[str, Any] = {name: item for name, item in vars(self).items() if name[0] != "_"}
        return {f"{MODULE}:{name}": item for name, item in found.items()}

    def crons(self) -> list[DeclaredCron]:
        """Return what runs again and again."""
        return [DeclaredCron(_CRON, every(hours=1), self.clean, (), {})]

    def _make_passwords(self) -> None:
        accounts = self._accounts

        @mutation.internal
        def password_of(ctx: MutationCtx, email: str, address: str) -> str | None:
            """Count an attempt, and return the hash that the password has to have."""
            accounts.address_limit.take(ctx, address)
            accounts.password_limit.take(ctx, email)
            login = ctx.db.query(Login.by_value, kind="email", value=email).first()
            return None if login is None else login.password

        @mutation.internal
        def enter(
            ctx: MutationCtx,
            email: str,
            seen: str,
            password: str | None,
            ends_others: bool,
            first: FirstToken,
        ) -> Opened | None:
            """Begin a session of somebody whose password is right, unless it has been changed since it was looked at.

            Another hash of it, or of a new one, takes its place if there is one.
            """
            login = ctx.db.query(Login.by_value, kind="email", value=email).first()
            account = None if login is None else ctx.db.get(login.account)
            if login is None or account is None or login.password != seen:
                return None
            if password is not None:
                ctx.db.patch(login.id, password=password)
            if ends_others:
                end_sessions(ctx, account.id)
            return open_session(ctx, account, first, accounts.times)

        @mutation.internal
        def register(ctx: MutationCtx, email: str, password: str, first: FirstToken) -> Opened | None:
            """Make an account that nobody has shown an address for; None if there is one of that name."""
            if ctx.db.query(Login.by_value, kind="email", value=email).first() is not None:
                return None
            account = _made(ctx, accounts, email, is_verified=False, password=password)
            return open_session(ctx, account, first, accounts.times)

        self.password_of, self.enter, self.register = password_of, enter, register

    def _make_codes(self) -> None:
        accounts = self._accounts

        @mutation.internal
        def ask_for_code(ctx: MutationCtx, email: str, request: str, address: str) -> None:
            """Have a code sent, whoever it is for: the answer says nothing about that."""
            accounts.address_limit.take(ctx, address)
            accounts.code_limit.take(ctx, email)
            for old in (
                ctx.db.query(Code.by_email, email=email).order("desc").collect()[_OPEN_CODES_MAX - 1 :]
            ):
                ctx.db.delete(old.id)
            ends_ms = ctx.now_ms + accounts.code_s * 1000
            code = ctx.db.insert(Code(email=email, request=request, ends_ms=ends_ms))
            ctx.scheduler.run_after(0, deliver, code)

        @action.internal
        async def deliver(ctx: ActionCtx, code: Id[Code]) -> None:
            """Make the code and have it sent: here, so that it stands in no job and in no document."""
            random_bytes = ctx._call.backend.random_bytes
            digits = f"{int.from_bytes(random_bytes(16)) % 10**_CODE_DIGITS:0{_CODE_DIGITS}}"
            hashed = await accounts.hasher.hashed(digits, random_bytes(16))
            known = await ctx.run_mutation(arm, code, hashed)
            if known is not None and accounts.send is not None:
                email, is_new = known
                await ctx.run_action(accounts.send, OneTimeCode(email, digits, is_new))

        @mutation.internal
        def arm(ctx: MutationCtx, code: Id[Code], hashed: str) -> tuple[str, bool] | None:
            """Let a code count; return whom to send it to, and whether they have no account; None: nobody."""
            row = ctx.db.get(code)
            if row is None:
                return None
            is_new = ctx.db.query(Login.by_value, kind="email", value=row.email).first() is None
            if is_new and not accounts.sign_up:
                return None
            ctx.db.patch(code, code=hashed)
            return row.email, is_new

        self.ask_for_code, self.deliver, self.arm = ask_for_code, deliver, arm

    def _make_redemption(self) -> None:
        accounts = self._accounts

        @mutation.internal
        def code_of(ctx: MutationCtx, request: str, address: str) -> str | None:
            """Count an attempt, and return the hash that the code has to have; None if there is no such code any more."""
            accounts.address_limit.take(ctx, address)
            row = ctx.db.query(Code.by_request, request=request).first()
            if row is None or row.code is None or ctx.now_ms >= row.ends_ms:
                return None
            if row.attempts >= accounts.code_attempts:
                return None
            ctx.db.patch(row.id, attempts=row.attempts + 1)
            return row.code

        @mutation.internal
        def redeem(
            ctx: MutationCtx, request: str, seen: str, password: str | None, first: FirstToken
        ) -> Opened | None:
            """Begin a session of somebody whose code is right; the code counts no more.

            Without an account they get one. A new password ends all other sessions.
            """
            row = ctx.db.query(Code.by_request, request=request).first()
            if row is None or row.code != seen:
                return None
            ctx.db.delete(row.id)
            login = ctx.db.query(Login.by_value, kind="email", value=row.email).first()
            if login is None:
                if not accounts.sign_up:
                    return None
                account = _made(ctx, accounts, row.email, is_verified=True, password=password)
                return open_session(ctx, account, first, accounts.times)
            known = ctx.db.get(login.account)
            if known is None:
                return None
            if not known.email_verified:
                # Whoever chose the password has not shown that the address is theirs.
                ctx.db.patch(known.id, email_verified=True)
                ctx.db.patch(login.id, password=None)
                end_sessions(ctx, known.id)
            if password is not None:
                ctx.db.patch(login.id, password=password)
                end_sessions(ctx, known.id)
            return open_session(ctx, ctx.db.get(known.id) or known, first, accounts.times)

        self.code_of, self.redeem = code_of, redeem

    def _make_sessions(self) -> None:
        accounts = self._accounts

        @query.internal
        def standing_of(ctx: QueryCtx, family: str, shown: str) -> Opened | None:
            """Return what a refresh token would go on with."""
            return standing(ctx, family, shown, accounts.times)

        @mutation.internal
        def refresh(ctx: MutationCtx, family: str, shown: str, following: str, salt: bytes) -> Opened | None:
            """Go on with a session."""
            return go_on(ctx, family, shown, following, salt, accounts.times)

        @mutation.internal
        def leave(ctx: MutationCtx, family: str, shown: str, everywhere: bool) -> None:
            """End the session of a refresh token, and all of its account if that is asked for."""
            row = ctx.db.query(Refresh.by_family, family=family).first()
            if row is None:
                return
            session = ctx.db.get(row.session)
            end_session(ctx, row.session)
            if everywhere and session is not None and hmac.compare_digest(shown, row.current):
                end_sessions(ctx, session.account)

        @mutation.internal
        def clean(ctx: MutationCtx) -> None:
            """Remove what has ended."""
            sweep(ctx)

        self.standing_of, self.refresh = standing_of, refresh
        self.leave, self.clean = leave, clean

    def _make_flows(self) -> None:
        accounts = self._accounts

        @mutation.internal
        def begin_flow(ctx: MutationCtx, secret: str, provider: str, redirect_uri: str, address: str) -> None:
            """Remember what a browser has begun."""
            accounts.address_limit.take(ctx, address)
            ends_ms = ctx.now_ms + _FLOW_S * 1000
            ctx.db.insert(Flow(secret=secret, provider=provider, redirect_uri=redirect_uri, ends_ms=ends_ms))

        @mutation.internal
        def take_flow(ctx: MutationCtx, secret: str) -> tuple[str, str] | None:
            """Return provider and redirect address of a flow, once."""
            flow = ctx.db.query(Flow.by_secret, secret=secret).first()
            if flow is None:
                return None
            ctx.db.delete(flow.id)
            return None if ctx.now_ms >= flow.ends_ms else (flow.provider, flow.redirect_uri)

        @mutation.internal
        def enter_with(ctx: MutationCtx, issuer: str, person: Person, first: FirstToken) -> Opened | None:
            """Begin a session of somebody whom a provider knows; None if there can be no account for them."""
            account = _account_of(ctx, accounts, issuer, person)
            return None if account is None else open_session(ctx, account, first, accounts.times)

        self.begin_flow, self.take_flow, self.enter_with = begin_flow, take_flow, enter_with


def _account_of(ctx: MutationCtx, accounts: Accounts, issuer: str, person: Person) -> Account | None:
    """Return the account of somebody whom a provider knows: found, linked or made.

    It is linked to one that is there by an e-mail address alone which both have shown to be theirs: the provider says
    so, and whoever has the account has proved it here.
    """
    known = ctx.db.query(Login.by_value, kind=issuer, value=person.subject).first()
    if known is not None:
        return ctx.db.get(known.account)
    email = person.email if person.email_verified else None
    same = None if email is None else ctx.db.query(Login.by_value, kind="email", value=email).first()
    if same is not None:
        account = ctx.db.get(same.account)
        if account is None or not account.email_verified:
            return None
    elif accounts.sign_up:
        account = _made(ctx, accounts, email, is_verified=email is not None, name=person.name)
    else:
        return None
    ctx.db.insert(Login(kind=issuer, value=person.subject, account=account.id))
    return account


def _made(
    ctx: MutationCtx,
    accounts: Accounts,
    email: str | None,
    *,
    is_verified: bool,
    password: str | None = None,
    name: str | None = None,
) -> Account:
    account = ctx.db.insert(Account(email=email, email_verified=is_verified, name=name))
    if email is not None:
        ctx.db.insert(Login(kind="email", value=email, account=account, password=password))
    made = ctx.db.get(account)
    if made is None:
        raise RequestError("the account was not made")
    if accounts.created is not None:
        accounts.created(ctx, made)
    return made
