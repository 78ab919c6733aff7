from headwater import Index, Table


class Register(Table, name="registers"):
    key: int
    items: list[int]

    by_key = Index("key")


class Slot(Table, name="slots"):
    item: int
    version: int
    group: int
    place: int

    by_place = Index("group", "place")
