from typing import Annotated

from headwater import Id, Index, Meta, Table


class User(Table, name="users"):
    name: Annotated[str, Meta(min_length=1, max_length=40)]

    by_name = Index("name", unique=True)


class Message(Table, name="messages"):
    author: Id[User]
    body: Annotated[str, Meta(min_length=1, max_length=2000)]


class Like(Table, name="likes"):
    """That somebody likes a message: a document of its own, as a row of a join table would be."""

    message: Id[Message]
    user: Id[User]

    by_message = Index("message", "user", unique=True)
    by_user = Index("user")
