from headwater import ApplicationError, Id, Page, QueryCtx, Struct, query

from .schema import Player, Team


class Line(Struct):
    team: str
    city: str
    best: str | None
    players: int


class Own(Struct):
    user: str | None
    players: list[str]


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
def mine(ctx: QueryCtx, count: int) -> Own:
    """What a user's own number chooses."""
    identity = ctx.auth.identity()
    least = 10 * int(identity.subject) if identity else 0
    players = ctx.db.query(Player.by_score).range(Player.score).gte(least).take(count)
    return Own(user=identity.token_identifier if identity else None, players=[one.name for one in players])


@query
def guarded(ctx: QueryCtx, team: Id[Team]) -> list[str]:
    """The best for everybody; but while the city's last digit is odd, users see only what is theirs.

    Whether this reads the identity depends on data.
    """
    found = ctx.db.get(team)
    players = ctx.db.query(Player.by_team_score, team=team).order("desc")
    if found is None or found.city[-1] not in "13579":
        return [player.name for player in players.take(3)]
    number = int(ctx.auth.require().subject)
    return [player.name for player in players if player.score % 5 == number % 5]


@query
def page(ctx: QueryCtx, team: Id[Team], size: int) -> Page[Player]:
    return ctx.db.query(Player.by_team_score, team=team).order("desc").paginate(None, size)
