from __future__ import annotations

from headwater_server.worker.chains import AGE_MAX_NS, MEMBERS_MAX, OpenChain
from headwater_storage.catalog import REQUESTS
from headwater_storage.keys import document_key
from headwater_storage.proposal import CommitTs, Proposal, Write
from support.memory_store import MemoryStore

HOT, COLD = document_key(REQUESTS, b"hot"), document_key(REQUESTS, b"cold")


def writes(key: bytes, value: bytes) -> Proposal:
    return Proposal(CommitTs(0), [], [], [Write(key, value, [], [])])


def test_what_others_wrote_counts_from_where_the_published_members_end() -> None:
    """The newer snapshot shows the second member and what another wrote behind it.

    Laying that member over it again hides the other: only because the other counts as not
    seen does a member that reads it not commit.
    """
    store = MemoryStore()
    chain = OpenChain(1, store, 0)  # type: ignore[arg-type]
    first, second, other = writes(COLD, b"first"), writes(HOT, b"second"), writes(HOT, b"other")
    for member in (first, second):
        chain.add(member.writes)
    for proposal in (first, second, other):
        store.commit(proposal)
    chain.move_on(1, CommitTs(1), AGE_MAX_NS)
    assert chain.snapshot.get_document(HOT) == b"second"
    assert chain.snapshot.get_document(COLD) == b"first"
    assert chain.snapshot.ts == 1, "not 3, as of which the other would count as seen"
    chain.move_on(2, CommitTs(3), 2 * AGE_MAX_NS)
    assert chain.snapshot.get_document(HOT) == b"other"
    assert chain.snapshot.ts == 3


def test_a_newer_snapshot_is_taken_for_many_members_or_an_old_one_and_not_for_nothing() -> None:
    store = MemoryStore()
    chain = OpenChain(1, store, 0)  # type: ignore[arg-type]
    for number in range(MEMBERS_MAX):
        chain.add(writes(HOT, b"%d" % number).writes)
    chain.move_on(MEMBERS_MAX - 1, CommitTs(5), AGE_MAX_NS - 1)
    assert chain.snapshot.ts == 0
    chain.move_on(MEMBERS_MAX, CommitTs(5), AGE_MAX_NS - 1)
    assert chain.snapshot.ts == 5
    chain.move_on(MEMBERS_MAX, CommitTs(6), 5 * AGE_MAX_NS)
    assert chain.snapshot.ts == 5
