"""Bundles: what is collected, what is refused when they are loaded, and how calls fail."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from headwater import Identity
from headwater.bundle import Bundle
from headwater_protocol.errors import RequestError
from support.bundles import World, decode, encode, imported, small_world, write_package

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

TABLE = """
class Item(Table, name="items"):
    number: int
"""


def refusal(folder: Path, modules: dict[str, str], *, header: str | None = None) -> str:
    """Return why a bundle is refused; there is one reason and it is an `invalid_bundle`."""
    write_package(folder, modules, **({} if header is None else {"header": header}))
    with pytest.raises(RequestError) as caught, imported(folder, "bundle") as package:
        Bundle.load(package)
    assert caught.value.code == "invalid_bundle"
    return caught.value.message


def test_names_are_modules_nested_by_slashes(tmp_path: Path) -> None:
    source = "@query\ndef list_(ctx: QueryCtx) -> int: return 1\n@mutation.internal\ndef put(ctx: MutationCtx) -> None: ..."
    with small_world(tmp_path, {"a": source, "deep/er/b": source}) as world:
        functions = {item.name: (item.kind, item.internal) for item in world.manifest.functions}
        assert functions == {
            "a:list": ("query", False),
            "a:put": ("mutation", True),
            "deep/er/b:list": ("query", False),
            "deep/er/b:put": ("mutation", True),
        }
        assert world.query("deep/er/b:list") == 1


def test_imported_functions_are_not_declared_twice(tmp_path: Path) -> None:
    modules = {"a": "@query\ndef one(ctx: QueryCtx) -> int: return 1", "b": "from bundle.a import one"}
    with small_world(tmp_path, modules) as world:
        assert [function.name for function in world.manifest.functions] == ["a:one"]


def test_tables_for_type_checkers_only(tmp_path: Path) -> None:
    modules = {
        "schema": TABLE,
        "f": """
if TYPE_CHECKING:
    from bundle.schema import Item

class Other(Table, name="others"):
    item: Id["Item"]
    back: Id["Other"] | None = None

@query
def find(ctx: QueryCtx, item: Id["Item"]) -> list[Item]:
    from bundle.schema import Item
    return ctx.db.scan(Item).collect()
""",
    }
    with small_world(tmp_path, modules) as world:
        assert world.query("f:find", item=world.backend.new_id("items")[0]) == []


F = "def f(ctx: QueryCtx"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (
            "@query\ndef list(ctx: QueryCtx) -> int: ...",
            "bundle.f: f:list: `def list` would hide the built-in of that name in this module; write `def list_`, ",
        ),
        (
            "@query\nasync def find(ctx: QueryCtx) -> int: ...",
            "bundle.f: f:find is a query and must be a plain `def`: its reads are local and never wait.",
        ),
        ("@mutation\ndef find(ctx: MutationCtx) -> int:\n    yield 1", "bundle.f: f:find is a mutation and returns its result at once"),
        ("query(5)", "bundle.f: @query stands before a plain `def`, got 5"),
        ("x = query(lambda ctx: 1)", "bundle.f: @query stands before a plain `def`, got <function <lambda>"),
        (f"@query\n{F}, a) -> int: ...", "f:f: argument `a` needs a type annotation"),
        (f"@query\n{F}, a: int): ...", "f:f needs a return annotation; `-> None` if it returns nothing"),
        (f"@query\n{F}, *a: int) -> None: ...", "f:f: argument `a`: a function has a fixed list of arguments"),
        ("@query\ndef f() -> None: ...", "f:f: its first parameter is the ctx: `def f(ctx: ...)`"),
        (f"@query\n{F}, a: set[int]) -> None: ...", "f:f: argument `a`: `set` cannot be a value; use `list`"),
        (f"@query\n{F}, a: list[frozenset[int]]) -> None: ...", "f:f: argument `a`: `frozenset` cannot be a value; use `list`"),
        (f"@query\n{F}, a: object) -> None: ...", "f:f: argument `a`: `object` cannot be a value; use a `Struct`"),
        (f"@query\n{F}) -> timedelta: ...", "f:f: its result: `timedelta` cannot be a value; use a number with its unit"),
        (f"@query\n{F}, a: dict[int, str]) -> None: ...", "f:f: argument `a`: the keys of a dict are text"),
        (f"@query\n{F}, a: Unknown) -> None: ...", "f:f: its annotations cannot be read: name 'Unknown' is not defined"),
        ("@query\ndef f(ctx: MutationCtx) -> None: ...", "f:f is a query and cannot take a MutationCtx; use @mutation"),
        (f'@query\n{F}, a: Id["Nope"]) -> None: ...', 'f:f: Id["Nope"] names no table class of this bundle'),
        (f"@query\n{F}, a: Id[int]) -> None: ...", "f:f: Id[int] names no table of this bundle"),
        (f"@query\n{F}) -> Id['Nope']: ...", 'f:f: its result: Id["Nope"] names no table class of this bundle'),
        (f"class A(Struct):\n    x: int\nclass B(Struct):\n    y: int\n@query\n{F}, a: A | B) -> None: ...", "f:f: argument `a`: If a type union contains multiple Struct types, all Struct types must be tagged"),
        (f"class A(Struct, array_like=True):\n    x: int\n@query\n{F}, a: A) -> None: ...", "f:f: argument `a`: `A` has array_like=True"),
        (f"@query\n{F}, a: Annotated[datetime, Meta(tz=False)]) -> None: ...", "f:f: argument `a`: a datetime without a time zone"),
        ("1 / 0", "bundle.f cannot be imported: ZeroDivisionError: division by zero\nTraceback"),
        ("raise SystemExit(3)", "bundle.f cannot be imported: SystemExit: 3"),
        ("from headwater import nothing", "bundle.f cannot be imported: ImportError: cannot import name 'nothing'"),
        ("x = (", "bundle.f cannot be imported: SyntaxError: "),
        ("@query\ndef a(ctx: QueryCtx) -> int: ...\n@query\ndef a_(ctx: QueryCtx) -> int: ...", "two functions are called 'f:a': a and a_; rename one"),
        ("class A(Table, name='same'):\n    x: int\nclass B(Table, name='same'):\n    x: int", "two tables are called 'same': bundle.f.A and bundle.f.B; rename one"),
        ("class A(Table, name='a b'):\n    x: int", "bundle.f: A: 'a b' cannot name a table"),
        ("class A(Table, name='_a'):\n    x: int", "bundle.f: A: '_a' cannot name a table"),
        ("class A(Table):\n    id: int", "bundle.f: A.id: the name belongs to the system field '_id'; choose another"),
        ("class A(Table):\n    _id: int", "bundle.f: A._id: the name belongs to the system field '_id'; choose another"),
        ("class A(Table):\n    creation_time_ms: int", "bundle.f: A.creation_time_ms: the name belongs to the system field"),
        ("class A(Table):\n    x: int\nclass B(A):\n    y: int", "bundle.f: B: derive it from Table itself; a table has no subclasses"),
        ("class A(Table):\n    x: set[int]", "A.x: `set` cannot be a value; use `list`"),
        ("class A(Table):\n    x: Nowhere", "A: name 'Nowhere' is not defined; a table imported for type checkers only is written Id[\"Nowhere\"]"),
        ("class A(Table):\n    x: Id['Nope']", 'A: Id["Nope"] names no table class of this bundle'),
        ("class A(Table):\n    size: int\n    by_x = Index('siz')", "bundle.f: A.by_x: there is no field 'siz'; did you mean `size`?; fields are size"),
        ("class A(Table):\n    x: int\n    by_x = Index()", 'bundle.f: A.by_x: an index names its fields as text: Index("channel")'),
        ("class A(Table):\n    x: int\n    by_x = Index('x', 'x')", "bundle.f: A.by_x: an index has up to 16 different fields"),
        ("class A(Table):\n    x: int\n    by_x = Index('x', 'creation_time_ms')", "bundle.f: A.by_x: the creation time is part of every index"),
        ("class P(Struct):\n    city: str\nclass A(Table):\n    p: P | None\n    by_x = Index('p.cty')", "A.by_x: there is no field 'p.cty'; did you mean `city`?"),
        ("class A(Table):\n    p: str\n    by_x = Index('p.x')", "A.by_x: there is no field 'p.x'"),
        ("class A(Table):\n    x: Decimal\n    by_x = Index('x')", "A.by_x: 'x': a Decimal is stored as text"),
        ("class A(Table):\n    x: list[Decimal | None]\n    by_x = Index('x')", "A.by_x: 'x': a Decimal is stored as text"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found_when_it_is_loaded(tmp_path: Path, source: str, reason: str) -> None:
    assert refusal(tmp_path, {"f": source}).startswith(reason)


def test_two_classes_of_one_name_cannot_be_meant_by_name(tmp_path: Path) -> None:
    modules = {
        "a": "class Item(Table, name='a'):\n    x: int",
        "b": "class Item(Table, name='b'):\n    x: int",
        "c": "class C(Table):\n    x: Id['Item']",
    }
    message, place = refusal(tmp_path, modules).splitlines()
    assert message == 'C: Id["Item"] names bundle.a.Item and bundle.b.Item'
    assert place.startswith('  File "bundle/c.py", line ')


def test_functions_stand_in_modules(tmp_path: Path) -> None:
    write_package(tmp_path, {"f": "x = 1"})
    (tmp_path / "bundle" / "__init__.py").write_text(
        "from headwater import QueryCtx, query\n@query\ndef inside(ctx: QueryCtx) -> None: ...\n"
    )
    with pytest.raises(RequestError, match="not in its __init__"), imported(tmp_path, "bundle") as package:
        Bundle.load(package)
    with pytest.raises(RequestError, match="a bundle is a package"):
        Bundle.load(ModuleType("alone"))


CALLS = (
    "from headwater import HeadwaterError\n"
    + TABLE
    + """
@query
def one(ctx: QueryCtx) -> int:
    return 1

@mutation
def add(ctx: MutationCtx, number: int) -> Id[Item]:
    return ctx.db.insert(Item(number=number))

@query.internal
def concealed(ctx: QueryCtx) -> int:
    return 2

@mutation
def fails(ctx: MutationCtx, what: str) -> Any:
    return eval(what)

def raised(error):
    raise error

kept = []

@mutation
def outer(ctx: MutationCtx, what: str) -> Any:
    return eval(what)

@query
def numbers(ctx: QueryCtx, above: float = 0.0) -> list[float]:
    return [item.number for item in ctx.db.scan(Item) if item.number > above]

@query
def lists(ctx: QueryCtx) -> list[Item]:
    return ctx.db.scan(Item).collect()

@query
def chance(ctx: QueryCtx) -> list[float]:
    return [ctx.random.random(), ctx.random.random(), ctx.now_ms]

@query
def who(ctx: QueryCtx) -> Any:
    return ctx.auth.identity()

@query
def mine(ctx: QueryCtx) -> str:
    return ctx.auth.require().token_identifier

@query
def mine_within(ctx: QueryCtx) -> str:
    return ctx.run_query(mine)

@query
def mine_caught(ctx: QueryCtx) -> str:
    try:
        ctx.run_query(mine)
    except HeadwaterError:
        pass
    return "nothing of it"

class Mine(QueryCtx):
    def __init__(self, ctx: QueryCtx) -> None:
        super().__init__(ctx)
        self.mine = ctx.auth.require().subject

@query.using(Mine)
def mine_wrapped(ctx: Mine) -> int:
    return 1

class Named(QueryCtx):
    def __init__(self, ctx: QueryCtx) -> None:
        super().__init__(ctx)
        self.name = "ada"

class Twice(Named):
    def __init__(self, ctx: Named) -> None:
        super().__init__(ctx)
        self.name = ctx.name * 2

@query.using(Named).using(Twice).internal
def wrapped(ctx: Twice, end: str = "!") -> str:
    '''Say the name.'''
    return ctx.name + end
"""
)


@pytest.fixture
def world(tmp_path: Path) -> Any:
    with small_world(tmp_path, {"f": CALLS}) as made:
        yield made


def test_unknown_and_hidden_functions(world: World) -> None:
    call = world.bundle.call_query
    for name, told in (
        ("f:on", "there is no function 'f:on'; did you mean `f:one`?"),
        ("f:concealed", "there is no function 'f:concealed'"),
        ("", "there is no function ''"),
        ("f:o" * 1000, f"there is no function '{('f:o' * 67)[:200]}…'"),
        ("f:add", "f:add is a mutation, not a query"),
    ):
        failure = call(name, encode({}), world.backend).failure
        assert failure is not None
        assert (failure.code, failure.message, failure.trace) == ("unknown_function", told, "")
    assert world.query("f:concealed") == 2
    assert world.refused(world.mutation, "f:one").message == "f:one is a query, not a mutation"


def test_a_hidden_function_takes_no_step_that_an_unknown_one_does_not(world: World) -> None:
    """Counted in lines of Python, since times say little: the answer to both comes by the same way, so in the same time."""

    def lines(name: str) -> dict[str, int]:
        counted: dict[str, int] = {}

        def trace(frame: FrameType, event: str, _: object) -> Any:
            if event == "line":
                place = f"{frame.f_code.co_filename}:{frame.f_lineno}"
                counted[place] = counted.get(place, 0) + 1
            return trace

        sys.settrace(trace)
        try:
            world.bundle.call_query(name, encode({}), world.backend)
        finally:
            sys.settrace(None)
        return counted

    lines("f:warmup___")
    hidden, unknown, known = lines("f:concealed"), lines("f:qxzvkjwpy"), lines("f:one")
    mine = "/headwater/"
    assert {place: n for place, n in hidden.items() if mine in place} == {
        place: n for place, n in unknown.items() if mine in place
    }
    assert known != unknown


def test_application_errors_carry_data(world: World) -> None:
    failure = world.refused(
        world.mutation, "f:fails", what="raised(ApplicationError({'code': 'x', 'at': [1]}))"
    )
    assert failure.code == "application_error"
    assert decode(failure.data or b"") == {"code": "x", "at": [1]}
    failure = world.refused(world.mutation, "f:fails", what="raised(ApplicationError('gone'))")
    assert (failure.message, decode(failure.data or b"")) == ("gone", "gone")
    failure = world.refused(world.mutation, "f:fails", what="raised(ApplicationError({1, 2}))")
    assert (failure.code, failure.message) == (
        "internal_error",
        "the data of an ApplicationError: a `set` cannot be a value",
    )
    failure = world.refused(
        world.mutation, "f:fails", what="raised(ApplicationError(ctx.db.scan(Item).take(1)))"
    )
    assert decode(failure.data or b"") == []


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("raised(ValueError('no'))", "ValueError: no"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("exit(3)", "SystemExit: 3"),
        ("raised(KeyError('k'))", "KeyError: 'k'"),
        ("raised(KeyboardInterrupt('k'))", "KeyboardInterrupt: k"),
        ("raised(GeneratorExit('g'))", "GeneratorExit: g"),
    ],
)
def test_other_errors_are_internal_and_say_where(world: World, what: str, message: str) -> None:
    failure = world.refused(world.mutation, "f:fails", what=what)
    assert (failure.code, failure.message) == ("internal_error", message)
    lines = failure.trace.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert "bundle/f.py" in lines[1]
    assert "headwater" not in lines[1]
    assert lines[-1] == message


@pytest.mark.parametrize(
    "error",
    [
        "ValueError(text)",
        "ApplicationError(1, message=text)",
        "__import__('headwater_protocol').errors.RequestError(text)",
        "ApplicationError({1: text})",
        "type('Named' + text[:20], (Exception,), {})(text)",
    ],
)
def test_texts_of_errors_can_be_encoded_and_are_bounded(world: World, error: str) -> None:
    for text in ("'a file ' + chr(0xDCFF)", "'x' * 100_000 + chr(0xDCFF)"):
        failure = world.refused(world.mutation, "f:fails", what=f"raised({error.replace('text', text)})")
        encode([failure.message, failure.trace])
        assert len(failure.message) < 20_000
        assert len(failure.trace) < 20_000


def test_a_call_without_memory_is_left_to_its_process(world: World) -> None:
    with pytest.raises(MemoryError):
        world.mutation("f:fails", what="raised(MemoryError())")
    said = world.refused(world.mutation, "f:fails", what="raised(KeyError('MemoryError'))")
    assert said.code == "internal_error"


def test_long_traces_are_cut(world: World) -> None:
    failure = world.refused(world.mutation, "f:fails", what="raised(ValueError('x' * 100_000))")
    assert len(failure.trace) < 20_000


@pytest.mark.parametrize(
    "what",
    ["db.insert(Item(number=2))", "db.scan(Item)", "db.get(id)", "db.delete(id)", "run_query(numbers)"],
)
def test_a_ctx_that_is_kept_ends_with_its_call(world: World, what: str) -> None:
    world.mutation("f:outer", what="kept.clear() or kept.append(ctx)")
    made = world.mutation("f:add", number=1)
    failure = world.refused(world.mutation, "f:outer", what=f"(id := {made!r}) and kept[0].{what} and None")
    assert failure.message.startswith("TypeError: this ctx belongs to a call of f:outer that has ended")
    assert world.query("f:numbers") == [1.0]


@pytest.mark.parametrize(
    "what",
    [
        "collect()",
        "take(1)",
        "first()",
        "filter(bool).first()",
        "order('desc').collect()",
        "paginate(None, 1)",
    ],
)
def test_a_query_that_is_kept_ends_with_its_call(world: World, what: str) -> None:
    world.mutation("f:add", number=1)
    world.mutation("f:outer", what="kept.clear() or kept.append(ctx.db.scan(Item))")
    failure = world.refused(world.mutation, "f:outer", what=f"kept[0].{what} and None")
    assert failure.message.startswith("TypeError: this ctx belongs to a call of f:outer that has ended")


def test_nested_calls_are_checked_and_see_the_same_transaction(world: World) -> None:
    world.mutation("f:outer", what="[ctx.run_mutation(add, number=4), ctx.run_mutation(add, 5)] and None")
    assert world.mutation("f:outer", what="ctx.run_query(numbers, above=4)") == [5.0]
    assert [item["number"] for item in world.mutation("f:outer", what="ctx.run_query(lists)")] == [4, 5]
    assert world.mutation("f:outer", what="ctx.run_query(lists)[0].number") == 4
    for what, code, told in (
        (
            "ctx.run_mutation(add, number='x')",
            "invalid_arguments",
            "f:add: Expected `int`, got `str` - at `$.number`",
        ),
        (
            "ctx.run_mutation(add, nmber=1)",
            "invalid_arguments",
            "f:add: unknown argument `nmber`; did you mean `number`?",
        ),
        ("ctx.run_mutation(add, 1, 2)", "invalid_arguments", "f:add: it takes 1 arguments, got 2"),
        (
            "ctx.run_mutation(add, 1, number=1)",
            "invalid_arguments",
            "f:add: argument `number` is given twice",
        ),
        (
            "ctx.run_mutation(add, number={1})",
            "invalid_arguments",
            "f:add: a `set` cannot be a value - at `$.number`",
        ),
        ("ctx.run_mutation(one)", "internal_error", "TypeError: f:one is a query; run it with ctx.run_query"),
        (
            "ctx.run_query('f:one')",
            "internal_error",
            "TypeError: ctx.run_query takes a @query function of this bundle",
        ),
    ):
        failure = world.refused(world.mutation, "f:outer", what=what)
        assert failure.code == code
        assert failure.message.startswith(told)


def test_a_query_run_by_a_mutation_cannot_write(world: World) -> None:
    world.mutation("f:outer", what="add(ctx, 7) and None")  # a direct call is an ordinary one
    failure = world.refused(world.mutation, "f:outer", what="ctx.run_query(wrapped, end=1)")
    assert failure.code == "invalid_arguments"
    assert world.mutation("f:outer", what="ctx.run_query(wrapped, end='?')") == "adaada?"


def test_wrapped_functions_keep_their_signature(world: World) -> None:
    assert world.query("f:wrapped") == "adaada!"
    wrapped = next(item for item in world.manifest.functions if item.name == "f:wrapped")
    assert (wrapped.doc, wrapped.internal, list(wrapped.arguments["properties"])) == (
        "Say the name.",
        True,
        ["end"],
    )


def test_chance_and_time_stand_still(world: World) -> None:
    def run(seed: bytes) -> Any:
        outcome = world.bundle.call_query("f:chance", encode({}), world.backend, seed=seed)
        assert outcome.result is not None
        return decode(outcome.result.content)

    first = run(b"a")
    assert first == run(b"a")
    assert first[:2] != run(b"b")[:2]
    assert first[0] != first[1]
    assert first[2] == world.backend.now_us / 1000


def test_the_identity_is_handed_over_and_its_reading_noted(world: World) -> None:
    identity = encode({"tokenIdentifier": "i|s", "subject": "s", "more": 1})
    outcome = world.bundle.call_query("f:who", encode({}), world.backend, identity=identity)
    assert outcome.identity_read
    assert outcome.result is not None
    assert decode(outcome.result.content)["tokenIdentifier"] == "i|s"
    assert world.query("f:who") is None
    assert world.last.identity_read
    world.query("f:one")
    assert not world.last.identity_read


def identity_of(**claims: Any) -> Identity:
    return msgspec.msgpack.decode(
        encode({"tokenIdentifier": "i|s", "subject": "s", "claims": claims}), type=Identity
    )


def test_standard_claims_have_properties_and_others_are_in_the_claims() -> None:
    identity = identity_of(
        given_name="Ada",
        family_name="L",
        birthdate="1815-12-10",
        email_verified=True,
        updated_at=5,
        address={"country": "UK"},
        profile="https://p.example",
        roles=["admin"],
    )
    assert (identity.given_name, identity.family_name, identity.birthday) == ("Ada", "L", "1815-12-10")
    assert (identity.email_verified, identity.phone_number_verified) == (True, False)
    assert (identity.updated_at_s, identity.address) == (5.0, {"country": "UK"})
    assert (identity.profile_url, identity.picture_url) == ("https://p.example", None)
    assert identity.claims["roles"] == ["admin"]


def test_a_claim_of_another_type_is_none() -> None:
    odd = identity_of(given_name=1, email_verified="true", updated_at=True, address="here", locale=["en"])
    assert (odd.given_name, odd.email_verified, odd.updated_at_s) == (None, False, None)
    assert (odd.address, odd.language) == (None, None)


def test_a_call_that_requires_an_identity_is_refused_without_and_has_read_it(world: World) -> None:
    assert world.refused(world.query, "f:mine").code == "unauthenticated"
    assert world.last.identity_read
    identity = encode({"tokenIdentifier": "i|s", "subject": "s"})
    outcome = world.bundle.call_query("f:mine", encode({}), world.backend, identity=identity)
    assert outcome.identity_read
    assert outcome.result is not None
    assert decode(outcome.result.content) == "i|s"


@pytest.mark.parametrize("name", ["f:mine_within", "f:mine_wrapped", "f:mine_caught"])
def test_reading_the_identity_anywhere_below_a_call_is_noted(world: World, name: str) -> None:
    identity = encode({"tokenIdentifier": "i|s", "subject": "s"})
    outcome = world.bundle.call_query(name, encode({}), world.backend, identity=identity)
    assert outcome.identity_read
    nobody = world.bundle.call_query(name, encode({}), world.backend)
    assert nobody.identity_read, "that there is none is something to read"


def test_a_failed_call_says_what_it_read(world: World) -> None:
    failure = world.refused(world.query, "f:who", more=1)
    assert failure.code == "invalid_arguments"
    assert not world.last.identity_read
