from __future__ import annotations

import os

from headwater import ActionCtx, Index, MutationCtx, QueryCtx, Table, action, mutation, query
from headwater.accounts import Account, Accounts, OidcSignIn, OneTimeCode, SignInLimits

ISSUER = os.environ["TEST_ISSUER"]
PAGES = ["http://127.0.0.1/callback"]


class Mail(Table, name="mails"):
    email: str
    code: str

    by_email = Index("email")


@mutation.internal
def put_mail(ctx: MutationCtx, message: OneTimeCode) -> None:
    ctx.db.insert(Mail(email=message.email, code=message.code))


@action.internal
async def send(ctx: ActionCtx, message: OneTimeCode) -> None:
    await ctx.run_mutation(put_mail, message)


def provider(name: str, **more: bool) -> OidcSignIn:
    return OidcSignIn(
        name=name,
        issuer=ISSUER,
        client_id="web",
        client_secret=lambda ctx: "secret-of-web",
        secret_in="post",
        redirect_uris=PAGES,
        **more,
    )


accounts = Accounts(
    send=send,
    providers=[
        provider("test"),
        provider("unbelieved", trusts_email=False),
        OidcSignIn(
            name="phone",
            issuer=ISSUER,
            client_id="phone",
            client_secret=lambda ctx: "a wrong one",
            secret_in="post",
            redirect_uris=PAGES,
        ),
    ],
    limits=SignInLimits(codes=1000, addresses=100_000),
)


@query
def mails(ctx: QueryCtx, email: str) -> list[Mail]:
    return ctx.db.query(Mail.by_email, email=email).collect()


@query
def whoami(ctx: QueryCtx) -> Account | None:
    return accounts.get(ctx)


@mutation
def mistrust(ctx: MutationCtx) -> None:
    """Make the caller's account one whose owner has not shown that the address is theirs."""
    ctx.db.patch(accounts.require(ctx).id, email_verified=False)
