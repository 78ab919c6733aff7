from typing import Any

from headwater import Index, Table


class Note(Table, name="notes"):
    text: str
    stars: int = 0

    by_text = Index("text")


class Tag(Table, name="tags"):
    name: str

    by_name = Index("name", unique=True)


class Pair(Table, name="pairs"):
    key: str
    value: Any = None

    by_key = Index("key", unique=True)
