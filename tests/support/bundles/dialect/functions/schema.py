from typing import Any

from headwater import Index, Table


class Message(Table, name="messages"):
    channel: str
    author: str
    body: str

    by_channel = Index("channel")


class Counter(Table, name="counters"):
    name: str
    value: int

    by_name = Index("name", unique=True)


class Kept(Table, name="kept"):
    """A value of any kind."""

    name: str
    value: Any

    by_name = Index("name", unique=True)
