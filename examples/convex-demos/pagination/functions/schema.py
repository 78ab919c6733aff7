from headwater import Index, Table


class Message(Table, name="messages"):
    body: str
    author: str

    by_author = Index("author")
