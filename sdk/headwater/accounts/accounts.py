"""Sign-in of one's own: accounts, sessions and their tokens as a part of a bundle, without another service.

    accounts = Accounts(send=send_code)

    @query
    def mine(ctx: QueryCtx) -> list[Note]:
        return ctx.db.query(Note.by_owner, owner=accounts.require(ctx).id).collect()

At the top of a module of a bundle it brings tables, routes below `/auth`, and internal functions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headwater_protocol.errors import RequestError
from msgspec import Struct

from headwater.accounts.oauth import OAuthClient, OidcSignIn
from headwater.accounts.passwords import Hasher
from headwater.accounts.sessions import SessionTimes, end_account, end_session, end_sessions
from headwater.accounts.tables import Account
from headwater.actions import ActionCtx, ActionFunction
from headwater.rate_limiter import token_bucket
from headwater.refusals import invalid_bundle
from headwater.routes import Cors

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from headwater.context import MutationCtx, QueryCtx
    from headwater.fields import Id

_MINUTE_S = 60
_HOUR_S = 60 * _MINUTE_S
_DAY_S = 24 * _HOUR_S
_YEAR_S = 366 * _DAY_S


class OneTimeCode(Struct, frozen=True):
    """What is to be sent to somebody who wants to sign in.

    Attributes:
        email: Whom to.
        code: Eight digits; write them as they are, or into a link to a page of yours.
        is_new: There is no account with this address yet.
    """

    email: str
    code: str
    is_new: bool


@dataclass(frozen=True, slots=True)
class SignInLimits:
    """How often somebody may try, in an hour; as much as that at once after a pause.

    Attributes:
        passwords: Passwords for one e-mail address, right ones as well.
        codes: Codes sent to one e-mail address.
        addresses: Passwords, codes and requests for codes from one network address; of IPv6 one /64.
        code_attempts: How often one code may be tried, not in an hour but in all.
    """

    passwords: int = 20
    codes: int = 5
    addresses: int = 300
    code_attempts: int = 5


class Accounts:
    """Accounts of a bundle; one at the top of a module.

    Args:
        send: An action of the bundle that sends a code to an e-mail address. Without it nobody can show that an
            address is theirs: accounts are then made by a name and a password, at `/auth/sign-up`.
        sign_up: Whether people may make accounts for themselves.
        providers: With whom people may sign in besides.
        created: Called for each new account in the mutation that makes it, as to make a document of the bundle's own
            for it. What it raises keeps the account from being made.
        access_s: Life of an access token.
        session_s: How long a session goes on at most.
        idle_s: How long it goes on without being used.
        refresh_grace_s: How long the answer to a refresh can be asked for again with the same token, for clients that
            have not got it. Later, or if the next one was used already, that ends the session.
        code_s: Life of a one-time code.
        limits: How often somebody may try.
        path: Below which its routes are.
        cors: Which pages may use them; all by default: they need no cookies.

    Raises:
        RequestError: `invalid_bundle`.
    """

    def __init__(
        self,
        *,
        send: Callable[[ActionCtx, OneTimeCode], Coroutine[Any, Any, None]] | None = None,
        sign_up: bool = True,
        providers: Sequence[OidcSignIn] = (),
        created: Callable[[MutationCtx, Account], None] | None = None,
        access_s: int = 10 * _MINUTE_S,
        session_s: int = 90 * _DAY_S,
        idle_s: int = 30 * _DAY_S,
        refresh_grace_s: int = 30,
        code_s: int = 10 * _MINUTE_S,
        limits: SignInLimits | None = None,
        path: str = "/auth",
        cors: Cors | None = None,
    ) -> None:
        if send is not None and not isinstance(send, ActionFunction):
            raise invalid_bundle(
                f"Accounts: send is an @action.internal that takes a OneTimeCode, got {send!r}"
            )
        for name, seconds, least, most in (
            ("access_s", access_s, _MINUTE_S, _DAY_S),
            ("session_s", session_s, _MINUTE_S, 10 * _YEAR_S),
            ("idle_s", idle_s, _MINUTE_S, 10 * _YEAR_S),
            ("refresh_grace_s", refresh_grace_s, 0, 2 * _MINUTE_S),
            ("code_s", code_s, _MINUTE_S, _HOUR_S),
        ):
            if not isinstance(seconds, int) or isinstance(seconds, bool) or not least <= seconds <= most:
                raise invalid_bundle(
                    f"Accounts: {name} is a whole number from {least} to {most}, got {seconds!r}"
                )
        chosen = limits or SignInLimits()
        if not 1 <= chosen.code_attempts <= 100:
            raise invalid_bundle(f"Accounts: code_attempts is from 1 to 100, got {chosen.code_attempts!r}")
        if len({provider.name for provider in providers}) < len(providers):
            raise invalid_bundle("Accounts: two of its providers have one name")
        self.send: ActionFunction[[OneTimeCode], None] | None = send
        self.sign_up = sign_up
        self.providers = tuple(providers)
        self.oauth = OAuthClient(self.providers)
        self.created = created
        self.access_s = access_s
        self.code_s = code_s
        self.code_attempts = chosen.code_attempts
        self.times = SessionTimes(session_s, idle_s, refresh_grace_s)
        self.path = path
        self.cors = cors or Cors(origins="*")
        self.hasher = Hasher()
        self.password_limit = token_bucket("auth/passwords", rate=chosen.passwords, period_s=_HOUR_S)
        self.code_limit = token_bucket("auth/codes", rate=chosen.codes, period_s=_HOUR_S)
        self.address_limit = token_bucket("auth/addresses", rate=chosen.addresses, period_s=_HOUR_S)

    def __repr__(self) -> str:
        return f"<accounts at {self.path}>"

    def get(self, ctx: QueryCtx) -> Account | None:
        """Return the account of the caller, None if nobody is signed in or by another provider."""
        identity = ctx.auth.identity()
        if identity is None or identity.session is None:
            return None
        account = ctx.db.normalize_id(Account, identity.subject)
        return None if account is None else ctx.db.get(account)

    def require(self, ctx: QueryCtx) -> Account:
        """Return the account of the caller.

        Raises:
            RequestError: `unauthenticated`: there is none.
        """
        account = self.get(ctx)
        if account is None:
            raise RequestError("sign in to do this", code="unauthenticated")
        return account

    def sign_out_everywhere(self, ctx: MutationCtx, account: Id[Account]) -> None:
        """End all sessions of an account: with this commit nobody is known as it any more."""
        end_sessions(ctx, account)

    def sign_out(self, ctx: MutationCtx) -> None:
        """End the session of the caller."""
        identity = ctx.auth.identity()
        if identity is not None and identity.session:
            end_session(ctx, identity.session)  # type: ignore[arg-type]  # the id of a session

    def delete(self, ctx: MutationCtx, account: Id[Account]) -> None:
        """Remove an account, its sessions, passwords and codes."""
        end_account(ctx, account)
