"""Text longer than an index key against plain sorted lists, through the real transaction over a real LMDB store.

The model compares values themselves: it knows no encoding, no keys, and no place where they are cut.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from headwater_protocol.errors import RequestError
from headwater_storage import transaction as transactions
from headwater_storage.keys import FIELDS_BYTES_MAX, MISSING
from headwater_storage.lmdb_store import LmdbStore
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from support.memory_store import StoredTables, decode, encode, table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pytest
    from headwater_storage.proposal import Proposal
    from headwater_storage.transaction import Transaction

INDEXES = {"by_a": ["a"], "by_ab": ["a", "b"], "by_ba": ["b", "a"], "by_u": ["u"], "by_uv": ["u", "v"]}
UNIQUE = {"by_u", "by_uv"}
WHOLE = FIELDS_BYTES_MAX - 2  # the longest text with nothing of it cut off: a tag before it, an end behind it
FIELDS = "abuv"

lengths = st.sampled_from([0, 1, *range(WHOLE - 4, WHOLE + 4), WHOLE + 200, 2 * WHOLE])
tails = st.text("ab\0\1é\U0001f600", max_size=3)
texts = st.builds(lambda length, tail: "k" * length + tail, lengths, tails)
alike = tails.map(lambda tail: "k" * (WHOLE + 2) + tail)  # keys do not tell them apart
values = st.one_of(alike, alike, texts, st.sampled_from([MISSING, None, 7, "k" * WHOLE, "k" * (WHOLE + 1)]))


class Bound(NamedTuple):
    value: Any
    inclusive: bool


def place(value: Any) -> tuple[int, Any]:
    """Where a value stands in the order of values."""
    if value is MISSING or value is None:
        return (0 if value is MISSING else 1, 0)
    return (3, value.encode()) if isinstance(value, str) else (2, value)


class Rows(dict[str, dict[str, Any]]):
    """The documents by id; an index is a sort of them."""

    def fields(self, document_id: str, index: str) -> list[tuple[int, Any]]:
        return [place(self[document_id].get(name, MISSING)) for name in INDEXES[index]]

    def read(
        self, index: str, equal: list[Any], lower: Bound | None, upper: Bound | None, *, descending: bool
    ) -> list[str]:
        found = []
        for document_id in self:
            row = self.fields(document_id, index)
            if row[: len(equal)] != [place(value) for value in equal]:
                continue
            subject = row[len(equal)] if len(equal) < len(row) else None
            if lower and (subject < place(lower.value) or (subject == place(lower.value)) > lower.inclusive):
                continue
            if upper and (subject > place(upper.value) or (subject == place(upper.value)) > upper.inclusive):
                continue
            found.append((row, document_id))
        return [document_id for _, document_id in sorted(found, reverse=descending)]

    def collides(self, document_id: str, document: dict[str, Any]) -> bool:
        """Tell whether a unique index lets a document not in beside the others."""
        for index in UNIQUE:
            mine = [document.get(name) for name in INDEXES[index]]
            others = [other for other_id, other in self.items() if other_id != document_id]
            if None not in mine and mine in [
                [other.get(name) for name in INDEXES[index]] for other in others
            ]:
                return True
        return False


@contextmanager
def a_store() -> Iterator[StoredTables]:
    with tempfile.TemporaryDirectory() as folder:
        store = LmdbStore.open(Path(folder), map_size=1 << 24, create=True)
        try:
            tables = StoredTables(store)
            indexes = [(name, fields, name in UNIQUE) for name, fields in INDEXES.items()]
            tables.add_table(table(32, "t", *indexes))
            yield tables
        finally:
            store.close()


def a_value(draw: Any, rows: Rows) -> Any:
    """A value, often one that is near those that are there: itself, cut short, gone on with."""
    known = sorted({v for row in rows.values() for v in row.values() if isinstance(v, str)})
    if not known or draw(st.integers(0, 2)):
        return draw(values)
    text = draw(st.sampled_from(known))
    match draw(st.sampled_from(["same", "shorter", "middle", "longer"])):
        case "shorter":
            return text[:-1]
        case "middle":
            return text[: draw(st.integers(0, len(text)))]
        case "longer":
            return text + draw(tails)
    return text


def a_write(draw: Any, transaction: Transaction, rows: Rows) -> None:
    document_id, created = transaction.new_id("t")
    if rows and draw(st.booleans()):
        document_id = draw(st.sampled_from(sorted(rows)))
        if draw(st.integers(0, 3)) == 0:
            transaction.delete(document_id)
            del rows[document_id]
            return
    drawn = {name: a_value(draw, rows) for name in FIELDS}
    document = {name: value for name, value in drawn.items() if value is not MISSING}
    try:
        transaction.put(document_id, encode(document_id, created, **document))
    except RequestError as error:
        refused = error
    else:
        assert not rows.collides(document_id, document)
        rows[document_id] = document
        return
    assert rows.collides(document_id, document)
    assert refused.code == "unique_violation"
    assert "'t'" in refused.message
    assert any(f"'{index}'" in refused.message for index in UNIQUE)


class Question(NamedTuple):
    """What a range read asks for."""

    index: str
    equal: list[Any]
    lower: Bound | None
    upper: Bound | None
    descending: bool

    def expected(self, rows: Rows) -> list[str]:
        return rows.read(self.index, self.equal, self.lower, self.upper, descending=self.descending)

    def asked(self, transaction: Transaction, **ends: Any) -> Iterator[str]:
        reading = transaction.read_range(
            "t", self.index, self.equal, self.lower, self.upper, descending=self.descending, **ends
        )
        return (decode(stored.document)["_id"] for stored in reading)


def a_question(draw: Any, rows: Rows) -> Question:
    index = draw(st.sampled_from(sorted(INDEXES)))
    equal = [a_value(draw, rows) for _ in range(draw(st.integers(0, len(INDEXES[index]))))]
    ends: list[Bound | None] = [None, None]
    if len(equal) < len(INDEXES[index]):
        ends = [
            Bound(a_value(draw, rows), draw(st.booleans())) if draw(st.booleans()) else None for _ in ends
        ]
    return Question(index, equal, ends[0], ends[1], draw(st.booleans()))


def read_in_all_ways(draw: Any, transaction: Transaction, rows: Rows) -> None:
    """At once, from its beginning only, and in pages."""
    question = a_question(draw, rows)
    expected = question.expected(rows)
    assert list(question.asked(transaction)) == expected
    size = draw(st.integers(1, 3))
    pages: list[str] = []
    after = None
    while True:
        reading = question.asked(transaction, after=after)
        page = [document_id for _, document_id in zip(range(size), reading, strict=False)]
        reading.close()  # type: ignore[attr-defined]
        if not page:
            break
        pages += page
        last = msgspec.msgpack.encode(rows[page[-1]])
        after = transaction.position("t", question.index, page[-1], last)
    assert pages == expected


def the_trial(data: st.DataObject) -> None:
    rows = Rows()
    draw = data.draw
    with a_store() as store:
        for call in range(draw(st.integers(1, 3))):
            transaction = store.transaction(now_us=1_700_000_000_000_000 + call)
            for _ in range(draw(st.integers(1, 5))):
                a_write(draw, transaction, rows)
            read_in_all_ways(draw, transaction, rows)
            store.commit(transaction.proposal())
            transaction.snapshot.close()
            reader = store.transaction(writable=False)
            read_in_all_ways(draw, reader, rows)
            reader.snapshot.close()


@settings(max_examples=100)
@given(st.data())
def test_long_text_sorts_compares_pages_and_collides_like_any_other(data: st.DataObject) -> None:
    the_trial(data)


def touches(reader: Transaction, proposal: Proposal) -> bool:
    keys = proposal.conflict_keys()
    return any(lo <= key < hi for key in keys for lo, hi in reader.ranges) or not keys.isdisjoint(
        reader.points
    )


def the_beginning(data: st.DataObject) -> None:
    rows = Rows()
    draw = data.draw
    with a_store() as store:
        writer = store.transaction()
        for _ in range(draw(st.integers(1, 4))):
            a_write(draw, writer, rows)
        store.commit(writer.proposal())
        writer.snapshot.close()
        reader, writer = store.transaction(writable=False), store.transaction(now_us=1_700_000_000_000_001)
        question = a_question(draw, rows)
        count = draw(st.integers(1, 4))
        reading = question.asked(reader)
        taken = [document_id for _, document_id in zip(range(count), reading, strict=False)]
        assert taken == question.expected(rows)[:count]
        before = [rows[document_id] for document_id in taken]
        for _ in range(draw(st.integers(1, 2))):
            a_write(draw, writer, rows)
        now = question.expected(rows)[:count]
        if (now, [rows[document_id] for document_id in now]) != (taken, before):
            assert touches(reader, writer.proposal())
        reading.close()  # type: ignore[attr-defined]
        reader.snapshot.close()
        writer.snapshot.close()


@settings(max_examples=100)
@given(st.data())
def test_what_changes_a_beginning_that_was_read_conflicts_with_it(data: st.DataObject) -> None:
    """Also where entries that keys do not tell apart change places, or come in before the last that was taken."""
    the_beginning(data)


def fails(trial: Callable[[st.DataObject], None]) -> bool:
    """Tell whether a trial finds something, without looking for the smallest example of it."""
    search = settings(max_examples=2_000, database=None, phases=[Phase.generate])
    try:
        given(st.data())(search(trial))()
    except AssertionError:
        return True
    return False


def test_the_trial_fails_when_cut_entries_stay_in_the_order_of_their_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transactions, "whole_key", lambda key, _: key)
    assert fails(the_trial)


def test_the_trial_fails_when_cut_entries_count_as_read_up_to_the_last_key_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cut_group = transactions.Transaction._cut_group

    def up_to_the_last(self: Any, handle: Any, scan: Any, group: Any, bounds: Any) -> Iterator[Any]:
        for document in cut_group(self, handle, scan, group, bounds):
            scan.last = group[-1][0]
            yield document

    monkeypatch.setattr(transactions.Transaction, "_cut_group", up_to_the_last)
    assert fails(the_beginning)
