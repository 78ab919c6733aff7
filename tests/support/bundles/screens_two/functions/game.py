from headwater import ApplicationError, Id, MutationCtx, mutation

from .schema import Player, Team


@mutation
def found(ctx: MutationCtx, name: str, city: str) -> Id[Team]:
    return ctx.db.insert(Team(name=name, city=city))


@mutation
def join(ctx: MutationCtx, name: str, team: Id[Team] | None, score: int, level: float | None) -> Id[Player]:
    return ctx.db.insert(Player(name=name, team=team, score=score, level=level))


@mutation
def score(ctx: MutationCtx, player: Id[Player], score: int) -> bool:
    if ctx.db.get(player) is None:
        return False
    ctx.db.patch(player, score=score, bonus=score // 10)
    return True


@mutation
def train(ctx: MutationCtx, player: Id[Player], level: float | None) -> bool:
    if ctx.db.get(player) is None:
        return False
    ctx.db.patch(player, level=level)
    return True


@mutation
def trade(ctx: MutationCtx, first: Id[Player], second: Id[Player]) -> bool:
    """Swap the teams of two players."""
    one, other = ctx.db.get(first), ctx.db.get(second)
    if one is None or other is None:
        return False
    ctx.db.patch(first, team=other.team)
    ctx.db.patch(second, team=one.team)
    return True


@mutation
def leave(ctx: MutationCtx, player: Id[Player]) -> bool:
    if ctx.db.get(player) is None:
        return False
    ctx.db.delete(player)
    return True


@mutation
def move(ctx: MutationCtx, team: Id[Team], city: str) -> None:
    ctx.db.patch(team, city=city)


@mutation
def sign(ctx: MutationCtx, team: Id[Team]) -> str:
    """Write as a user, and tell who that was."""
    identity = ctx.auth.require()
    ctx.db.patch(team, city=f"signed by {identity.subject}")
    return identity.token_identifier


@mutation
def refuse(ctx: MutationCtx, team: Id[Team], why: str) -> None:
    """Write, then fail: nothing of it may ever be seen."""
    ctx.db.patch(team, city=f"refused: {why}")
    ctx.db.insert(Player(name=f"refused: {why}", team=team, score=10**9))
    raise ApplicationError({"why": why})
