from datetime import date, datetime
from enum import Enum
from typing import Annotated, Any, Literal

from headwater import Id, Index, Meta, Struct, Table


class Role(Enum):
    MEMBER = "member"
    ADMIN = "admin"


class Profile(Struct, frozen=True):
    city: str | None = None
    bio: Annotated[str, Meta(max_length=300)] = ""


class Text(Struct, tag="text", frozen=True):
    text: Annotated[str, Meta(min_length=1, max_length=4000)]


class Image(Struct, tag="image", frozen=True):
    url: str
    width: int
    height: int


class User(Table, name="users"):
    name: Annotated[str, Meta(min_length=1, max_length=40)]
    email: str
    token: str
    role: Role = Role.MEMBER
    profile: Profile = Profile()
    favourite: Id["Message"] | None = None
    born: date | None = None

    by_token = Index("token", unique=True)
    by_email = Index("email", unique=True)
    by_city = Index("profile.city")


class Channel(Table, name="channels"):
    name: str
    topic: str = ""
    visibility: Literal["public", "private"] = "public"
    members: list[Id[User]] = []  # noqa: RUF012 - each document gets its own

    by_name = Index("name", unique=True)


class Message(Table, name="messages"):
    channel: Id[Channel]
    author: Id[User]
    body: Text | Image
    score: float | None = None
    reactions: dict[str, int] = {}  # noqa: RUF012
    edited: datetime | None = None
    extra: Any = None

    by_channel = Index("channel")
    by_channel_score = Index("channel", "score")
