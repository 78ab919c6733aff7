from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from headwater_protocol.errors import RequestError, StorageError
from headwater_storage.catalog import REQUESTS, TABLES_RANGE
from headwater_storage.keys import document_key, index_range, table_range
from support.memory_store import MemoryStore, decode, encode, insert, table

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater_storage.transaction import Transaction

LONG = "x" * 600


class Bound(NamedTuple):
    value: Any
    inclusive: bool


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    store.add_table(
        table(
            32,
            "messages",
            ("by_channel", ["channel"], False),
            ("by_score", ["channel", "score"], False),
            ("by_email", ["profile.email"], True),
        )
    )
    store.add_table(table(33, "notes", ("by_title", ["title"], True)))
    return store


def read(transaction: Transaction, index: str | None, *equal: Any, **options: Any) -> list[str]:
    return [document["body"] for document in read_all(transaction, index, *equal, **options)]


def read_all(
    transaction: Transaction,
    index: str | None,
    *equal: Any,
    lower: Bound | None = None,
    upper: Bound | None = None,
    descending: bool = False,
    table_name: str = "messages",
) -> list[dict[str, Any]]:
    found = transaction.read_range(table_name, index, equal, lower, upper, descending=descending)
    return [decode(stored.document) for stored in found]


def test_ids_are_well_formed_and_sort_by_insertion(store: MemoryStore) -> None:
    transaction = store.transaction()
    ids = [transaction.new_id("messages")[0] for _ in range(1100)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 1100
    assert transaction.table_name(ids[-1]) == "messages"
    assert transaction.new_id("notes")[1] == 1_700_000_000_000.0


def test_own_writes_are_read_before_and_after_the_commit(store: MemoryStore) -> None:
    first = store.transaction()
    kept = insert(first, "messages", channel="a", score=2, body="two")
    gone = insert(first, "messages", channel="a", score=3, body="three")
    insert(first, "messages", channel="b", score=1, body="other")
    assert read(first, "by_score", "a") == ["two", "three"]
    store.commit(first.proposal())

    second = store.transaction(now_us=first.now_us + 1)
    insert(second, "messages", channel="a", score=1, body="one")
    second.delete(gone)
    second.put(kept, encode(kept, 1.0, channel="a", score=5, body="five"))
    assert read(second, "by_score", "a") == ["one", "five"]
    assert read(second, "by_score", "a", descending=True) == ["five", "one"]
    assert read(second, "by_score", "a", lower=Bound(1, False)) == ["five"]
    assert read(second, None) == ["five", "other", "one"]
    assert second.get(gone) is None
    store.commit(second.proposal())

    third = store.transaction()
    assert read(third, "by_score", "a", descending=True) == ["five", "one"]
    assert third.get(gone) is None


def test_a_range_is_read_as_of_its_beginning(store: MemoryStore) -> None:
    transaction = store.transaction()
    for score in range(3):
        insert(transaction, "messages", channel="a", score=score, body=str(score))
    seen = []
    for stored in transaction.read_range("messages", "by_channel", ["a"], None, None, descending=False):
        seen.append(decode(stored.document)["body"])
        insert(transaction, "messages", channel="a", score=9, body="late")
    assert seen == ["0", "1", "2"]


def test_a_read_set_ends_where_reading_ended(store: MemoryStore) -> None:
    writer = store.transaction()
    for score in range(5):
        insert(writer, "messages", channel="a", score=score, body=str(score))
    proposal = writer.proposal()
    store.commit(proposal)
    entries = [write.new_entries[0] for write in proposal.writes]

    early = store.transaction()
    reading = early.read_range("messages", "by_channel", ["a"], None, None, descending=False)
    next(reading)
    next(reading)
    [(lo, hi)] = early.proposal().ranges
    assert lo < entries[0] < entries[1] < hi <= entries[2]

    backwards = store.transaction()
    reading = backwards.read_range("messages", "by_channel", ["a"], None, None, descending=True)
    next(reading)
    [(lo, hi)] = backwards.ranges
    assert entries[3] < lo <= entries[4] < hi

    dry = store.transaction()
    assert read(dry, "by_channel", "nobody") == []
    [(lo, hi)] = dry.ranges
    ghost = store.transaction()
    insert(ghost, "messages", channel="nobody", body="")
    assert lo <= ghost.proposal().writes[0].new_entries[0] < hi


def test_missing_documents_are_points(store: MemoryStore) -> None:
    transaction = store.transaction()
    document_id = transaction.new_id("messages")[0]
    other = store.transaction()
    assert other.get(document_id) is None
    assert document_key(32, document_id[-31:].encode()) in other.points
    assert document_key(1, b"messages") in other.points


def test_whoever_names_an_unknown_table_reads_the_catalog(store: MemoryStore) -> None:
    transaction = store.transaction()
    with pytest.raises(RequestError, match="nothing") as failure:
        transaction.new_id("nothing")
    assert failure.value.code == "unknown_table"
    assert transaction.ranges == [TABLES_RANGE]
    with pytest.raises(RequestError) as failure:
        read(store.transaction(), "by_size")
    assert failure.value.code == "unknown_index"


def test_conflict_keys_name_every_index_also_where_the_entry_stays(store: MemoryStore) -> None:
    writer = store.transaction()
    document_id = insert(writer, "messages", channel="a", score=1, body="old")
    store.commit(writer.proposal())
    editor = store.transaction()
    editor.put(document_id, encode(document_id, 1.0, channel="a", score=2, body="new"))
    [write] = editor.proposal().writes
    assert write.old_entries[0] == write.new_entries[0]
    assert write.old_entries[1] != write.new_entries[1]
    assert len(write.conflict_keys()) == 5  # id, by_channel, two of by_score, by_email


def test_what_changes_nothing_is_not_proposed(store: MemoryStore) -> None:
    writer = store.transaction()
    document_id = insert(writer, "notes", title="a", body="a")
    brief = insert(writer, "notes", title="b", body="b")
    writer.delete(brief)
    assert len(writer.proposal().writes) == 1
    store.commit(writer.proposal())
    same = store.transaction()
    stored = same.get(document_id)
    assert stored is not None
    same.put(document_id, stored.document)
    assert same.proposal().writes == []


class TestUnique:
    def test_a_second_value_is_refused_and_leaves_no_trace(self, store: MemoryStore) -> None:
        writer = store.transaction()
        insert(writer, "notes", title="a", body="first")
        with pytest.raises(RequestError, match="by_title") as failure:
            insert(writer, "notes", title="a", body="second")
        assert failure.value.code == "unique_violation"
        assert read(writer, None, table_name="notes") == ["first"]
        store.commit(writer.proposal())
        with pytest.raises(RequestError, match="title='a'"):
            insert(store.transaction(), "notes", title="a", body="third")

    def test_null_and_missing_collide_with_nothing(self, store: MemoryStore) -> None:
        writer = store.transaction()
        insert(writer, "notes", title=None, body="1")
        insert(writer, "notes", title=None, body="2")
        insert(writer, "notes", body="3")
        insert(writer, "notes", body="4")
        assert read(writer, "by_title", table_name="notes") == ["3", "4", "1", "2"]

    def test_equal_numbers_collide(self, store: MemoryStore) -> None:
        writer = store.transaction()
        insert(writer, "notes", title=1, body="int")
        with pytest.raises(RequestError):
            insert(writer, "notes", title=1.0, body="float")

    def test_a_document_may_keep_its_value_and_free_it(self, store: MemoryStore) -> None:
        writer = store.transaction()
        first = insert(writer, "notes", title="a", body="1")
        store.commit(writer.proposal())
        editor = store.transaction()
        editor.put(first, encode(first, 1.0, title="a", body="2"))
        editor.put(first, encode(first, 1.0, title="b", body="2"))
        insert(editor, "notes", title="a", body="3")
        assert read(editor, "by_title", table_name="notes") == ["3", "2"]

    def test_the_probe_is_part_of_the_read_set(self, store: MemoryStore) -> None:
        one, two = store.transaction(), store.transaction()
        insert(one, "notes", title="a", body="1")
        insert(two, "notes", title="a", body="2")
        key = two.proposal().writes[0].new_entries[0]
        assert any(lo <= key < hi for lo, hi in one.proposal().ranges)

    def test_long_values_are_compared_whole(self, store: MemoryStore) -> None:
        writer = store.transaction()
        first = insert(writer, "notes", title=LONG + "a", body="1")
        insert(writer, "notes", title=LONG + "b", body="2")
        with pytest.raises(RequestError):
            insert(writer, "notes", title=LONG + "b", body="3")
        store.commit(writer.proposal())
        editor = store.transaction()
        with pytest.raises(RequestError):  # the cut key stays the same, the value does not
            editor.put(first, encode(first, 1.0, title=LONG + "b", body="4"))
        editor.put(first, encode(first, 1.0, title=LONG + "c", body="5"))
        store.commit(editor.proposal())
        assert read(store.transaction(), "by_title", table_name="notes") == ["2", "5"]


class TestLongText:
    def test_order_and_ranges(self, store: MemoryStore) -> None:
        writer = store.transaction()
        for tail in "badc":
            insert(writer, "messages", channel=LONG + tail, body=tail)
        insert(writer, "messages", channel="w", body="before")
        insert(writer, "messages", channel="y", body="after")
        for committed in (False, True):
            if committed:
                store.commit(writer.proposal())
            transaction = store.transaction() if committed else writer
            assert read(transaction, "by_channel") == ["before", "a", "b", "c", "d", "after"]
            assert read(transaction, "by_channel", descending=True) == ["after", "d", "c", "b", "a", "before"]
            between = {"lower": Bound(LONG + "a", False), "upper": Bound(LONG + "c", True)}
            assert read(transaction, "by_channel", **between) == ["b", "c"]
            assert read(transaction, "by_channel", LONG + "d") == ["d"]
            assert read(transaction, "by_channel", LONG + "d", lower=Bound(0.0, True)) == ["d"]
            assert read(transaction, "by_channel", LONG + "d", upper=Bound(0.0, True)) == []

    def test_a_group_of_cut_keys_is_read_as_a_whole(self, store: MemoryStore) -> None:
        writer = store.transaction()
        for tail in "ba":
            insert(writer, "messages", channel=LONG + tail, body=tail)
        proposal = writer.proposal()
        store.commit(proposal)
        for descending in (False, True):
            reader = store.transaction()
            next(reader.read_range("messages", "by_channel", [], None, None, descending=descending))
            [(lo, hi)] = reader.ranges
            assert all(lo <= write.new_entries[0] < hi for write in proposal.writes)


def test_creation_time_bounds_are_exact(store: MemoryStore) -> None:
    start = 1_700_000_000_123_456
    for i in range(4):
        writer = store.transaction(now_us=start + i)
        insert(writer, "messages", channel="a", body=str(i))
        store.commit(writer.proposal())
    times = [(start + i) / 1000 for i in range(4)]
    reader = store.transaction()
    for index, equal in ((None, []), ("by_channel", ["a"])):
        assert read(reader, index, *equal, lower=Bound(times[1], True)) == ["1", "2", "3"]
        assert read(reader, index, *equal, lower=Bound(times[1], False)) == ["2", "3"]
        assert read(reader, index, *equal, upper=Bound(times[2], False)) == ["0", "1"]
        assert read(reader, index, *equal, upper=Bound(times[2], True), descending=True) == ["2", "1", "0"]
        assert read(reader, index, *equal, lower=Bound(None, True), upper=Bound("text", True)) == list("0123")
        assert read(reader, index, *equal, upper=Bound(None, True)) == []
        assert read(reader, index, *equal, upper=Bound(float("inf"), True)) == list("0123")
        assert read(reader, index, *equal, lower=Bound(float("nan"), True)) == []


@pytest.mark.parametrize("descending", [False, True])
def test_what_comes_in_first_among_texts_that_keys_do_not_tell_apart_conflicts(
    store: MemoryStore, descending: bool
) -> None:
    """A later document had its key behind those that were read, though its text stood before theirs: it was missed."""
    writer = store.transaction()
    earlier = insert(writer, "messages", channel="another", body="earlier")
    insert(writer, "messages", channel=LONG + "m", body="read")
    store.commit(writer.proposal())
    reader, writer = store.transaction(), store.transaction(now_us=1_700_000_000_000_001)
    reading = reader.read_range("messages", "by_channel", [], None, None, descending=descending)
    taken = [decode(next(reading).document)["body"] for _ in range(1 if descending else 2)]
    assert taken[-1] == "read"
    if descending:
        writer.put(earlier, encode(earlier, 1.0, channel=LONG + "z", body="earlier"))
    else:
        insert(writer, "messages", channel=LONG + "a", body="later")
    keys = writer.proposal().conflict_keys()
    assert any(lo <= key < hi for key in keys for lo, hi in reader.ranges)


def test_a_query_cannot_write(store: MemoryStore) -> None:
    transaction = store.transaction(writable=False)
    with pytest.raises(RequestError) as failure:
        insert(transaction, "messages", body="x")
    assert failure.value.code == "not_allowed_here"


def test_deleting_what_is_not_there_is_refused(store: MemoryStore) -> None:
    transaction = store.transaction()
    document_id = insert(transaction, "messages", body="x")
    transaction.delete(document_id)
    with pytest.raises(RequestError) as failure:
        transaction.delete(document_id)
    assert failure.value.code == "document_not_found"


def test_discarding_writes_keeps_the_read_set(store: MemoryStore) -> None:
    transaction = store.transaction()
    assert transaction.get_row(REQUESTS, b"r") is None
    insert(transaction, "notes", title="a", body="x")
    transaction.put_row(REQUESTS, b"r", b"lost")
    transaction.discard_writes()
    transaction.put_row(REQUESTS, b"r", b"failed")
    proposal = transaction.proposal()
    assert [write.key for write in proposal.writes] == [document_key(REQUESTS, b"r")]
    assert document_key(REQUESTS, b"r") in proposal.points
    assert len(proposal.ranges) == 1
    store.commit(proposal)
    assert store.transaction().get_row(REQUESTS, b"r") == b"failed"
    assert read(store.transaction(), None, table_name="notes") == []


def test_documents_of_an_older_shape_are_not_current(store: MemoryStore) -> None:
    writer = store.transaction()
    document_id = insert(writer, "notes", title="a", body="x")
    store.commit(writer.proposal())
    store.add_table(table(33, "notes", ("by_title", ["title"], True), shape=2))
    reader = store.transaction()
    stored = reader.get(document_id)
    assert stored is not None
    assert not stored.current
    reader.put(document_id, stored.document)
    assert len(reader.proposal().writes) == 1


def test_damage_is_found_on_reading(store: MemoryStore) -> None:
    writer = store.transaction()
    document_id = insert(writer, "messages", channel="a", body="x")
    store.commit(writer.proposal())
    key = document_key(32, document_id[-31:].encode())
    store.document_values[key] = store.document_values[key][:-1] + b"!"
    for action in (
        lambda: store.transaction().get(document_id),
        lambda: read(store.transaction(), "by_channel", "a"),
        lambda: read(store.transaction(), None),
        lambda: store.transaction().delete(document_id),
    ):
        with pytest.raises(StorageError):
            action()


def test_ranges_stay_in_their_keyspace(store: MemoryStore) -> None:
    reader = store.transaction()
    read(reader, "by_channel")
    read(reader, None)
    assert reader.ranges == [table_range(32), index_range(320)]


def test_whoever_uses_a_table_reads_its_row(store: MemoryStore) -> None:
    row = document_key(1, b"messages")
    uses: list[Callable[[Transaction], object]] = [
        lambda transaction: read(transaction, "by_channel"),
        lambda transaction: read(transaction, None),
        lambda transaction: transaction.new_id("messages"),
        lambda transaction: transaction.get("10" + "0" * 31),
    ]
    for use in uses:
        transaction = store.transaction()
        use(transaction)
        assert row in transaction.points
