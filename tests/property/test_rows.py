"""Whatever is done to Rows gives what it gives on an ordinary list of the same documents."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from headwater.results import encode_result
from headwater.rows import Rows
from headwater.schema import Table
from headwater.values import decode_any, decoder, encode
from hypothesis import given
from hypothesis import strategies as st


class Note(Table, name="notes"):
    text: str
    weight: float = 0.0


documents = st.lists(
    st.builds(
        lambda text, weight, number: encode(
            {"_id": f"11{number:031d}", "_creationTime": 1.5, "text": text, "weight": weight}
        ),
        st.text(max_size=200),
        st.floats(allow_nan=False),
        st.integers(0, 10**30),
    ),
    max_size=40,
)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("pop"), st.none()),
        st.tuples(st.just("reverse"), st.none()),
        st.tuples(st.just("double"), st.none()),
        st.tuples(st.just("slice"), st.integers(0, 20)),
        st.tuples(st.just("delete"), st.integers(0, 20)),
        st.tuples(st.just("sort"), st.none()),
    ),
    max_size=6,
)


def apply(found: Any, name: str, number: int | None) -> Any:
    if name == "pop":
        if found:
            found.pop()
    elif name == "reverse":
        found.reverse()
    elif name == "double":
        found = found + found
    elif name == "slice":
        found = found[number:]
    elif name == "delete":
        del found[: number or 0]
    else:
        found.sort(key=lambda note: note.text)
    return found


@given(documents, operations, st.booleans())
def test_rows_behave_as_a_list(
    stored: list[bytes], steps: list[tuple[str, int | None]], current: bool
) -> None:
    decode = decoder(list[Note]).decode
    plain: Any = [decoder(Note).decode(document) for document in stored]
    lazy: Any = Rows(stored, decode, Note, current=current)
    for name, number in steps:
        plain, lazy = apply(plain, name, number), apply(lazy, name, number)
        assert len(lazy) == len(plain)
    by_bytes, by_objects = encode_result(lazy), encode_result(plain)
    assert by_bytes == by_objects
    assert lazy == plain


@given(documents)
def test_bounds_cut_a_list_into_its_elements(stored: list[bytes]) -> None:
    result = encode_result(Rows(stored, decoder(list[Note]).decode, Note, current=True))
    assert result.bounds is not None
    assert result.ids is not None
    offsets = [int.from_bytes(result.bounds[at : at + 4], "little") for at in range(0, len(result.bounds), 4)]
    elements = [result.content[lo:hi] for lo, hi in pairwise(offsets)]
    assert elements == stored
    assert offsets[-1] == len(result.content)
    assert result.ids == [element["_id"] for element in decode_any(result.content)]
