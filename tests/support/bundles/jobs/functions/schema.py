from headwater import Id, Index, ScheduledJob, Table


class Effect(Table, name="effects"):
    name: str
    job: Id[ScheduledJob] | None = None

    by_name = Index("name")
