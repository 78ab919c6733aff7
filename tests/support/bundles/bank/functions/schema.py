from headwater import Index, Table


class Account(Table, name="accounts"):
    number: int
    balance: int

    by_number = Index("number", unique=True)


class Entry(Table, name="entries"):
    writer: int
    number: int
    previous: int | None

    by_writer = Index("writer", "number")


class Transfer(Table, name="transfers"):
    writer: int
    number: int
    source: int
    target: int
    amount: int

    by_writer = Index("writer", "number")
