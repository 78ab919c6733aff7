from headwater import Environment, Id, Index, Table


class Channel(Table, name="channels"):
    title: str


class Message(Table, name="messages"):
    channel: Id[Channel]
    score: int
    body: str
    note: str = ""

    by_channel = Index("channel", "score")


class Site(Environment):
    site: str = "home"
