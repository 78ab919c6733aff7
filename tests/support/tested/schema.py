from typing import Annotated

from headwater import Id, Index, Meta, Table


class Notebook(Table, name="notebooks"):
    name: str
    owner: str | None = None

    by_name = Index("name", unique=True)


class Note(Table, name="notes"):
    notebook: Id[Notebook]
    text: Annotated[str, Meta(max_length=200)]
    stars: int = 0

    by_notebook = Index("notebook")
    by_stars = Index("notebook", "stars")
