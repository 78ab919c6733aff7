from headwater import Id, Index, Table


class User(Table, name="users"):
    """Who has a session; the browser makes its name up.

    Attributes:
        name: What others see.
        sessionId: Whoever knows it is this user, so no function returns it.
    """

    name: str
    sessionId: str  # noqa: N815 - as the front end has it

    by_session = Index("sessionId", unique=True)


class Message(Table, name="messages"):
    body: str
    author: Id[User]
