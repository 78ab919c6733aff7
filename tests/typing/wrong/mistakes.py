from typing import Any

from headwater import ActionCtx, Id, MutationCtx, QueryCtx, ScheduledJob, action, mutation, query, replace

from right import answers, messages, users
from right.schema import Channel, Message, Text, User


@query
def unknown_field_in_query(ctx: QueryCtx, channel: Id[Channel]) -> list[Message]:
    return ctx.db.query(Message.by_channel, chanel=channel).collect()  # error from 3.13 about chanel


@query
def id_of_another_table(ctx: QueryCtx, user: Id[User]) -> list[Message]:
    return ctx.db.query(Message.by_channel, channel=user).collect()  # error from 3.13 about Channel


@query
def identity_that_may_be_none(ctx: QueryCtx) -> str:
    return ctx.auth.identity().subject  # error


@query
def unknown_claim(ctx: QueryCtx) -> str | None:
    return ctx.auth.require().shoe_size  # error


@mutation
def what_cannot_be_scheduled(ctx: MutationCtx, channel: Id[Channel]) -> None:
    ctx.scheduler.run_after(60_000, messages.expire, older_than="x")  # error about float
    ctx.scheduler.run_after(60_000, messages.expire, older=1.0)  # error about older
    ctx.scheduler.run_after(60_000, messages.list_, channel=channel)  # error about run_after
    ctx.scheduler.run_after("soon", messages.expire, older_than=1.0)  # error
    ctx.scheduler.run_at(0, "messages:expire", older_than=1.0)  # error about run_at
    ctx.scheduler.cancel(channel)  # error about ScheduledJob


@query
def scheduling_in_a_query(ctx: QueryCtx) -> None:
    ctx.scheduler.run_after(0, messages.expire, older_than=1.0)  # error about scheduler


@query
def fields_of_a_job(ctx: QueryCtx, job: Id[ScheduledJob]) -> str:
    found = ctx.db.query(ScheduledJob.by_state, status="failed").first()  # error from 3.13 about status
    return found.error.message if found else ""  # error


@query
def unknown_index(ctx: QueryCtx) -> list[Message]:
    return ctx.db.query(Message.by_chanel).collect()  # error about by_chanel


@query
def documents_of_another_table(ctx: QueryCtx, channel: Id[Channel]) -> list[User]:
    return ctx.db.query(Message.by_channel, channel=channel).take(5)  # error about Message


@query
def write_in_query(ctx: QueryCtx, channel: Id[Channel]) -> None:
    ctx.db.insert(Channel(name="x"))  # error about insert


@mutation
def patch_with_wrong_value(ctx: MutationCtx, message: Id[Message]) -> None:
    ctx.db.patch(message, score="high")  # error from 3.13 about float
    ctx.db.patch(message, scor=1.0)  # error from 3.13 about scor


@mutation
def insert_without_a_field(ctx: MutationCtx, channel: Id[Channel]) -> Id[Message]:
    return ctx.db.insert(Message(channel=channel, body=Text(text="x")))  # error about author


@mutation
def wrong_arguments_of_a_nested_call(ctx: MutationCtx, channel: Id[Channel]) -> None:
    ctx.run_mutation(messages.expire, older="x")  # error about older
    ctx.run_mutation(messages.expire, older_than="x")  # error about float
    ctx.run_mutation(messages.list_, channel=channel)  # error about run_mutation


@query  # error about Message
async def async_query(ctx: QueryCtx, channel: Id[Channel]) -> list[Message]:
    return []


@query
def forgotten_none(ctx: QueryCtx, message: Id[Message]) -> str:
    return ctx.db.get(message).author  # error about author


@mutation
def assignment_to_a_document(ctx: MutationCtx, message: Id[Message]) -> None:
    found = ctx.db.get(message)
    if found:
        found.score = 1.0  # error about score


@query
def bound_of_another_type(ctx: QueryCtx, channel: Id[Channel]) -> int:
    found = ctx.db.query(Message.by_channel_score, channel=channel)
    return len(found.range(Message.score).gte("5").collect())  # error about gte


@query  # error about set
def result_that_is_no_value(ctx: QueryCtx) -> set[str]:
    return set()


@query  # error about MutationCtx
def mutation_ctx_in_a_query(ctx: MutationCtx) -> None:
    return None


@mutation
def replace_with_another_table(ctx: MutationCtx, message: Id[Message]) -> None:
    ctx.db.replace(message, Channel(name="x"))  # error about replace


@mutation
def system_field(ctx: MutationCtx, message: Message) -> None:
    Message(id=message.id, channel=message.channel, author=message.author, body=message.body)  # error about id
    replace(message, score="x")  # error from 3.13 about float


@mutation
def text_is_no_id(ctx: MutationCtx, text: str) -> Channel | None:
    return ctx.db.get(text)  # error about get


@query
def direct_call(ctx: QueryCtx) -> User:
    return users.require_user(ctx, 1)  # error


@query
def field_in_filter(ctx: QueryCtx) -> Any:
    return ctx.db.scan(Message).filter(lambda message: message.bod == "x").first()  # error about bod


@action  # error
def plain_action(ctx: ActionCtx) -> int:
    return 1


@action
async def database_in_an_action(ctx: ActionCtx, message: Id[Message]) -> None:
    ctx.db.get(message)  # error about db


@action
async def forgotten_await(ctx: ActionCtx, channel: Id[Channel]) -> int:
    return len(ctx.run_query(messages.list_, channel=channel))  # error about len


@action
async def wrong_arguments_in_an_action(ctx: ActionCtx, user: Id[User]) -> None:
    await ctx.run_query(messages.list_, channel=user)  # error
    await ctx.run_mutation(messages.expire, older_than="x")  # error
    await ctx.run_action(answers.newest, chanel=user)  # error
    await ctx.run_query(messages.expire, older_than=1.0)  # error about run_query


@query
def action_in_a_query(ctx: QueryCtx, channel: Id[Channel]) -> int:
    ctx.run_query(answers.count, channel)  # error about run_query
    return 1
