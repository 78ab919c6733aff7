from headwater import Index, Table


class Account(Table, name="accounts"):
    number: int
    balance: int

    by_number = Index("number", unique=True)


class Item(Table, name="items"):
    topic: str
    body: str
    likes: int = 0

    by_topic = Index("topic")
