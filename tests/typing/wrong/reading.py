"""Mistakes in reading: queries, ranges, pages, results."""

from headwater import Id, Page, PageOptions, QueryCtx, query

from right.schema import Channel, Image, Message, Text, User
from right.users import UserQueryCtx, user_query


@query
def index_by_position(ctx: QueryCtx, channel: Id[Channel]) -> list[Message]:
    return ctx.db.query(Message.by_channel, channel).collect()  # error


@query
def index_of_another_table(ctx: QueryCtx, channel: Id[Channel]) -> list[Message]:
    return ctx.db.query(User.by_email, email="x").collect()  # error about User


@query
def index_as_text(ctx: QueryCtx, channel: Id[Channel]) -> list[Message]:
    return ctx.db.query("by_channel", channel=channel).collect()  # error about query


@query
def order_that_is_none(ctx: QueryCtx) -> list[Message]:
    return ctx.db.scan(Message).order("down").take(5)  # error about down


@query
def number_as_text(ctx: QueryCtx) -> list[Message]:
    return ctx.db.scan(Message).take("5")  # error about take


@query
def scan_of_a_name(ctx: QueryCtx) -> list[Message]:
    return ctx.db.scan("messages").take(5)  # error about scan


@query
def none_of_first(ctx: QueryCtx) -> str:
    return ctx.db.scan(User).first().name  # error about name


@query
def field_of_one_variant(ctx: QueryCtx, message: Id[Message]) -> str:
    found = ctx.db.get(message)
    return found.body.url if found else ""  # error about url


@query
def field_that_is_none(ctx: QueryCtx, message: Id[Message]) -> str:
    found = ctx.db.get(message)
    return found.text if found else ""  # error about text


@query
def page_for_a_list(ctx: QueryCtx, options: PageOptions) -> list[Message]:
    return ctx.db.scan(Message).paginate(options)  # error about Message


@query
def page_of_another_table(ctx: QueryCtx, options: PageOptions) -> Page[User]:
    return ctx.db.scan(Message).paginate(options)  # error about Message


@query
def id_as_result_of_another_table(ctx: QueryCtx, user: Id[User]) -> Id[Message]:
    return user  # error about User


@query
def bound_of_the_creation_time(ctx: QueryCtx) -> list[Message]:
    return ctx.db.scan(Message).range(Message.creation_time_ms).gte("today").collect()  # error about gte


@user_query
def field_of_a_ctx(ctx: UserQueryCtx) -> str:
    return ctx.usr.name  # error about usr


@user_query
def ctx_of_another_kind(ctx: QueryCtx, text: Text) -> str:
    return text.body  # error about body


@query  # error about UserQueryCtx
def ctx_that_nobody_makes(ctx: UserQueryCtx) -> str:
    return ctx.user.name


@query
def variant_by_a_wrong_field(ctx: QueryCtx) -> Image:
    return Image(url="x", width=1, heigth=2)  # error about heigth


@query
def many_of_another_table(ctx: QueryCtx, users: list[Id[User]]) -> list[Channel | None]:
    return ctx.db.get_many(users)  # error about Channel
