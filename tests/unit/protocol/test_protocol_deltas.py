from __future__ import annotations

from typing import Any

import pytest
from headwater_protocol.deltas import apply_delta
from headwater_protocol.errors import ProtocolError
from headwater_protocol.values import pack_value

ROWS = [{"_id": "a", "deep": [1]}, {"_id": "b", "deep": [2]}, {"_id": "c"}]


def test_kept_parts_are_the_same_objects_and_the_old_value_stays() -> None:
    before = pack_value(ROWS)
    new = apply_delta(ROWS, pack_value([0, [[1, [{"_id": "z"}]], [0, 1, 2], [2, 0, {"x": 1}, ["_id"]]]]))
    assert new == [{"_id": "z"}, ROWS[1], ROWS[2], {"deep": [1], "x": 1}]
    assert new[1] is ROWS[1]
    assert new[3]["deep"] is ROWS[0]["deep"]
    assert pack_value(ROWS) == before


def test_fields_of_a_dict() -> None:
    old = {"a": [1], "b": 2}
    new = apply_delta(old, pack_value([1, {"c": 3}, ["b"]]))
    assert new == {"a": [1], "c": 3}
    assert new["a"] is old["a"]


def test_lists_and_dicts_within() -> None:
    page = {"page": ROWS, "isDone": False, "more": {"deep": {"n": 1, "same": [1]}}}
    new = apply_delta(
        page,
        pack_value(
            [1, {"isDone": True}, [], {
                "page": [0, [[0, 1, 1], [3, 0, [1, {}, [], {"deep": [0, [[0, 0, 1], [1, [7]]]]}]]]],
                "more": [1, {}, [], {"deep": [1, {"n": 2}, []]}],
            }]
        ),
    )  # fmt: skip
    assert new == {
        "page": [ROWS[1], {"_id": "a", "deep": [1, 7]}],
        "isDone": True,
        "more": {"deep": {"n": 2, "same": [1]}},
    }
    assert new["page"][0] is ROWS[1]
    assert new["more"]["deep"]["same"] is page["more"]["deep"]["same"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("old", "operations"),
    [
        (ROWS, [0, [[0, 0, 4]]]),
        (ROWS, [0, [[0, -1, 1]]]),
        (ROWS, [0, [[0, 2, -1]]]),
        (ROWS, [0, [[2, 3, {}, []]]]),
        (ROWS, [0, [[2, -1, {}, []]]]),
        (ROWS, [0, [[2, 0, {}, ["nope"]]]]),
        (ROWS, [0, [[2, 0, {"_id": 1}, ["_id"]]]]),
        (ROWS, [0, [[2, 0, [], []]]]),
        (ROWS, [0, [[7]]]),
        (ROWS, [0, [0]]),
        (ROWS, [0, {}]),
        (ROWS, [1, {}, []]),
        ([1], [0, [[2, 0, {}, []]]]),
        ({"a": 1}, [0, []]),
        (ROWS, [0, [[3, 3, [1, {}, []]]]]),
        (ROWS, [0, [[3, -1, [1, {}, []]]]]),
        (ROWS, [0, [[3, 0, [0, []]]]]),
        (ROWS, [0, [[3, 0, {}]]]),
        ({"a": {}}, [1, {}, [], {"b": [1, {}, []]}]),
        ({"a": {}}, [1, {"a": {}}, [], {"a": [1, {}, []]}]),
        ({"a": {}}, [1, {}, ["a"], {"a": [1, {}, []]}]),
        ({"a": 1}, [1, {}, [], {"a": [1, {}, []]}]),
        ({"a": {}}, [1, {}, [], {"a": None}]),
        ({"a": {}}, [1, {}, [], []]),
        ("text", [1, {}, []]),
        (ROWS, [2]),
        (ROWS, []),
        (ROWS, None),
    ],
)
def test_what_does_not_fit_is_refused(old: Any, operations: Any) -> None:
    with pytest.raises(ProtocolError, match="delta: "):
        apply_delta(old, pack_value(operations))


def test_a_few_bytes_cannot_ask_for_endless_copies() -> None:
    old = [None] * 100_000
    with pytest.raises(ProtocolError, match="at most"):
        apply_delta(old, pack_value([0, [[0, 0, 100_000]] * 200]))
    with pytest.raises(ProtocolError, match="at most"):
        apply_delta([old], pack_value([0, [[3, 0, [0, [[0, 0, 100_000]] * 20]]] * 10]))
