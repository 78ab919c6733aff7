from headwater import Index, Table


class Account(Table, name="accounts"):
    number: int
    balance: int

    by_number = Index("number", unique=True)


class Item(Table, name="items"):
    topic: str
    body: str

    by_topic = Index("topic")
