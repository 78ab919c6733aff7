from headwater import Id, Index, Table


class Team(Table, name="teams"):
    name: str
    city: str

    by_name = Index("name", unique=True)


class Player(Table, name="players"):
    name: str
    team: Id[Team] | None
    score: int
    level: float | None = None
    bonus: int = 0

    by_name = Index("name", unique=True)
    by_score = Index("score")
    by_team_score = Index("team", "score")
    by_level_name = Index("level", "name")
    by_level_score = Index("level", "score")
