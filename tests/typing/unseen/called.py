"""Mistakes that no type checker sees and that are refused at the first call."""

from typing import Any

from headwater import Id, Index, MutationCtx, QueryCtx, Table, mutation, query


class Channel(Table, name="channels"):
    name: str


class Message(Table, name="messages"):
    channel: Id[Channel]
    score: float = 0.0

    by_channel = Index("channel")
    by_channel_score = Index("channel", "score")


@mutation
def seed(ctx: MutationCtx) -> Id[Message]:
    return ctx.db.insert(Message(channel=ctx.db.insert(Channel(name="general"))))


@query
def field_that_the_index_lacks(ctx: QueryCtx) -> list[Message]:
    return ctx.db.query(Message.by_channel, score=1.0).collect()  # refused about it has no field `score`


@query
def later_field_without_the_earlier(ctx: QueryCtx) -> list[Message]:
    found = ctx.db.query(Message.by_channel_score, score=1.0)  # refused about equal fields are its first ones
    return found.collect()


@query
def range_of_a_later_field(ctx: QueryCtx) -> list[Message]:
    found = ctx.db.query(Message.by_channel_score)
    return found.range(Message.score).gte(1.0).collect()  # refused about is not the next field of index


@query
def range_of_another_table(ctx: QueryCtx) -> list[Message]:
    found = ctx.db.query(Message.by_channel)
    return found.range(Channel.name).gte("a").collect()  # refused about Channel.name is not the next field


@query
def range_of_a_value(ctx: QueryCtx) -> list[Message]:
    message = ctx.db.scan(Message).first()
    assert message is not None
    found = ctx.db.query(Message.by_channel_score, channel=message.channel)
    return found.range(message.score).gte(1.0).collect()  # refused about takes a field of the class


@query
def condition_on_a_field(ctx: QueryCtx) -> bool:
    return True if Message.score else False  # refused about is a field, not a value


@query
def two_lower_bounds(ctx: QueryCtx) -> list[Message]:
    found = ctx.db.scan(Message).range(Message.creation_time_ms)
    return found.gt(1.0).gte(2.0).collect()  # refused about has a lower bound already


@query
def fewer_than_none(ctx: QueryCtx) -> list[Message]:
    return ctx.db.scan(Message).take(-1)  # refused about takes a number from 0


@query
def cursor_of_nowhere(ctx: QueryCtx) -> list[Message]:
    return ctx.db.scan(Message).paginate("nowhere", 5).page  # refused about the cursor is damaged


@mutation
def write_of_a_stored_document(ctx: MutationCtx) -> Id[Message]:
    message = ctx.db.scan(Message).first()
    assert message is not None
    return ctx.db.insert(message)  # refused about is stored already; use replace or patch


@mutation
def id_of_what_was_never_stored(ctx: MutationCtx) -> None:
    ctx.db.delete(Channel(name="x").id)  # refused about was never stored


@query
def result_of_any(ctx: QueryCtx) -> list[int]:
    made: list[Any] = ["one"]
    return made  # refused later about Expected `int`, got `str`
