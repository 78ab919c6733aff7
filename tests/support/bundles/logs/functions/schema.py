from headwater import Index, Table


class Item(Table, name="items"):
    name: str

    by_name = Index("name")
