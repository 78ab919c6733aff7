from headwater import Index, Table


class Note(Table, name="notes"):
    text: str
    stars: int = 0

    by_text = Index("text")


class Tag(Table, name="tags"):
    name: str

    by_name = Index("name", unique=True)
