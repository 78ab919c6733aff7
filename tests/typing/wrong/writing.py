"""Mistakes in writing, and in how functions are declared and run."""

from headwater import Id, MutationCtx, QueryCtx, Table, mutation, query, replace

from right import messages
from right.schema import Channel, Message, Role, Text, User
from right.users import UserMutationCtx, user_mutation


@mutation
def field_of_a_wrong_type(ctx: MutationCtx, channel: Id[Channel], author: Id[User]) -> None:
    ctx.db.insert(Message(channel=channel, author=author, body="hi"))  # error about Image


@mutation
def document_by_position(ctx: MutationCtx) -> None:
    ctx.db.insert(Channel("general"))  # error about positional


@mutation
def literal_that_is_none(ctx: MutationCtx) -> None:
    ctx.db.insert(Channel(name="x", visibility="secret"))  # error about secret


@mutation
def text_for_an_enum(ctx: MutationCtx, user: Id[User]) -> None:
    ctx.db.patch(user, role="admin")  # error from 3.13 about Role


@mutation
def unknown_variant_of_an_enum(ctx: MutationCtx, user: Id[User]) -> None:
    ctx.db.patch(user, role=Role.OWNER)  # error about OWNER


@mutation
def patch_by_position(ctx: MutationCtx, message: Id[Message]) -> None:
    ctx.db.patch(message, 1.0)  # error


@mutation
def patch_of_text(ctx: MutationCtx, message: str) -> None:
    ctx.db.patch(message, score=1.0)  # error about patch


@mutation
def delete_of_a_document(ctx: MutationCtx, message: Message) -> None:
    ctx.db.delete(message)  # error about delete


@mutation
def insert_of_no_table(ctx: MutationCtx) -> Id[Text]:
    return ctx.db.insert({"text": "x"})  # error about dict


@mutation
def copy_with_a_wrong_field(ctx: MutationCtx, message: Message) -> Message:
    return replace(message, scor=1.0)  # error from 3.13 about scor


@mutation
def database_of_a_ctx(ctx: MutationCtx) -> None:
    ctx.db = ctx.db  # error about db


@query
def mutation_run_by_a_query(ctx: QueryCtx) -> int:
    return ctx.run_mutation(messages.expire, older_than=1.0)  # error about run_mutation


@mutation
def missing_argument(ctx: MutationCtx) -> int:
    return ctx.run_mutation(messages.expire)  # error about older_than


@mutation
def result_of_another_type(ctx: MutationCtx) -> str:
    return ctx.run_mutation(messages.expire, older_than=1.0)  # error about str


@mutation
def function_by_name(ctx: MutationCtx) -> int:
    return ctx.run_mutation("messages:expire", older_than=1.0)  # error about run_mutation


@mutation
def no_function_of_a_bundle(ctx: MutationCtx) -> None:
    ctx.run_query(print)  # error about run_query


@user_mutation
def ctx_without_the_wrapper(ctx: MutationCtx) -> str:
    return ctx.user.name  # error about user


@mutation  # error about UserMutationCtx
def ctx_of_the_wrapper_without_it(ctx: UserMutationCtx) -> str:
    return ctx.user.name


@query  # error
def nothing_to_take_the_ctx() -> int:
    return 1


@mutation
def a_generator(ctx: MutationCtx) -> int:  # error
    yield 1  # error by pyright about Generator


class Broken(Table, name="broken"):
    count: int = "none"  # error about int
    friend: Id["Nobody"] | None = None  # error about Nobody
