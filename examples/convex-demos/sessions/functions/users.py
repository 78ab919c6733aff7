from headwater import Id, MutationCtx, QueryCtx

from .schema import User

ANONYMOUS = "Anonymous"


def user_of(ctx: QueryCtx, session: str | None) -> User | None:
    return None if session is None else ctx.db.query(User.by_session, sessionId=session).unique()


def own_user(ctx: MutationCtx, session: str) -> Id[User]:
    user = user_of(ctx, session)
    return user.id if user else ctx.db.insert(User(name=ANONYMOUS, sessionId=session))
