"""Functions of signed-in users: a decorator that requires one, and what tokens claim."""

from headwater import ApplicationError, Id, Identity, MutationCtx, QueryCtx, mutation, query

from .schema import User
from .users import UserQueryCtx, current_user, user_query


class SignedInQueryCtx(QueryCtx):
    def __init__(self, ctx: QueryCtx) -> None:
        super().__init__(ctx)
        self.identity = ctx.auth.require()


class AdminQueryCtx(UserQueryCtx):
    def __init__(self, ctx: UserQueryCtx) -> None:
        super().__init__(ctx)
        if "admin" not in ctx.auth.require().claims.get("roles", ()):
            raise ApplicationError({"code": "not_an_admin"})


signed_in_query = query.using(SignedInQueryCtx)
admin_query = user_query.using(AdminQueryCtx)


@signed_in_query
def about_me(ctx: SignedInQueryCtx) -> dict[str, str | None]:
    identity: Identity = ctx.identity
    verified: bool = identity.email_verified
    changed: float | None = identity.updated_at_s
    return {
        "name": identity.name or identity.preferred_username,
        "email": identity.email if verified else None,
        "picture": identity.picture_url,
        "changed": str(changed),
    }


@admin_query
def everybody(ctx: AdminQueryCtx) -> list[User]:
    return ctx.db.scan(User).take(100) if ctx.user else []


@mutation
def rename(ctx: MutationCtx, name: str) -> Id[User]:
    user = current_user(ctx)
    if user is None:
        raise ApplicationError({"code": "signed_out", "of": ctx.auth.require().token_identifier})
    ctx.db.patch(user.id, name=name)
    return user.id
