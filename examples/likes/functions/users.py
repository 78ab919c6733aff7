from headwater import Id, MutationCtx, QueryCtx, mutation, query

from .schema import User


@mutation
def join(ctx: MutationCtx, name: str) -> Id[User]:
    """The user of that name, made if there is none."""
    user = ctx.db.query(User.by_name, name=name).unique()
    return user.id if user else ctx.db.insert(User(name=name))


@mutation
def rename(ctx: MutationCtx, user: Id[User], name: str) -> None:
    ctx.db.patch(user, name=name)


@query
def list_(ctx: QueryCtx) -> list[User]:
    return ctx.db.query(User.by_name).take(100)
