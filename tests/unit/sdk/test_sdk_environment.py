"""Environment variables as bundles declare them: what a text becomes, and what is refused at load."""

from __future__ import annotations

import copy
import enum
from typing import Any, Literal

import msgspec
import pytest
from headwater import Environment, Secret, Struct
from headwater.environment import Environments
from headwater_protocol.errors import InternalError, RequestError
from headwater_protocol.manifest import Manifest, VariableManifest
from headwater_protocol.manifest_changes import changes_between
from headwater_protocol.variables import VariableRow, checked_name


class Color(enum.Enum):
    RED = "red"


class Place(Struct, frozen=True):
    city: str


class Env(Environment):
    text: str
    whole: int = 1
    ratio: float = 0.5
    on: bool = False
    mode: Literal["a", "b"] = "a"
    color: Color = Color.RED
    many: list[int] = []  # noqa: RUF012
    place: Place | None = None
    key: Secret[str]
    pin: Secret[int] | None = None


def rows(**values: str) -> dict[str, bytes]:
    return {name: VariableRow(value, None, 1).to_bytes() for name, value in values.items()}


def load(**values: str) -> Env:
    return Environments([Env]).load(Env, rows(**values).get)


def test_each_type_takes_the_text_that_people_write() -> None:
    env = load(
        TEXT="10", WHOLE="10", RATIO="2", ON="true", MODE="b", COLOR="red", MANY="[1, 2]",
        PLACE='{"city": "Rome"}', KEY='"quoted"', PIN="7",
    )  # fmt: skip
    assert (env.text, env.whole, env.ratio, env.on, env.mode) == ("10", 10, 2.0, True, "b")
    assert (env.color, env.many, env.place) == (Color.RED, [1, 2], Place("Rome"))
    assert env.key.reveal() == '"quoted"', "text is taken as it is"
    assert env.pin is not None
    assert env.pin.reveal() == 7


def test_what_is_not_set_has_its_default_or_is_told() -> None:
    env = load(TEXT="x", KEY="k")
    assert (env.whole, env.many, env.place, env.pin) == (1, [], None, None)
    with pytest.raises(InternalError, match="KEY is not set"):
        load(TEXT="x")


def test_the_same_rows_give_the_same_object() -> None:
    environments = Environments([Env])
    found = rows(TEXT="x", KEY="k")
    first = environments.load(Env, found.get)
    assert environments.load(Env, found.get) is first
    found |= rows(WHOLE="2")
    assert environments.load(Env, found.get).whole == 2


def test_a_secret_shows_itself_nowhere() -> None:
    env = load(TEXT="x", KEY="hush-hush")
    shown = [repr(env), str(env), repr(env.key), f"{env.key}", f"{env.key!s:>20}", "%s" % env.key]  # noqa: UP031
    assert not [text for text in shown if "hush" in text]
    with pytest.raises(TypeError):
        msgspec.json.encode(env.key)
    assert env.key == Secret("hush-hush") != Secret("other")
    assert copy.copy(env.key) == env.key


def test_problems_name_the_variable_and_never_a_secret() -> None:
    environments = Environments([Env])
    found = environments.problems(
        rows(WHOLE="ten", KEY="clear", PIN="hush").get, {"RATIO": "x", "MODE": "c", "TEXT": None}
    )
    assert found == [
        "KEY is a secret, and is stored in the clear: set it again with --secret",
        "MODE: Invalid enum value 'c'",
        "PIN is a secret, and is stored in the clear: set it again with --secret",
        "RATIO: Expected `float`, got `str`",
        "TEXT is not set; it is a str",
        "WHOLE: Expected `int`, got `str`",
    ]
    (pin,) = environments.problems({}.get, {"PIN": "hush", "TEXT": "x", "KEY": "k"})
    assert pin == "PIN: it does not fit `secret int`"
    assert environments.problems(rows(TEXT="x").get, {"KEY": "k"}) == []


def test_sealed_rows_are_opened_by_who_has_the_key() -> None:
    environments = Environments([Env])
    stored = rows(TEXT="x") | {"KEY": VariableRow(None, b"sealed", 1).to_bytes()}
    with pytest.raises(InternalError, match="nobody here has the key"):
        environments.load(Env, stored.get)
    environments.unseal = lambda name, sealed: f"{name} {sealed.decode()}"
    assert environments.load(Env, stored.get).key.reveal() == "KEY sealed"


def refusal(body: str) -> str:
    names: dict[str, Any] = {"__name__": "some.module"}
    # Without this module's `annotations` from the future: there is no module in which they could be looked up.
    code = compile(
        "from headwater import Environment, Secret\n" + body, "a bundle", "exec", dont_inherit=True
    )
    exec(code, names)
    classes = [item for item in names.values() if isinstance(item, type) and issubclass(item, Environment)]
    with pytest.raises(RequestError) as raised:
        Environments([item for item in classes if item is not Environment])  # type: ignore[misc]
    assert raised.value.code == "invalid_bundle"
    return raised.value.message


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("Key: str", "E.Key: write it in small letters"),
        ("_key: str", "E._key: write it in small letters"),
        ("key: Secret", "E.key: say what is secret: Secret[str]"),
        ("key: Secret[int] | str", "E.key: of a union the whole is secret"),
        ("key: complex = 'x'", "E.key: its default does not fit"),
        ("key: int = 'x'", "E.key: its default does not fit: Expected `int`, got `str`"),
    ],
)
def test_a_field_that_cannot_be_is_refused_at_load(field: str, said: str) -> None:
    assert said in refusal(f"class E(Environment):\n    {field}\n")


def test_two_classes_must_agree_on_a_variable() -> None:
    told = refusal("class A(Environment):\n    key: str\nclass B(Environment):\n    key: Secret[str]\n")
    assert "KEY is `str` in another class, `secret str` here" in told


def test_the_manifest_tells_of_variables_and_their_changes() -> None:
    manifest = Manifest(variables=Environments([Env]).manifest())
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert VariableManifest("KEY", "secret str", True, True) in manifest.variables
    assert VariableManifest("WHOLE", "int", False, False) in manifest.variables
    assert b"variables" not in Manifest().to_json(), "what was written before stays as it was"
    changes = changes_between(Manifest(), manifest)
    assert ("added", "variable", "KEY", ("secret str", "must be set")) in [
        (one.sign, one.what, one.name, one.details) for one in changes
    ]
    changed = Manifest(variables=(VariableManifest("KEY", "str", False, True),))
    assert next((one.sign, one.name, one.details) for one in changes_between(manifest, changed)) == (
        "removed", "COLOR", ("its value is kept",),
    )  # fmt: skip


def test_names() -> None:
    for name in ("A", "A_1", "OPENAI_KEY"):
        assert checked_name(name, 10) == name
    for name in ("", "a", "1A", "A-B", "É", "A" * 11, "A B", "A\n"):
        with pytest.raises(RequestError, match="cannot name a variable"):
            checked_name(name, 10)


def test_a_class_of_another_bundle_is_refused() -> None:
    with pytest.raises(TypeError, match="of this bundle"):
        Environments([]).load(Env, {}.get)
