from headwater import Index, Table


class Task(Table, name="tasks"):
    text: str
    done: bool = False

    by_done = Index("done")
