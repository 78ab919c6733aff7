"""Transactions against plain dicts: reads with own writes, and serializability of what commits."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from headwater_protocol.errors import RequestError
from headwater_storage.apply import derive_changes
from headwater_storage.catalog import Catalog
from headwater_storage.keys import MISSING, encode_fields
from headwater_storage.proposal import CommitTs, Write
from headwater_storage.readset import ReadSet, Scan
from headwater_storage.window import CommitWindow, PendingKeys, conflict
from hypothesis import given, settings
from hypothesis import strategies as st
from support.memory_store import MemoryStore, decode, encode, logged, table

if TYPE_CHECKING:
    import pytest
    from headwater_storage.proposal import Range
    from headwater_storage.transaction import Transaction

LONG = "l" * 500
SCALARS = [
    None,
    False,
    True,
    -1,
    0,
    1,
    1.0,
    1.5,
    2**60,
    "",
    "a",
    "ab",
    LONG,
    LONG + "a",
    LONG + "b",
    b"a",
    [1],
]
FIELDS = {"by_a": ["a"], "by_ab": ["a", "b.c"], "by_b": ["b.c", "a"]}


class Bound(NamedTuple):
    value: Any
    inclusive: bool


class Model:
    """The table as a dict of documents; indexes are sorts of it."""

    def __init__(self) -> None:
        self.documents: dict[str, dict[str, Any]] = {}

    def fields(self, document: dict[str, Any], index: str | None) -> list[Any]:
        if index is None:
            return []
        nested = document.get("b", MISSING)
        values = {
            "a": document.get("a", MISSING),
            "b.c": nested.get("c", MISSING) if isinstance(nested, dict) else MISSING,
        }
        return [values[name] for name in FIELDS[index]]

    def read(
        self, index: str | None, equal: list[Any], lower: Bound | None, upper: Bound | None, descending: bool
    ) -> list[str]:
        found = []
        for document_id, document in self.documents.items():
            fields = self.fields(document, index)
            rest = [encode_fields([value]) for value in fields]
            if rest[: len(equal)] != [encode_fields([value]) for value in equal]:
                continue
            position = len(equal)
            subject = rest[position] if position < len(rest) else encode_fields([document["_creationTime"]])
            if lower is not None:
                edge = encode_fields([lower.value])
                if subject < edge or (subject == edge and not lower.inclusive):
                    continue
            if upper is not None:
                edge = encode_fields([upper.value])
                if subject > edge or (subject == edge and not upper.inclusive):
                    continue
            found.append((b"".join(rest), document_id))
        return [document_id for _, document_id in sorted(found, reverse=descending)]


def make_store() -> MemoryStore:
    store = MemoryStore()
    store.add_table(table(32, "t", *((name, fields, False) for name, fields in FIELDS.items())))
    return store


def a_document(draw: Any) -> dict[str, Any]:
    document: dict[str, Any] = {}
    if draw(st.booleans()):
        document["a"] = draw(st.sampled_from(SCALARS))
    if draw(st.booleans()):
        document["b"] = draw(st.sampled_from([*SCALARS[:6], *({"c": value} for value in SCALARS)]))
    return document


def a_write(draw: Any, transaction: Transaction, model: Model) -> None:
    existing = sorted(model.documents)
    kind = draw(st.sampled_from(["insert", "insert", "replace", "delete"]))
    if kind == "insert" or not existing:
        document_id, created = transaction.new_id("t")
    else:
        document_id = draw(st.sampled_from(existing))
        created = model.documents[document_id]["_creationTime"]
        if kind == "delete":
            transaction.delete(document_id)
            del model.documents[document_id]
            return
    document = a_document(draw)
    transaction.put(document_id, encode(document_id, created, **document))
    model.documents[document_id] = {"_id": document_id, "_creationTime": created, **document}


def a_bound(draw: Any, times: list[float], *, of_time: bool) -> Bound | None:
    if draw(st.booleans()):
        return None
    values = st.sampled_from([*times, *SCALARS[:8]] if of_time else SCALARS)
    return Bound(draw(values), draw(st.booleans()))


def a_read(draw: Any, transaction: Transaction, model: Model) -> None:
    index = draw(st.sampled_from([None, *FIELDS]))
    count = draw(st.integers(0, len(FIELDS[index]))) if index else 0
    equal = [draw(st.sampled_from([MISSING, *SCALARS])) for _ in range(count)]
    of_time = index is None or count == len(FIELDS[index])
    times = [document["_creationTime"] for document in model.documents.values()]
    lower, upper = a_bound(draw, times, of_time=of_time), a_bound(draw, times, of_time=of_time)
    descending = draw(st.booleans())
    found = [
        decode(stored.document)["_id"]
        for stored in transaction.read_range("t", index, equal, lower, upper, descending=descending)
    ]
    expected = model.read(index, equal, lower, upper, descending)
    assert found == expected
    if not model.documents:
        return
    ends: list[bytes | None] = []
    whole = model.read(index, [], None, None, descending)  # positions may lie outside the range
    cut = [0, len(whole)]
    for end in range(2):
        if draw(st.booleans()):
            document_id = draw(st.sampled_from(whole))
            cut[end] = whole.index(document_id) + 1
            ends.append(
                transaction.position(
                    "t", index, document_id, msgspec.msgpack.encode(model.documents[document_id])
                )
            )
        else:
            ends.append(None)
    found = [
        decode(stored.document)["_id"]
        for stored in transaction.read_range(
            "t", index, equal, lower, upper, descending=descending, after=ends[0], until=ends[1]
        )
    ]
    assert found == [document_id for document_id in whole[cut[0] : cut[1]] if document_id in expected]


def writes_in_blocks(draw: Any, transaction: Transaction, model: Model, depth: int = 0) -> None:
    """Write and read; some of it inside blocks, one in another, of which some are rolled back."""
    for _ in range(draw(st.integers(0, 4))):
        if depth < 3 and draw(st.booleans()):
            before, savepoint = dict(model.documents), transaction.savepoint()
            writes_in_blocks(draw, transaction, model, depth + 1)
            if draw(st.booleans()):
                transaction.roll_back(savepoint)
                model.documents = before
        else:
            a_write(draw, transaction, model)
        a_read(draw, transaction, model)


@settings(max_examples=150)
@given(st.data())
def test_what_is_rolled_back_was_never_written(data: st.DataObject) -> None:
    store, model = make_store(), Model()
    for call in range(data.draw(st.integers(1, 3))):
        transaction = store.transaction(now_us=1_700_000_000_000_000 + call * 7)
        writes_in_blocks(data.draw, transaction, model)
        proposal = transaction.proposal()
        with store.snapshot() as before:
            derived = derive_changes(
                [logged(proposal)], CommitTs(store.state.ts + 1), before, Catalog.load(before)
            )
        assert derived == store.commit(proposal), "the writes are not what replay makes of them"
        later = store.transaction(now_us=1_800_000_000_000_000)
        rows = later.read_range("t", None, [], None, None, descending=False)
        assert {row["_id"]: row for row in (decode(stored.document) for stored in rows)} == model.documents
        a_read(data.draw, later, model)


@settings(max_examples=150)
@given(st.data())
def test_reads_equal_a_dict(data: st.DataObject) -> None:
    store, model = make_store(), Model()
    for call in range(data.draw(st.integers(1, 3))):
        transaction = store.transaction(now_us=1_700_000_000_000_000 + call * 7)
        for _ in range(data.draw(st.integers(0, 8))):
            a_write(data.draw, transaction, model)
            a_read(data.draw, transaction, model)
        for document_id, document in model.documents.items():
            stored = transaction.get(document_id)
            assert stored is not None
            assert decode(stored.document) == document
        proposal = transaction.proposal()
        with store.snapshot() as before:
            derived = derive_changes(
                [logged(proposal)], CommitTs(store.state.ts + 1), before, Catalog.load(before)
            )
        live = store.commit(proposal)
        assert derived == live


def run_call(rng_seed: int, transaction: Transaction) -> list[Any]:
    """A function of what it reads: returns what it saw and writes something that depends on it."""
    rng = random.Random(rng_seed)
    seen: list[Any] = []
    for _ in range(rng.randint(1, 3)):
        lo = rng.randint(0, 6)
        reading = transaction.read_range(
            "t",
            "by_a",
            [],
            Bound(lo, True),
            Bound(lo + rng.randint(0, 3), False),
            descending=rng.random() < 0.5,
        )
        for taken, stored in enumerate(reading, 1):
            document = decode(stored.document)
            seen.append((document["_id"], document["a"], document["n"]))
            if rng.random() < 0.4:
                transaction.put(
                    document["_id"],
                    encode(document["_id"], 1.0, a=rng.randint(0, 6), n=document["n"] + len(seen)),
                )
            elif rng.random() < 0.15:
                transaction.delete(document["_id"])
            if taken >= rng.choice([1, 2, 100]):
                break
    if rng.random() < 0.6:
        document_id, _ = transaction.new_id("t")
        try:
            transaction.put(
                document_id, encode(document_id, 1.0, a=rng.randint(0, 6), n=len(seen), u=rng.randint(0, 3))
            )
        except RequestError as error:
            seen.append(error.code)
    return seen


def history(seed: int, *, validate: bool = True) -> bool:
    """Run calls over old snapshots; tell whether those that commit equal a run one after the other."""
    rng = random.Random(seed)
    definition = table(32, "t", ("by_a", ["a"], False), ("by_u", ["u"], True))
    store, serial = MemoryStore(), MemoryStore()
    for each in (store, serial):
        each.add_table(definition)
    window = CommitWindow(CommitTs(0))
    for _ in range(12):
        begun = []
        for _ in range(rng.randint(1, 5)):
            call, now = rng.randint(0, 10**9), 10**15 + rng.randint(0, 1000)
            transaction = store.transaction(now_us=now)
            begun.append((call, transaction, run_call(call, transaction)))
        rng.shuffle(begun)
        pending, batch = PendingKeys(), []
        for call, transaction, seen in begun:
            proposal = transaction.proposal()
            if validate and conflict(window, pending, proposal):
                continue
            pending.add(proposal.conflict_keys())
            batch.append((call, transaction, seen, proposal))
            again = serial.transaction(now_us=transaction.now_us)
            again._random_bytes = _same_ids(transaction)
            if run_call(call, again) != seen:
                return False
            serial.commit(again.proposal())
        if batch:
            store.commit(*(proposal for *_, proposal in batch))
            window.add(store.state.ts, pending.keys)
    return (store.document_values, store.entry_values) == (serial.document_values, serial.entry_values)


def _same_ids(transaction: Transaction) -> Any:
    """Randomness of a second run that makes the ids of the first."""
    noise = iter(range(transaction.begin_ts << 20, 1 << 60))
    return lambda count: next(noise).to_bytes(count, "big")


def test_what_commits_is_serializable_in_commit_order() -> None:
    assert all(history(seed) for seed in range(60))


def test_without_validation_it_is_not() -> None:
    assert not all(history(seed, validate=False) for seed in range(20))


def test_without_the_keys_of_entries_that_stay_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Editing a field moves no entry of an index on another one, yet whoever read that index saw the document."""

    def only_what_changes(write: Write) -> set[bytes]:
        return {*write.old_entries} ^ {*write.new_entries} | {write.key}

    monkeypatch.setattr(Write, "conflict_keys", only_what_changes)
    assert not all(history(seed) for seed in range(60))


def test_without_ranges_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReadSet, "ranges", lambda _: [])
    assert not all(history(seed) for seed in range(60))


def test_without_the_empty_end_of_a_range_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A range that ran dry counts as read to its end: what is inserted there would have been seen."""
    consumed = Scan.consumed

    def up_to_the_last(scan: Scan) -> Range | None:
        scan.dry = False
        return consumed(scan)

    monkeypatch.setattr(Scan, "consumed", up_to_the_last)
    assert not all(history(seed) for seed in range(60))
