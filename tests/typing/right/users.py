from datetime import UTC, datetime

from headwater import ApplicationError, Id, MutationCtx, QueryCtx, mutation, query

from .schema import User

LAUNCH = datetime(2026, 1, 1, tzinfo=UTC)


def current_user(ctx: QueryCtx) -> User | None:
    """A function for functions: takes a QueryCtx, works from mutations as well."""
    identity = ctx.auth.identity()
    return ctx.db.query(User.by_token, token=identity.token_identifier).unique() if identity else None


def require_user(ctx: QueryCtx) -> User:
    user = current_user(ctx)
    if user is None:
        raise ApplicationError({"code": "signed_out"})
    return user


class UserQueryCtx(QueryCtx):
    def __init__(self, ctx: QueryCtx) -> None:
        super().__init__(ctx)
        self.user = require_user(ctx)


class UserMutationCtx(MutationCtx):
    def __init__(self, ctx: MutationCtx) -> None:
        super().__init__(ctx)
        self.user = require_user(ctx)


user_query = query.using(UserQueryCtx)
user_mutation = mutation.using(UserMutationCtx)


@query
def me(ctx: QueryCtx) -> User | None:
    return current_user(ctx)


@query
def in_city(ctx: QueryCtx, city: str) -> list[User]:
    return ctx.db.query(User.by_city).range(User.profile.city).eq(city).collect()


@mutation
def sign_in(ctx: MutationCtx, name: str) -> Id[User]:
    identity = ctx.auth.identity()
    if identity is None:
        raise ApplicationError({"code": "signed_out"})
    user = current_user(ctx)
    if user is not None:
        ctx.db.patch(user.id, name=name)
        return user.id
    return ctx.db.insert(User(name=name, email=identity.email or "", token=identity.token_identifier))


@mutation
def enrol(ctx: MutationCtx, user: User, seal: bytes = b"", at: datetime = LAUNCH) -> Id[User]:
    """Take in a user whom another system has: a whole document, which gets its id here."""
    if seal or at < LAUNCH:
        raise ApplicationError({"code": "no_seals_yet"})
    return ctx.db.insert(user)
