from typing import Annotated
from uuid import UUID

from headwater import Index, Meta, Table


class Session(Table, name="sessions"):
    """A browser that nobody has signed in from.

    Attributes:
        key: Made by the client. Whoever knows it is the session, so no function ever returns one.
    """

    key: UUID

    by_key = Index("key", unique=True)


class Item(Table, name="items"):
    """Something in a basket.

    Attributes:
        owner: The id of a session, or the `token_identifier` of a user who has signed in.
    """

    owner: str
    product: str
    count: Annotated[int, Meta(ge=1, le=99)]

    by_owner = Index("owner", "product", unique=True)
