from headwater import Index, Table


class Row(Table, name="rows"):
    board: str
    key: str
    rank: int
    note: str = ""

    by_key = Index("board", "key", unique=True)
    by_rank = Index("board", "rank")
