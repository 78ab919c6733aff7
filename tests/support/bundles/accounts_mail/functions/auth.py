from __future__ import annotations

from headwater import (
    ActionCtx,
    Id,
    Index,
    MutationCtx,
    QueryCtx,
    ScheduledJob,
    Table,
    action,
    mutation,
    query,
)
from headwater.accounts import Account, Accounts, OneTimeCode, SignInLimits


class Mail(Table, name="mails"):
    email: str
    code: str
    is_new: bool

    by_email = Index("email")


class Profile(Table, name="profiles"):
    account: Id[Account]

    by_account = Index("account")


@mutation.internal
def put_mail(ctx: MutationCtx, message: OneTimeCode) -> None:
    ctx.db.insert(Mail(email=message.email, code=message.code, is_new=message.is_new))


@action.internal
async def send(ctx: ActionCtx, message: OneTimeCode) -> None:
    await ctx.run_mutation(put_mail, message)


def make_profile(ctx: MutationCtx, account: Account) -> None:
    ctx.db.insert(Profile(account=account.id))


accounts = Accounts(
    send=send,
    created=make_profile,
    access_s=60,
    refresh_grace_s=0,
    limits=SignInLimits(passwords=10, codes=3, addresses=100_000),
)


@query
def mails(ctx: QueryCtx, email: str) -> list[Mail]:
    return ctx.db.query(Mail.by_email, email=email).collect()


@query
def jobs(ctx: QueryCtx) -> str:
    """Return all that is kept of scheduled jobs."""
    return repr(ctx.db.scan(ScheduledJob).collect())


@query
def profiles(ctx: QueryCtx) -> int:
    return len(ctx.db.scan(Profile).collect())


@query
def whoami(ctx: QueryCtx) -> str | None:
    account = accounts.get(ctx)
    return None if account is None else account.email


@query
def subject(ctx: QueryCtx) -> str | None:
    """Look at the identity alone, as a bundle does that knows nothing of accounts."""
    identity = ctx.auth.identity()
    return None if identity is None else identity.subject


@mutation
def leave_everywhere(ctx: MutationCtx) -> None:
    accounts.sign_out_everywhere(ctx, accounts.require(ctx).id)


@mutation
def leave(ctx: MutationCtx) -> None:
    accounts.sign_out(ctx)


@mutation
def delete_me(ctx: MutationCtx) -> None:
    accounts.delete(ctx, accounts.require(ctx).id)


@mutation
def remove_document(ctx: MutationCtx, account: Id[Account]) -> None:
    """Remove an account without its sessions, as a bundle may that does not know better."""
    ctx.db.delete(account)
