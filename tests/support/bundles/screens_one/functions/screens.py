from headwater import ApplicationError, Id, Page, QueryCtx, Struct, query

from .schema import Player, Team


class Line(Struct):
    team: str
    city: str
    best: str | None
    players: int


@query
def top(ctx: QueryCtx, team: Id[Team], count: int) -> list[Player]:
    return ctx.db.query(Player.by_team_score, team=team).order("desc").take(count)


@query
def between(ctx: QueryCtx, team: Id[Team] | None, low: int, high: int) -> list[Player]:
    return ctx.db.query(Player.by_team_score, team=team).range(Player.score).gte(low).lt(high).collect()


@query
def worst(ctx: QueryCtx, count: int) -> list[Player]:
    return ctx.db.query(Player.by_score).take(count)


@query
def above(ctx: QueryCtx, score: int, count: int) -> list[str]:
    found = ctx.db.query(Player.by_score).range(Player.score).gt(score).order("desc").take(count)
    return [player.name for player in found]


@query
def named(ctx: QueryCtx, name: str) -> Player | None:
    return ctx.db.query(Player.by_name, name=name).unique()


@query
def after(ctx: QueryCtx, name: str) -> Player | None:
    return ctx.db.query(Player.by_name).range(Player.name).gt(name).first()


@query
def levels(ctx: QueryCtx, low: float, high: float) -> list[Player]:
    found = ctx.db.query(Player.by_level_name).range(Player.level).gte(low).lte(high).order("desc")
    return list(found)


@query
def beginners(ctx: QueryCtx) -> list[str]:
    return [player.name for player in ctx.db.query(Player.by_level_name, level=None)]


@query
def player(ctx: QueryCtx, player: Id[Player]) -> Player | None:
    return ctx.db.get(player)


@query
def table(ctx: QueryCtx) -> list[Line]:
    """A join: each team with its best player."""
    lines = []
    for team in ctx.db.query(Team.by_name):
        players = ctx.db.query(Player.by_team_score, team=team.id).order("desc").collect()
        best = players[0].name if players else None
        lines.append(Line(team=team.name, city=team.city, best=best, players=len(players)))
    return lines


@query
def total(ctx: QueryCtx) -> dict[str, int]:
    players = ctx.db.scan(Player).collect()
    return {"players": len(players), "score": sum(player.score for player in players)}


@query
def newest(ctx: QueryCtx, count: int) -> list[Player]:
    return ctx.db.scan(Player).order("desc").take(count)


@query
def full(ctx: QueryCtx, team: Id[Team], least: int) -> list[str]:
    """Fail while the team is too small."""
    players = ctx.db.query(Player.by_team_score, team=team).collect()
    if len(players) < least:
        raise ApplicationError({"missing": least - len(players)})
    return [player.name for player in players]


@query
def page(ctx: QueryCtx, team: Id[Team], size: int) -> Page[Player]:
    return ctx.db.query(Player.by_team_score, team=team).order("desc").paginate(None, size)
