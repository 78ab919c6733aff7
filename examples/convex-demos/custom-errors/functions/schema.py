from headwater import Table


class Message(Table, name="messages"):
    body: str
    author: str
    format: str = "text"
