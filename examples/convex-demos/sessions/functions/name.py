from headwater import MutationCtx, QueryCtx, mutation, query

from .users import own_user, user_of


@query
def get(ctx: QueryCtx, sessionId: str | None = None) -> str | None:  # noqa: N803
    user = user_of(ctx, sessionId)
    return user.name if user else None


@mutation
def set_(ctx: MutationCtx, sessionId: str, name: str) -> None:  # noqa: N803
    ctx.db.patch(own_user(ctx, sessionId), name=name)
