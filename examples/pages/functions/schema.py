from typing import Annotated

from headwater import Index, Meta, Table


class Article(Table, name="articles"):
    title: Annotated[str, Meta(min_length=1, max_length=200)]
    section: str
    words: Annotated[int, Meta(ge=0)]

    by_section = Index("section")
    by_length = Index("section", "words")
