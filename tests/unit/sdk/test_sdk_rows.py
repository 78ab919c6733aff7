"""Rows: a list whose items are decoded at the first look, whoever looks and however."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any

import pytest
from headwater.rows import Rows, element_id, encode_rows, stored_id, stored_ids
from headwater.schema import Table
from headwater.values import decoder, encode

if TYPE_CHECKING:
    from collections.abc import Callable


class Item(Table, name="items"):
    number: int
    note: str = ""


ITEMS = [Item(number=number) for number in (3, 1, 2)]
IDS = [f"11{number:031d}" for number in range(3)]


def stored(item: Item, document_id: str) -> bytes:
    return encode({"_id": document_id, "_creationTime": 1.0, "number": item.number, "note": item.note})


def rows(*, current: bool = True) -> Any:
    documents = [stored(item, document_id) for item, document_id in zip(ITEMS, IDS, strict=True)]
    return Rows(documents, decoder(list[Item]).decode, Item, current=current)


def numbers(found: Any) -> list[int]:
    return [item.number for item in found]


def key(item: Any) -> int:
    return int(item.number)


@pytest.mark.parametrize(
    ("look", "expected"),
    [
        (lambda r: [item.number for item in r], [3, 1, 2]),
        (lambda r: numbers(r[:2]), [3, 1]),
        (lambda r: numbers(r + []), [3, 1, 2]),  # noqa: RUF005
        (lambda r: numbers([] + r), [3, 1, 2]),  # noqa: RUF005
        (lambda r: numbers([*r]), [3, 1, 2]),
        (lambda r: numbers(list(r)), [3, 1, 2]),
        (lambda r: numbers(tuple(r)), [3, 1, 2]),
        (lambda r: numbers(sorted(r, key=key)), [1, 2, 3]),
        (lambda r: numbers(reversed(r)), [2, 1, 3]),
        (lambda r: [left.number for left, _ in zip(r, r, strict=True)], [3, 1, 2]),
        (lambda r: r[-1].number, 2),
        (lambda r: r[0] in r, True),
        (lambda r: r.index(r[1]), 1),
        (lambda r: r.pop().number, 2),
        (lambda r: max(r, key=key).number, 3),
        (lambda r: numbers(copy.deepcopy(r)), [3, 1, 2]),
        (lambda r: numbers(pickle.loads(pickle.dumps(r))), [3, 1, 2]),
        (lambda r: numbers(r.copy()), [3, 1, 2]),
        (lambda r: numbers(r * 2), [3, 1, 2, 3, 1, 2]),
        (lambda r: r == list(rows()), True),
        (lambda r: list(rows()) == r, True),
        (lambda r: "number=3" in repr(r), True),
    ],
)
def test_every_look_sees_documents(look: Callable[[Any], Any], expected: Any) -> None:
    assert look(rows()) == expected


def test_patterns_and_growing_lists_see_documents() -> None:
    match rows():
        case [Item(number=first), *rest]:
            assert (first, numbers(rest)) == (3, [1, 2])
        case _:
            pytest.fail("no match")
    grown: list[Any] = []
    grown.extend(rows())
    grown += rows()
    assert numbers(grown) == [3, 1, 2, 3, 1, 2]


def test_changes_stay_and_are_encoded() -> None:
    changed = rows()
    changed.sort(key=key)
    del changed[0]
    assert numbers(changed) == [2, 3]
    assert decoder(list[Item]).decode(encode_rows(changed)) == list(changed)


def test_counting_is_no_look() -> None:
    untouched = rows()
    assert (len(untouched), bool(untouched)) == (3, True)
    assert untouched.untouched


def test_untouched_rows_go_out_as_they_were_stored() -> None:
    untouched = rows()
    assert encode_rows(untouched) == b"\x93" + b"".join(untouched.stored())
    assert untouched.untouched


def test_rows_of_an_older_shape_are_encoded_anew() -> None:
    documents = [encode({"_id": IDS[0], "_creationTime": 1.0, "number": 7})]
    old = Rows(documents, decoder(list[Item]).decode, Item, current=False)
    assert decoder(Any).decode(encode_rows(old)) == [
        {"_id": IDS[0], "_creationTime": 1.0, "number": 7, "note": ""}
    ]


@pytest.mark.parametrize("count", [0, 1, 15, 16, 65_535, 65_536])
def test_headers_of_all_lengths(count: int) -> None:
    documents = [stored(ITEMS[0], IDS[0])] * count
    many = Rows(documents, decoder(list[Item]).decode, Item, current=True)
    assert len(decoder(list[Any]).decode(encode_rows(many))) == count


def test_ids_are_read_from_stored_bytes() -> None:
    untouched = rows()
    assert stored_ids(untouched.stored()) == IDS
    assert stored_ids([]) == []
    wide = encode({"_id": IDS[1], **{f"field_{number}": number for number in range(20)}})
    assert stored_id(wide) == IDS[1]
    assert stored_id(untouched.stored()[2]) == IDS[2]


def test_ids_of_elements() -> None:
    assert element_id({"_id": "a", "b": 1}) == "a"
    assert element_id({"id": "a"}) is None
    assert element_id(rows()[1]) == IDS[1]
    assert element_id(ITEMS[0]) is None
    assert element_id("text") is None
