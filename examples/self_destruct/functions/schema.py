from datetime import datetime
from typing import Annotated

from headwater import Index, Meta, Table


class Message(Table, name="messages"):
    """A message that is there until it expires.

    Attributes:
        expires: From then on nobody is shown it; it is deleted at that moment.
    """

    room: Annotated[str, Meta(min_length=1, max_length=80)]
    body: Annotated[str, Meta(min_length=1, max_length=2000)]
    expires: datetime

    by_room = Index("room", "expires")
