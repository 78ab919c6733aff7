from headwater import Index, Table


class Account(Table, name="accounts"):
    name: str
    balance: int

    by_name = Index("name", unique=True)


class Transfer(Table, name="transfers"):
    tag: str
    source: str
    target: str
    amount: int

    by_amount = Index("amount", "tag")


class Item(Table, name="items"):
    tag: str
    queue: str
    position: int

    by_position = Index("queue", "position")


class Seat(Table, name="seats"):
    tag: str
    room: str
    number: int

    by_room = Index("room", "number")


class Name(Table, name="names"):
    tag: str
    name: str

    by_name = Index("name", unique=True)
