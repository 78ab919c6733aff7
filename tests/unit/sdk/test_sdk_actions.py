"""Actions as authors write them: what is refused at import, what a ctx does, what a stream is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from headwater.bundle import Bundle
from headwater.call_failures import CallFailure
from headwater.identity import Identity
from headwater_protocol.errors import RequestError
from support.action_world import ActionWorld
from support.bundles import imported, right_world, small_world, write_package

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SOURCE = """
import asyncio

class Item(Table, name="items"):
    number: int

class Mine(ActionCtx):
    def __init__(self, ctx: ActionCtx, who: str) -> None:
        super().__init__(ctx)
        self.who = who

async def mine(ctx: ActionCtx) -> Mine:
    identity = ctx.auth.identity()
    return Mine(ctx, identity.subject if identity else "nobody")

@mutation
def put(ctx: MutationCtx, number: int) -> Id[Item]:
    if number < 0:
        raise ApplicationError({"too": "small"})
    return ctx.db.insert(Item(number=number))

@query.internal
def items(ctx: QueryCtx) -> list[Item]:
    return ctx.db.scan(Item).collect()

@action
async def both(ctx: ActionCtx, numbers: list[int]) -> list[int]:
    await asyncio.gather(*(ctx.run_mutation(put, number=n) for n in numbers))
    found = await ctx.run_query(items)
    assert all(type(one) is Item for one in found)
    return [one.number for one in found]

@action
async def by_name(ctx: ActionCtx) -> list[dict[str, Any]]:
    await ctx.run_mutation("a:put", number=1)
    return await ctx.run_query("a:items")

@action
async def caught(ctx: ActionCtx) -> Any:
    try:
        await ctx.run_mutation(put, number=-1)
    except ApplicationError as error:
        return error.data

@action
async def uncaught(ctx: ActionCtx) -> None:
    await ctx.run_mutation(put, -1)

@action
async def times(ctx: ActionCtx) -> list[float]:
    return [ctx.now_ms, ctx.now_ms]

@action.using(mine)
async def who(ctx: Mine, times: int = 1) -> str:
    return ctx.who * times

@action
async def count(ctx: ActionCtx, upto: int) -> AsyncIterator[int]:
    for number in range(upto):
        yield number

@action.using(mine)
async def counted(ctx: Mine, upto: int) -> AsyncIterator[str]:
    async for number in count(ctx, upto):
        yield f"{ctx.who} {number}"

@action.internal
async def hidden(ctx: ActionCtx) -> None: ...

@action
async def all_at_once(ctx: ActionCtx) -> list[int]:
    return await ctx.run_action(count, 3) + await ctx.run_action("a:count", upto=2)

@action
async def endless(ctx: ActionCtx) -> int:
    return await ctx.run_action(endless)

@action
async def wrong(ctx: ActionCtx, how: str) -> int:
    if how == "kind":
        await ctx.run_query(put, number=1)
    if how == "foreign":
        await ctx.run_action(len)
    if how == "unknown":
        await ctx.run_action("a:put", number=1)
    if how == "placed":
        await ctx.run_query("a:items", 1)
    return "no int"

@action
async def bad_piece(ctx: ActionCtx) -> AsyncIterator[int]:
    yield 1
    yield "two"

@action
async def takes(ctx: ActionCtx, item: Id[Item]) -> int:
    return 1
"""


@pytest.fixture
def actions(tmp_path: Path) -> Iterator[ActionWorld]:
    with small_world(tmp_path, {"a": SOURCE}) as world:
        yield ActionWorld(world)


def failed(actions: ActionWorld, name: str, /, **arguments: Any) -> CallFailure:
    found = actions.call(name, **arguments)
    assert isinstance(found, CallFailure), found
    return found


def test_an_action_runs_queries_and_mutations_each_by_itself(actions: ActionWorld) -> None:
    assert sorted(actions.call("a:both", numbers=[3, 1, 2])) == [1, 2, 3]
    assert actions.ran == [("mutation", "a:put")] * 3 + [("query", "a:items")]


def test_by_name_values_are_as_clients_have_them(actions: ActionWorld) -> None:
    [item] = actions.call("a:by_name")
    assert set(item) == {"_id", "_creationTime", "number"}


def test_an_error_of_a_nested_call_can_be_caught_and_passes_on_as_it_is(actions: ActionWorld) -> None:
    assert actions.call("a:caught") == {"too": "small"}
    failure = failed(actions, "a:uncaught")
    assert failure.code == "application_error"
    assert msgspec.msgpack.decode(failure.data or b"") == {"too": "small"}


def test_the_clock_of_an_action_goes_on(actions: ActionWorld) -> None:
    first, second = actions.call("a:times")
    assert first < second


def test_a_wrapper_may_wait_and_knows_who_asks(actions: ActionWorld) -> None:
    assert actions.call("a:who") == "nobody"
    identity = msgspec.msgpack.encode(Identity(token_identifier="i|ada", subject="ada"))
    assert actions.call("a:who", identity=identity, times=2) == "adaada"


def test_pieces_come_one_by_one_and_the_result_is_null(actions: ActionWorld) -> None:
    assert actions.call("a:count", upto=3) is None
    assert actions.pieces == [0, 1, 2]
    assert actions.call("a:counted", upto=2, stream=True) is None
    assert actions.pieces == ["nobody 0", "nobody 1"]


def test_a_nested_stream_is_a_list(actions: ActionWorld) -> None:
    assert actions.call("a:all_at_once") == [0, 1, 2, 0, 1]
    assert actions.pieces == []


def test_internal_actions_are_hidden(actions: ActionWorld) -> None:
    assert failed(actions, "a:hidden").message == "there is no function 'a:hidden'"


def test_what_does_not_stream_is_refused_before_it_runs(actions: ActionWorld) -> None:
    failure = failed(actions, "a:both", numbers=[1], stream=True)
    assert (failure.code, actions.ran) == ("invalid_request", [])
    assert "does not stream" in failure.message


def test_actions_that_run_themselves_come_to_an_end(actions: ActionWorld) -> None:
    failure = failed(actions, "a:endless")
    assert failure.code == "internal_error"
    assert "a:endless is nested more than 4 actions deep" in failure.message


@pytest.mark.parametrize(
    ("how", "code", "said"),
    [
        ("kind", "internal_error", "TypeError: a:put is a mutation; run it with ctx.run_mutation"),
        ("foreign", "internal_error", "TypeError: ctx.run_action takes a @action function of this bundle"),
        ("unknown", "unknown_function", "there is no action 'a:put'"),
        ("placed", "internal_error", "arguments of a function that is named by text are given by name"),
        ("result", "invalid_result", "the result of a:wrong: Expected `int`, got `str`"),
    ],
)
def test_mistakes_of_authors(actions: ActionWorld, how: str, code: str, said: str) -> None:
    failure = failed(actions, "a:wrong", how=how)
    assert failure.code == code
    assert said in failure.message


def test_mistakes_of_callers(actions: ActionWorld) -> None:
    assert failed(actions, "a:put", number=1).message == "a:put is a mutation, not an action"
    assert failed(actions, "a:both").code == "invalid_arguments"
    of_nothing = failed(actions, "a:takes", item="0" * 32)
    assert of_nothing.code == "invalid_arguments"
    assert "Expected an id of table 'items'" in of_nothing.message


def test_pieces_are_checked_one_by_one(actions: ActionWorld) -> None:
    failure = failed(actions, "a:bad_piece")
    assert (failure.code, actions.pieces) == ("invalid_result", [1])


def test_the_manifest_tells_kind_and_stream(actions: ActionWorld) -> None:
    manifest = actions.world.manifest
    found = {item.name: (item.kind, item.stream, item.internal) for item in manifest.functions}
    assert found["a:count"] == ("action", True, False)
    assert found["a:hidden"] == ("action", False, True)
    assert type(manifest).from_json(manifest.to_json()) == manifest
    [pieces] = [item.returns for item in manifest.functions if item.name == "a:count"]
    assert pieces == {"type": "integer"}


def test_the_bundle_that_checkers_are_shown_runs() -> None:
    with right_world() as world:
        actions = ActionWorld(world)
        assert actions.call("answers:words", text="a b") is None
        assert actions.pieces == ["nobody", "a", "b"]


F = "async def f(ctx: ActionCtx"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (
            "@action\ndef f(ctx: ActionCtx) -> int: ...",
            "must be an `async def`: it waits for the world outside, among many others. Write `async def`; what",
        ),
        (
            "@query\nasync def f(ctx: QueryCtx) -> int: ...",
            "f:f is a query and must be a plain `def`: its reads are local and never wait. Remove `async`; to call",
        ),
        ("action(5)", "@action stands before a `async def`, got 5"),
        (
            "@action\nasync def f(ctx: QueryCtx) -> int: ...",
            "f:f is an action and cannot take a QueryCtx: it has no database.",
        ),
        (
            "@query\ndef f(ctx: ActionCtx) -> int: ...",
            "f:f is a query and cannot take a ActionCtx; use @action",
        ),
        (f"@action\n{F}) -> int:\n    yield 1", "f:f yields, so its pieces go to the caller one by one"),
        (
            f"@action\n{F}) -> AsyncIterator[int]: ...",
            "f:f returns a stream, so it has to `yield` its pieces",
        ),
        (
            f"@action\n{F}) -> AsyncIterator[set[int]]:\n    yield 1",
            "f:f: its result: `set` cannot be a value",
        ),
        (f"@action\n{F}): ...", "f:f needs a return annotation"),
    ],
)
def test_what_is_refused_at_import(tmp_path: Path, source: str, reason: str) -> None:
    write_package(tmp_path, {"f": source})
    with pytest.raises(RequestError) as caught, imported(tmp_path, "bundle") as package:
        Bundle.load(package)
    assert caught.value.code == "invalid_bundle"
    assert reason in caught.value.message
