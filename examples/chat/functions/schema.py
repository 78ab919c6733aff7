from headwater import Id, Index, Table


class Channel(Table, name="channels"):
    name: str

    by_name = Index("name", unique=True)


class Message(Table, name="messages"):
    channel: Id[Channel]
    author: str
    body: str

    by_channel = Index("channel")
