"""Reads through a chain's snapshot are those through a snapshot in which its members are committed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from headwater_protocol.errors import StorageError
from headwater_storage.catalog import Catalog
from headwater_storage.chain import ChainSnapshot
from headwater_storage.keys import MISSING
from headwater_storage.limits import CallLimits
from headwater_storage.transaction import Transaction
from hypothesis import given, settings
from hypothesis import strategies as st
from support.memory_store import MemoryStore, decode, encode, table

if TYPE_CHECKING:
    from headwater_storage.proposal import Proposal

REQUESTS = 5
LONG = "l" * 500
VALUES = [None, 0, 1, "a", LONG, LONG + "a", LONG + "b", MISSING]
ENDS = [b"", b"\x00\x00\x00\x20", b"\x80", b"\x80\x00\x01\x40\x02", b"\xff" * 9]


def make_store() -> MemoryStore:
    store = MemoryStore()
    store.add_table(table(32, "t", ("by_a", ["a"], False), ("by_ab", ["a", "b"], False)))
    return store


def over(snapshot: Any, seed: int) -> Transaction:
    noise = iter(range(seed << 30, 1 << 60))
    return Transaction(
        snapshot,
        Catalog.load(snapshot),
        CallLimits(),
        now_us=1_700_000_000_000_000,
        random_bytes=lambda count: next(noise).to_bytes(count, "big"),
        writable=True,
    )


def a_member(draw: Any, transaction: Transaction, ids: list[str]) -> Proposal:
    """Write at random; the choices do not depend on what is read."""
    for _ in range(draw(st.integers(0, 3))):
        document_id = draw(st.sampled_from(ids)) if ids and draw(st.booleans()) else ""
        if document_id and transaction.get(document_id) is None:
            continue
        if document_id and draw(st.booleans()):
            transaction.delete(document_id)
            continue
        if not document_id:
            document_id, _ = transaction.new_id("t")
            ids.append(document_id)
        fields = {name: value for name in "ab" if (value := draw(st.sampled_from(VALUES))) is not MISSING}
        transaction.put(document_id, encode(document_id, 1.0, **fields))
    if draw(st.booleans()):
        content = draw(st.sampled_from([None, b"\x91\x01"]))
        transaction.put_row(REQUESTS, draw(st.sampled_from([b"s1", b"s2"])), content)
    return transaction.proposal()


def everything(snapshot: Any, ids: list[str], lo: bytes, hi: bytes) -> list[Any]:
    """What can be read, in both directions, by keys and through a transaction."""
    lo, hi = min(lo, hi), max(lo, hi)
    found: list[Any] = [
        list(scan(lo, hi, reverse))
        for scan in (snapshot.documents, snapshot.entries)
        for reverse in (False, True)
    ]
    found.append([snapshot.get_document(key) for key, _ in snapshot.documents(b"", b"\xff" * 9)])
    found.append([snapshot.get_entry(key) for key, _ in snapshot.entries(b"", b"\xff" * 9)])
    transaction = over(snapshot, 999)
    found.append([transaction.get(document_id) for document_id in ids])
    found.append([transaction.get_row(REQUESTS, name) for name in (b"s1", b"s2")])
    for index in (None, "by_a", "by_ab"):
        for descending in (False, True):
            rows = transaction.read_range("t", index, [], None, None, descending=descending)
            found.append([decode(row.document)["_id"] for row in rows])
    return found


@given(st.data())
@settings(max_examples=60)
def test_a_chain_reads_as_if_its_members_were_committed(data: st.DataObject) -> None:
    store, ids = make_store(), list[str]()
    for seed in range(3):
        store.commit(a_member(data.draw, over(store.snapshot(), seed), ids))
    begin = store.snapshot()
    chain = ChainSnapshot(begin, begin.state.ts)
    for seed in range(3, 3 + data.draw(st.integers(1, 4))):
        proposal = a_member(data.draw, over(chain, seed), ids)
        assert proposal.begin_ts == begin.ts
        chain.lay_over(proposal.writes)
        store.commit(proposal)
        lo, hi = data.draw(st.sampled_from(ENDS)), data.draw(st.sampled_from(ENDS))
        assert everything(chain, ids, lo, hi) == everything(store.snapshot(), ids, lo, hi)


class _WithoutEntries(ChainSnapshot):
    """Shows documents as they will be, indexes as they were."""

    def entries(self, lo: bytes, hi: bytes, reverse: bool = False) -> Any:
        return self._base.entries(lo, hi, reverse)


class _WithoutDeletes(ChainSnapshot):
    """Shows what is put and not what is deleted."""

    def lay_over(self, writes: Any) -> None:
        super().lay_over([write for write in writes if write.value is not None])


@pytest.mark.parametrize("snapshot_type", [ChainSnapshot, _WithoutEntries, _WithoutDeletes])
def test_a_snapshot_that_leaves_something_out_is_told_apart(snapshot_type: type[ChainSnapshot]) -> None:
    store = make_store()
    before = over(store.snapshot(), 0)
    ids = [before.new_id("t")[0] for _ in range(2)]
    for document_id in ids:
        before.put(document_id, encode(document_id, 1.0, a=1))
    store.commit(before.proposal())
    chain = snapshot_type(store.snapshot(), store.snapshot().ts)
    member = over(chain, 1)
    member.put(ids[0], encode(ids[0], 1.0, a=2))
    member.delete(ids[1])
    chain.lay_over(member.proposal().writes)
    store.commit(member.proposal())
    right = everything(store.snapshot(), ids[:1], b"", ENDS[-1])
    try:
        alike = everything(chain, ids[:1], b"", ENDS[-1]) == right
    except StorageError:  # an index that names a missing document
        alike = False
    assert alike is (snapshot_type is ChainSnapshot)
