"""Sessions of accounts: begun, gone on with by refresh tokens, and ended. All of it in the mutation of its caller."""

from __future__ import annotations

import hmac
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from headwater.accounts.tables import Account, Code, Flow, Login, Refresh, Session
from headwater.fields import Id

if TYPE_CHECKING:
    from headwater.context import MutationCtx, QueryCtx

logger = logging.getLogger("headwater.accounts")

_SWEPT_MAX = 500


@dataclass(frozen=True, slots=True)
class SessionTimes:
    """How long sessions go on.

    Attributes:
        session_s: At most.
        idle_s: Without being used.
        grace_s: So long an answer to a refresh can be asked for again.
    """

    session_s: int
    idle_s: int
    grace_s: int


class FirstToken(Struct, frozen=True):
    """What is stored of the refresh token that a session begins with: hashes."""

    family: str
    secret: str


class Opened(Struct, frozen=True):
    """A session, for who signs its tokens.

    Attributes:
        session: Its id.
        account: Whose it is.
        ends_ms: When it ends at the latest.
        claims: What its tokens say of the account.
        salt: With what the next refresh token follows from the one that was shown.
    """

    session: Id[Session]
    account: Id[Account]
    ends_ms: float
    claims: dict[str, Any]
    salt: bytes = b""


def open_session(ctx: MutationCtx, account: Account, first: FirstToken, times: SessionTimes) -> Opened:
    """Begin a session."""
    now_ms = ctx.now_ms
    ends_ms = now_ms + times.session_s * 1000
    session = ctx.db.insert(Session(account=account.id, ends_ms=ends_ms))
    ctx.db.insert(
        Refresh(
            session=session,
            family=first.family,
            current=first.secret,
            previous="",
            salt=b"",
            rotated_ms=now_ms,
            idle_ends_ms=min(ends_ms, now_ms + times.idle_s * 1000),
        )
    )
    return Opened(session, account.id, ends_ms, _claims(account))


def standing(ctx: QueryCtx, family: str, shown: str, times: SessionTimes) -> Opened | None:
    """Return the session that a refresh token would go on with now; nothing is used up. As `go_on`."""
    row = ctx.db.query(Refresh.by_family, family=family).first()
    session = None if row is None else ctx.db.get(row.session)
    account = None if session is None else ctx.db.get(session.account)
    now_ms = ctx.now_ms
    if row is None or session is None or account is None or now_ms >= row.idle_ends_ms:
        return None
    if not hmac.compare_digest(shown, row.current) and not _is_repeated(row, shown, now_ms, times):
        return None
    return Opened(session.id, account.id, session.ends_ms, _claims(account))


def go_on(
    ctx: MutationCtx, family: str, shown: str, following: str, salt: bytes, times: SessionTimes
) -> Opened | None:
    """Take a refresh token and put the next one in its place.

    One that was used before ends the session: two have it, and nobody can say who of them is the thief. Only the
    last one that was used gives its answer once more for `grace_s`, as an answer may have been lost, or two windows of
    one browser may have come at once.

    Args:
        ctx: Of the mutation, which must commit.
        family: Hash of what the tokens of a session have in common.
        shown: Hash of the secret of the one that is shown.
        following: Hash of the secret of the one that is to follow.
        salt: With which it follows.
        times: How long sessions go on.

    Returns:
        The session; None if there is none any more.
    """
    row = ctx.db.query(Refresh.by_family, family=family).first()
    session = None if row is None else ctx.db.get(row.session)
    account = None if session is None else ctx.db.get(session.account)
    if row is None:
        return None
    now_ms = ctx.now_ms
    if session is None or account is None or now_ms >= row.idle_ends_ms:
        end_session(ctx, row.session)
        return None
    if hmac.compare_digest(shown, row.current):
        idle_ends_ms = min(session.ends_ms, now_ms + times.idle_s * 1000)
        ctx.db.patch(
            row.id,
            current=following,
            previous=shown,
            salt=salt,
            rotated_ms=now_ms,
            idle_ends_ms=idle_ends_ms,
        )
    elif _is_repeated(row, shown, now_ms, times):
        salt = row.salt
    else:
        logger.warning("a refresh token was used a second time; its session is ended")
        end_session(ctx, row.session)
        return None
    return Opened(session.id, account.id, session.ends_ms, _claims(account), salt)


def end_session(ctx: MutationCtx, session: Id[Session]) -> None:
    """End a session, if it goes on: with this commit its tokens say nothing any more."""
    for row in ctx.db.query(Refresh.by_session, session=session).collect():
        ctx.db.delete(row.id)
    if ctx.db.get(session) is not None:
        ctx.db.delete(session)


def end_sessions(ctx: MutationCtx, account: Id[Account]) -> None:
    """End all sessions of an account."""
    for session in ctx.db.query(Session.by_account, account=account).collect():
        end_session(ctx, session.id)


def end_account(ctx: MutationCtx, account: Id[Account]) -> None:
    """Remove an account with all that belongs to it."""
    end_sessions(ctx, account)
    for login in ctx.db.query(Login.by_account, account=account).collect():
        if login.kind == "email":
            for code in ctx.db.query(Code.by_email, email=login.value).collect():
                ctx.db.delete(code.id)
        ctx.db.delete(login.id)
    if ctx.db.get(account) is not None:
        ctx.db.delete(account)


def sweep(ctx: MutationCtx) -> None:
    """Remove some of what has ended."""
    now_ms = ctx.now_ms
    for row in ctx.db.query(Refresh.by_idle_end).range(Refresh.idle_ends_ms).lt(now_ms).take(_SWEPT_MAX):
        end_session(ctx, row.session)
    for flow in ctx.db.query(Flow.by_end).range(Flow.ends_ms).lt(now_ms).take(_SWEPT_MAX):
        ctx.db.delete(flow.id)
    for code in ctx.db.query(Code.by_end).range(Code.ends_ms).lt(now_ms).take(_SWEPT_MAX):
        ctx.db.delete(code.id)


def _is_repeated(row: Refresh, shown: str, now_ms: float, times: SessionTimes) -> bool:
    """Tell whether the token that was used last is shown again, soon enough."""
    return hmac.compare_digest(shown, row.previous) and now_ms - row.rotated_ms < times.grace_s * 1000


def _claims(account: Account) -> dict[str, Any]:
    told = {"email": account.email, "email_verified": account.email_verified, "name": account.name}
    return {name: value for name, value in told.items() if value is not None}
