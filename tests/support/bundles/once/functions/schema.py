from headwater import Index, Table


class Counter(Table, name="counters"):
    name: str
    value: int

    by_name = Index("name", unique=True)


class Entry(Table, name="entries"):
    writer: str
    number: int
    place: int
    token: int

    by_writer = Index("writer", "place")
