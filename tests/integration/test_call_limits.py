"""Each limit of a call and of a document at its edge, on a real daemon whose settings are small."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from headwater.client.aio import connect
from headwater_protocol.errors import HeadwaterError
from headwater_protocol.limits import VALUE_DEPTH_MAX
from support.daemon import RunningDaemon, running

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENT_BYTES, FIELDS, DEPTH = 2_000, 8, 5
READ_DOCUMENTS, READ_BYTES = 12, 20_000
WRITE_DOCUMENTS, WRITE_BYTES = 6, 8_000
RANGES = 16
OPTIONS = {
    "--document-limit-bytes": DOCUMENT_BYTES,
    "--document-limit-fields": FIELDS,
    "--document-limit-depth": DEPTH,
    "--call-read-limit-documents": READ_DOCUMENTS,
    "--call-read-limit-bytes": READ_BYTES,
    "--call-write-limit-documents": WRITE_DOCUMENTS,
    "--call-write-limit-bytes": WRITE_BYTES,
    "--call-limit-ranges": RANGES,
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    options = [word for name, value in OPTIONS.items() for word in (name, str(value))]
    with running(tmp_path_factory.mktemp("limits"), *options, deploy="limits") as daemon:
        yield daemon


@pytest.fixture
def daemon(served: RunningDaemon) -> Iterator[RunningDaemon]:
    """The daemon, with no documents before and after the test."""
    yield served
    while ids := [item["_id"] for item in served.call("query", "limits:some")]:
        served.call("mutation", "limits:delete", items=ids)


async def refused(
    daemon: RunningDaemon, kind: str, name: str, code: str, limit: int, **arguments: Any
) -> None:
    """A call is refused over the protocol and over HTTP, with the code, naming the limit."""
    async with connect(daemon.tcp_url) as client:
        call = client.query if kind == "query" else client.mutation
        with pytest.raises(HeadwaterError) as failure:
            await call(f"limits:{name}", **arguments)
    assert failure.value.code == code
    assert str(limit) in failure.value.message
    answer = daemon.post(f"/api/{kind}", {"path": f"limits:{name}", "args": arguments, "format": "json"})
    assert answer.json["errorCode"] == code, answer.text


def fill(size: int) -> int:
    """Return the length of the text with which an item has so many bytes."""
    empty = {"_id": "1" * 33, "_creationTime": 1.5, "number": 0, "value": "x" * 256}
    return size - len(msgspec.msgpack.encode(empty)) + 256


async def test_document_size(daemon: RunningDaemon) -> None:
    assert daemon.call("mutation", "limits:put_sizes", sizes=[fill(DOCUMENT_BYTES)]) == 1
    await refused(
        daemon,
        "mutation",
        "put_sizes",
        "document_too_large",
        DOCUMENT_BYTES,
        sizes=[fill(DOCUMENT_BYTES + 1)],
    )


async def test_document_fields(daemon: RunningDaemon) -> None:
    daemon.call("mutation", "limits:put_wide")
    await refused(daemon, "mutation", "put_wider", "document_too_large", FIELDS)


async def test_document_depth(daemon: RunningDaemon) -> None:
    daemon.call("mutation", "limits:put_nested", depth=DEPTH)
    for depth in (DEPTH + 1, 1 + VALUE_DEPTH_MAX):  # deeper values are none at all
        await refused(daemon, "mutation", "put_nested", "document_too_large", DEPTH, depth=depth)


async def test_documents_written(daemon: RunningDaemon) -> None:
    numbers = list(range(WRITE_DOCUMENTS))
    ids = daemon.call("mutation", "limits:put", numbers=numbers, value=None)
    ids += daemon.call("mutation", "limits:put", numbers=[0], value=None)
    await refused(
        daemon, "mutation", "put", "too_many_documents", WRITE_DOCUMENTS, numbers=[*numbers, 9], value=None
    )
    await refused(daemon, "mutation", "delete", "too_many_documents", WRITE_DOCUMENTS, items=ids)
    assert daemon.call("query", "limits:get", items=ids) == len(ids)
    assert daemon.call("mutation", "limits:delete", items=ids[1:]) == WRITE_DOCUMENTS


async def test_bytes_written(daemon: RunningDaemon) -> None:
    sizes = [fill(2_000), fill(2_000), fill(1_999), fill(2_000)]
    assert daemon.call("mutation", "limits:put_sizes", sizes=[*sizes[:2], sizes[0], sizes[3]]) == 4
    tail = [fill(1_000), fill(1_001)]
    await refused(
        daemon, "mutation", "put_sizes", "too_many_bytes", WRITE_BYTES, sizes=[*sizes[:2], sizes[3], *tail]
    )


async def test_documents_read(daemon: RunningDaemon) -> None:
    for numbers in (range(WRITE_DOCUMENTS), range(WRITE_DOCUMENTS), [0]):
        ids = daemon.call("mutation", "limits:put", numbers=list(numbers), value=None)
    assert daemon.call("query", "limits:read", count=READ_DOCUMENTS) == READ_DOCUMENTS
    await refused(daemon, "query", "read", "too_many_documents", READ_DOCUMENTS, count=READ_DOCUMENTS + 1)
    daemon.call("mutation", "limits:delete", items=ids)  # missing documents count as read too
    assert daemon.call("query", "limits:get", items=ids * READ_DOCUMENTS) == 0
    await refused(
        daemon, "query", "get", "too_many_documents", READ_DOCUMENTS, items=ids * (READ_DOCUMENTS + 1)
    )


async def test_bytes_read(daemon: RunningDaemon) -> None:
    for count in (4, 4, 2):
        daemon.call("mutation", "limits:put_sizes", sizes=[fill(2_000)] * count)
    assert daemon.call("query", "limits:read", count=11) * 2_000 == READ_BYTES
    daemon.call("mutation", "limits:put", numbers=[1], value=None)
    await refused(daemon, "query", "read", "too_many_bytes", READ_BYTES, count=11)


async def test_more_ranges_than_the_limit_are_no_error(daemon: RunningDaemon) -> None:
    """They are merged into wider ones, so a screen on them still sees every change in each of them."""
    numbers = list(range(0, 10 * RANGES, 2))
    async with connect(daemon.url) as client:
        screen = client.subscribe("limits:scattered", numbers=numbers)
        assert await anext(screen) == [0] * len(numbers)
        for place in (0, 7, len(numbers) - 1):
            (item,) = await client.mutation("limits:put", numbers=[numbers[place]], value=None)
            assert (await anext(screen))[place] == 1
            await client.mutation("limits:delete", items=[item])
            assert (await anext(screen))[place] == 0
