from headwater import Id, Index, Table


class Channel(Table, name="channels"):
    name: str


class Message(Table, name="messages"):
    channel: Id[Channel]
    body: str
    author: str

    by_channel = Index("channel")
