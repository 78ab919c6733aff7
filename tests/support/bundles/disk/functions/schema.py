from headwater import Index, Table


class Entry(Table, name="entries"):
    writer: int
    number: int
    text: str

    by_writer = Index("writer", "number")
