from typing import Any

from headwater import ActionCtx, Id, MutationCtx, QueryCtx, action, mutation, query, replace

from right import answers, messages, users
from right.schema import Channel, Message, Text, User


@query
def unknown_field_in_query(ctx: QueryCtx, channel: Id[Channel]) -> list[Message]:
    return ctx.db.query(Message.by_channel, chanel=channel).collect()  # error


@query
def id_of_another_table(ctx: QueryCtx, user: Id[User]) -> list[Message]:
    return ctx.db.query(Message.by_channel, channel=user).collect()  # error


@query
def identity_that_may_be_none(ctx: QueryCtx) -> str:
    return ctx.auth.identity().subject  # error


@query
def unknown_claim(ctx: QueryCtx) -> str | None:
    return ctx.auth.require().shoe_size  # error


@query
def unknown_index(ctx: QueryCtx) -> list[Message]:
    return ctx.db.query(Message.by_chanel).collect()  # error


@query
def documents_of_another_table(ctx: QueryCtx, channel: Id[Channel]) -> list[User]:
    return ctx.db.query(Message.by_channel, channel=channel).take(5)  # error


@query
def write_in_query(ctx: QueryCtx, channel: Id[Channel]) -> None:
    ctx.db.insert(Channel(name="x"))  # error


@mutation
def patch_with_wrong_value(ctx: MutationCtx, message: Id[Message]) -> None:
    ctx.db.patch(message, score="high")  # error
    ctx.db.patch(message, scor=1.0)  # error


@mutation
def insert_without_a_field(ctx: MutationCtx, channel: Id[Channel]) -> Id[Message]:
    return ctx.db.insert(Message(channel=channel, body=Text(text="x")))  # error


@mutation
def wrong_arguments_of_a_nested_call(ctx: MutationCtx, channel: Id[Channel]) -> None:
    ctx.run_mutation(messages.expire, older="x")  # error
    ctx.run_mutation(messages.expire, older_than="x")  # error
    ctx.run_mutation(messages.list_, channel=channel)  # error


@query  # error
async def async_query(ctx: QueryCtx, channel: Id[Channel]) -> list[Message]:
    return []


@query
def forgotten_none(ctx: QueryCtx, message: Id[Message]) -> str:
    return ctx.db.get(message).author  # error


@mutation
def assignment_to_a_document(ctx: MutationCtx, message: Id[Message]) -> None:
    found = ctx.db.get(message)
    if found:
        found.score = 1.0  # error


@query
def bound_of_another_type(ctx: QueryCtx, channel: Id[Channel]) -> int:
    found = ctx.db.query(Message.by_channel_score, channel=channel)
    return len(found.range(Message.score).gte("5").collect())  # error


@query  # error
def result_that_is_no_value(ctx: QueryCtx) -> set[str]:
    return set()


@query  # error
def mutation_ctx_in_a_query(ctx: MutationCtx) -> None:
    return None


@mutation
def replace_with_another_table(ctx: MutationCtx, message: Id[Message]) -> None:
    ctx.db.replace(message, Channel(name="x"))  # error


@mutation
def system_field(ctx: MutationCtx, message: Message) -> None:
    Message(id=message.id, channel=message.channel, author=message.author, body=message.body)  # error
    replace(message, score="x")  # error


@mutation
def text_is_no_id(ctx: MutationCtx, text: str) -> Channel | None:
    return ctx.db.get(text)  # error


@query
def direct_call(ctx: QueryCtx) -> User:
    return users.require_user(ctx, 1)  # error


@query
def field_in_filter(ctx: QueryCtx) -> Any:
    return ctx.db.scan(Message).filter(lambda message: message.bod == "x").first()  # error


@action  # error
def plain_action(ctx: ActionCtx) -> int:
    return 1


@action
async def database_in_an_action(ctx: ActionCtx, message: Id[Message]) -> None:
    ctx.db.get(message)  # error


@action
async def forgotten_await(ctx: ActionCtx, channel: Id[Channel]) -> int:
    return len(ctx.run_query(messages.list_, channel=channel))  # error


@action
async def wrong_arguments_in_an_action(ctx: ActionCtx, user: Id[User]) -> None:
    await ctx.run_query(messages.list_, channel=user)  # error
    await ctx.run_mutation(messages.expire, older_than="x")  # error
    await ctx.run_action(answers.newest, chanel=user)  # error
    await ctx.run_query(messages.expire, older_than=1.0)  # error


@query
def action_in_a_query(ctx: QueryCtx, channel: Id[Channel]) -> int:
    ctx.run_query(answers.count, channel)  # error
    return 1
