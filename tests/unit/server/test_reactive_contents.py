from __future__ import annotations

import gc

from headwater_protocol.messages import ErrorBody
from headwater_server.reactive import deltas
from headwater_server.reactive.contents import Content, ContentStore
from headwater_server.reactive.deltas import ChangeBodies, delta
from support.plain_results import apply_operations, content_of, decode


def rows(*numbers):
    return content_of([{"_id": f"{number:031}", "padding": "x" * 50, "n": number} for number in numbers])


def test_equal_contents_are_one_object():
    store = ContentStore(1 << 20)
    first = store.share(content_of([1]))
    assert store.share(content_of([1])) is first
    assert store.share(content_of([2])) is not first


def test_a_content_that_nobody_holds_is_gone_unless_the_ring_keeps_it():
    store = ContentStore(1_000)
    digest = store.share(content_of(["gone"])).digest
    kept = store.share(content_of(["kept"]))
    store.keep(kept)
    kept_digest = kept.digest
    del kept
    gc.collect()
    assert store.find(digest) is None
    assert store.find(kept_digest) is not None


def test_the_ring_is_bounded_in_bytes_and_drops_the_oldest():
    store = ContentStore(2_000)
    contents = [content_of(["x" * 500, number]) for number in range(5)]
    for content in contents:
        store.share(content)
        store.keep(content)
        assert store.held_bytes <= 2_000
    digests = [content.digest for content in contents]
    del contents, content
    assert [store.find(digest) is not None for digest in digests] == [False, False, False, True, True] or (
        store.find(digests[-1]) is not None and store.find(digests[0]) is None
    )


def test_failures_differ_from_results_and_from_each_other():
    digests = {
        Content.failed(ErrorBody("a", "bc")).digest,
        Content.failed(ErrorBody("ab", "c")).digest,
        Content.failed(ErrorBody("a", "b", b"c")).digest,
        Content.of(b"abc").digest,
    }
    assert len(digests) == 4


def test_the_text_of_a_failure_counts():
    assert Content.failed(ErrorBody("a", "x" * 5_000, b"y" * 5_000)).size_bytes > 10_000


def test_a_list_that_slides_costs_its_new_element():
    old, new = rows(*range(50)), rows(*range(1, 51))
    operations = delta(old, new)
    assert operations is not None
    assert len(operations) < 150
    assert decode(operations)[1][0] == [0, 1, 49]
    assert apply_operations(decode(old.data), operations) == decode(new.data)


def test_mostly_new_lists_are_sent_whole():
    assert delta(rows(*range(10)), rows(*range(8, 30))) is None


def test_fields_that_are_equal_only_for_python_are_patched():
    old, new = (
        content_of([{"_id": "a" * 31, "x": 1, "pad": "p" * 80}]),
        content_of([{"_id": "a" * 31, "x": True, "pad": "p" * 80}]),
    )
    assert decode(delta(old, new)) == [0, [[2, 0, {"x": True}, []]]]


def test_a_base_that_left_the_ring_means_a_full_value():
    store = ContentStore(0)
    bodies = ChangeBodies(store, 1 << 20)
    old, new = store.share(rows(*range(50))), store.share(rows(*range(1, 51)))
    assert decode(bodies.change(old.digest, new, None))[0] == 1
    digest = old.digest
    del old
    newer = store.share(rows(*range(2, 52)))
    assert decode(bodies.change(digest, newer, None))[0] == 0


def test_the_memo_of_bodies_is_bounded():
    bodies = ChangeBodies(ContentStore(0), 1_000)
    for number in range(50):
        bodies.change(None, content_of(["x" * 100, number]), None)
        assert bodies.held_bytes <= 1_000


def test_what_is_compared_is_about_as_long_as_the_list(monkeypatch):
    """Elements of one size, every second one changed: each run ends after one of them."""
    compared = []
    part = deltas._Elements.part
    monkeypatch.setattr(
        deltas._Elements,
        "part",
        lambda self, start, end: compared.append(end - start) or part(self, start, end),
    )
    old = [{"_id": f"{number:031}", "padding": "x" * 100, "n": 1000} for number in range(1_000)]
    new = [row | {"n": 1000 + number % 2} for number, row in enumerate(old)]
    operations = delta(content_of(old), content_of(new))
    assert operations is not None
    assert apply_operations(old, operations) == new
    assert sum(compared) < 20 * len(old)
