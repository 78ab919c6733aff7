"""Deltas: applied to the old value they give the new one, to the last bit; and they are small where they should be."""

from __future__ import annotations

import math
from typing import Any

import msgspec
from headwater_protocol.deltas import apply_delta
from headwater_server.reactive.deltas import WORTHWHILE, delta
from hypothesis import given
from hypothesis import strategies as st
from support.plain_results import apply_operations, content_of

encode = msgspec.msgpack.encode
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from([0.0, -0.0, 1.0, math.inf]), st.text(max_size=3),
    st.binary(max_size=3),
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=2), inner, max_size=3)
    ),
    max_leaves=6,
)
fields = st.dictionaries(st.sampled_from("abcdef"), values, max_size=5)
documents = st.builds(
    lambda name, rest: {"_id": f"{name:08}", "padding": "p" * 60, **rest}, st.integers(0, 12), fields
)
unique = st.lists(documents, max_size=12, unique_by=lambda document: document["_id"])
lists = st.one_of(unique, st.lists(st.one_of(values, documents), max_size=12))
nested = st.recursive(
    documents | scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=12,
)
maps = fields.map(lambda rest: {"padding": "p" * 200, **rest})


def exact(value: Any) -> Any:
    """Return a form in which 1, 1.0, True and -0.0 differ and the order of fields does not matter."""
    match value:
        case dict():
            return "map", {name: exact(inner) for name, inner in value.items()}
        case list():
            return "list", [exact(inner) for inner in value]
        case _:
            return encode(value)


def check(old: Any, new: Any) -> None:
    operations = delta(content_of(old), content_of(new))
    if operations is not None:
        assert exact(apply_operations(old, operations)) == exact(new)
        assert exact(apply_delta(old, operations)) == exact(new)
        assert len(operations) <= len(encode(new)) * WORTHWHILE


@given(lists, lists)
def test_lists(old, new):
    check(old, new)


@given(unique, st.data())
def test_lists_that_were_edited(old, data):
    new = [data.draw(documents) if data.draw(st.booleans()) else element for element in old]
    new = data.draw(st.permutations(new)) if data.draw(st.booleans()) else new
    check(old, new + data.draw(st.lists(documents, max_size=2)))


@given(maps, maps)
def test_maps(old, new):
    check(old, new)


@given(unique, st.data())
def test_what_lies_within(old, data):
    """A page, a dict of lists, a list of lists: what changes somewhere inside costs little, and stays right."""
    new = [data.draw(documents) if data.draw(st.booleans()) else element for element in old]
    for wrapped in (lambda rows: {"page": rows, "isDone": False}, lambda rows: [[1, rows], [2, rows]],
                    lambda rows: {"deep": {"deeper": [{"rows": rows}]}}):  # fmt: skip
        check(wrapped(old), wrapped(new))


@given(nested, nested)
def test_deep_things(old, new):
    check(old, new)
    check({"a": old, "pad": "p" * 200}, {"a": new, "pad": "p" * 200})


@given(st.lists(documents, min_size=6, max_size=40, unique_by=lambda document: document["_id"]), st.data())
def test_one_changed_field_within_costs_a_patch(old, data):
    place = data.draw(st.integers(0, len(old) - 1))
    new = [*old[:place], old[place] | {"a": "changed"}, *old[place + 1 :]]
    for page in ({"page": new, "isDone": True}, [{"group": "one", "rows": new}], [["one", new]]):
        before = {"page": old, "isDone": True} if isinstance(page, dict) else [{"group": "one", "rows": old}]
        if isinstance(page, list) and isinstance(page[0], list):
            before = [["one", old]]
        operations = delta(content_of(before), content_of(page))
        assert operations is not None
        assert len(operations) < 60
        assert exact(apply_operations(before, operations)) == exact(page)


@given(values, values)
def test_anything(old, new):
    check(old, new)


@given(st.lists(documents, min_size=6, max_size=40, unique_by=lambda document: document["_id"]), st.data())
def test_one_changed_field_costs_a_patch(old, data):
    place = data.draw(st.integers(0, len(old) - 1))
    new = [*old[:place], old[place] | {"a": "changed"}, *old[place + 1 :]]
    operations = delta(content_of(old), content_of(new))
    assert operations is not None
    assert len(operations) < 40
