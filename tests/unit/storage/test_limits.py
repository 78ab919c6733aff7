"""Each limit of a call and of a document at its edge, through the real transaction code."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pytest
from headwater_protocol.errors import RequestError
from headwater_storage.limits import CallLimits, field_count, is_deeper
from support.memory_store import MemoryStore, encode, insert, table

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater_storage.transaction import Transaction

ROWS = 6
UNLIMITED = CallLimits()


@pytest.mark.parametrize("count", [0, 1, 15, 16, 65_535, 65_536])
def test_fields_are_counted_whatever_the_head_of_the_map_is(count: int) -> None:
    document = {f"f{number}": number for number in range(count)}
    assert field_count(msgspec.msgpack.encode(document)) == count


def nested(depth: int, *, lists: bool) -> Any:
    """That many lists or dicts inside one another."""
    value: Any = "leaf"
    for _ in range(depth):
        value = [1, value, "x" * 40] if lists else {"a": "x" * 40, "b": value}
    return value


@pytest.mark.parametrize("depth", [1, 2, 5, 32, 64, 900])
def test_depth_is_that_of_the_deepest_place(depth: int) -> None:
    for lists in (True, False):
        for beside in (None, [[[]]], [{}] * 100, "ж" * 500, b"\x91" * 500):
            inside = {"beside": beside, "deep": nested(depth - 1, lists=lists)}
            document = msgspec.msgpack.encode(inside)
            deepest = max(depth, 1 + depth_of(beside))
            assert not is_deeper(document, deepest)
            assert is_deeper(document, deepest - 1)


def depth_of(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth_of, value), default=0) if isinstance(value, list) else 0


@pytest.mark.parametrize("count", [15, 16, 65_536])
def test_depth_is_seen_whatever_the_heads_of_lists_and_maps_are(count: int) -> None:
    wide: Any = [0] * count
    for value in ([*wide, [[]]], {str(i): 0 for i in range(count)} | {"in": [[]]}):
        document = msgspec.msgpack.encode({"value": value})
        assert not is_deeper(document, 4)
        assert is_deeper(document, 3)


def test_what_is_too_deep_to_decode_is_too_deep() -> None:
    assert is_deeper(b"\x81\xa1a" + b"\x91" * 100_000 + b"\xc0", 64)


# ------------------------------------------------------------------------------------------- edges


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    store.add_table(table(32, "rows", ("by_n", ["n"], False)))
    writer = store.transaction()
    for n in range(ROWS):
        insert(writer, "rows", n=n, text="t" * n * 10)
    store.commit(writer.proposal())
    return store


def read_range(transaction: Transaction) -> None:
    assert len(list(transaction.read_range("rows", "by_n", [], None, None, descending=False))) == ROWS


def read_documents(transaction: Transaction) -> None:
    assert len(list(transaction.read_range("rows", None, [], None, None, descending=True))) == ROWS


def get_each(transaction: Transaction) -> None:
    known, _ = transaction.new_id("rows")
    for n in range(ROWS):
        assert transaction.get(known[:-1] + str(n)) is None


def write_all_kinds(transaction: Transaction) -> None:
    kept = insert(transaction, "rows", n=100, text="x" * 300)
    gone = insert(transaction, "rows", n=101)
    transaction.put(kept, encode(kept, 1.0, n=102, text="y" * 40))
    transaction.delete(gone)


def write_one(transaction: Transaction) -> None:
    insert(transaction, "rows", n=1, text="x" * 500)


def write_deep(transaction: Transaction) -> None:
    insert(transaction, "rows", n=1, deep=nested(9, lists=True))


class Edge(NamedTuple):
    """What a call uses of a limit, and what it is told beyond it."""

    limit: str
    work: Callable[[Transaction], None]
    used: Callable[[Transaction], int]
    code: str


EDGES = [
    Edge("documents_read_max", read_range, lambda _: ROWS, "too_many_documents"),
    Edge("documents_read_max", read_documents, lambda _: ROWS, "too_many_documents"),
    Edge("documents_read_max", get_each, lambda _: ROWS, "too_many_documents"),
    Edge("bytes_read_max", read_range, lambda done: done.usage.bytes_read, "too_many_bytes"),
    Edge("bytes_read_max", read_documents, lambda done: done.usage.bytes_read, "too_many_bytes"),
    Edge("documents_written_max", write_all_kinds, lambda _: 4, "too_many_documents"),
    Edge("bytes_written_max", write_all_kinds, lambda done: done.usage.bytes_written, "too_many_bytes"),
    Edge("document_bytes_max", write_one, lambda done: done.usage.bytes_written, "document_too_large"),
    Edge("document_fields_max", write_one, lambda _: 4, "document_too_large"),
    Edge("document_depth_max", write_deep, lambda _: 10, "document_too_large"),
]


@pytest.mark.parametrize("edge", EDGES, ids=lambda edge: f"{edge.limit} {edge.work.__name__}")
def test_as_much_as_a_limit_is_allowed_and_one_more_is_refused(store: MemoryStore, edge: Edge) -> None:
    unlimited = store.transaction()
    edge.work(unlimited)
    used = edge.used(unlimited)
    at_the_limit = store.transaction(limits=replace(UNLIMITED, **{edge.limit: used}))
    edge.work(at_the_limit)
    assert at_the_limit.proposal() == unlimited.proposal()

    beyond = store.transaction(limits=replace(UNLIMITED, **{edge.limit: used - 1}))
    with pytest.raises(RequestError) as refused:
        edge.work(beyond)
    assert refused.value.code == edge.code
    assert str(used - 1) in refused.value.message
    if "_read_" in edge.limit:
        assert beyond.points  # what was read until then decides when the call is stale


def test_what_is_refused_for_its_document_is_not_written_or_counted(store: MemoryStore) -> None:
    limits = replace(UNLIMITED, document_bytes_max=200, document_fields_max=4, document_depth_max=3)
    transaction = store.transaction(limits=limits)
    for fields in ({"text": "x" * 200}, {"a": 1, "b": 2, "c": 3}, {"text": [[[]]]}):
        with pytest.raises(RequestError) as refused:
            insert(transaction, "rows", **fields)
        assert refused.value.code == "document_too_large"
    assert transaction.usage.documents_written == transaction.usage.bytes_written == 0
    insert(transaction, "rows", n=1, text=[[]])
    assert len(transaction.proposal().writes) == 1
    assert len(list(transaction.read_range("rows", "by_n", [], None, None, descending=False))) == ROWS + 1
