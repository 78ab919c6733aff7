"""A client written from `protocol/SPEC.md` alone gets along with the real daemon, and with the vectors."""

from __future__ import annotations

import ast
import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support import spec_client
from support.daemon import RunningDaemon, running
from support.spec_client import Broken, Refused, SpecClient

if TYPE_CHECKING:
    from collections.abc import Iterator

VECTORS = Path(__file__).parents[2] / "protocol" / "vectors"
TRANSPORTS = ["tcp", "websocket"]
VALUE, DELTA, UNCHANGED, FAILED = 0, 1, 2, 3
LIMIT_S = 60.0


@pytest.fixture(scope="module")
def paged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with running(tmp_path_factory.mktemp("spec"), "--heartbeat-s", "1", deploy="paged") as daemon:
        yield daemon


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with running(tmp_path_factory.mktemp("spec"), deploy="probe") as daemon:
        yield daemon


def client_of(daemon: RunningDaemon, transport: str) -> SpecClient:
    return SpecClient(daemon.tcp_url if transport == "tcp" else daemon.url)


def keys(rows: list[dict[str, Any]]) -> list[str]:
    return [row["key"] for row in rows]


def test_it_knows_nothing_of_headwater() -> None:
    tree = ast.parse(Path(spec_client.__file__).read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not [name for name in names if name.startswith(("headwater", "support"))]


def test_its_values_and_deltas_are_those_of_the_vectors() -> None:
    for vector in json.loads((VECTORS / "values.json").read_text()):
        data = bytes.fromhex(vector["hex"])
        if "int64" not in repr(vector["value"]):  # it keeps no mark of its own
            assert spec_client.pack(spec_client.unpack(data)) == data, vector["name"]
    for vector in json.loads((VECTORS / "deltas.json").read_text()):
        old, operations, new = (
            spec_client.unpack(bytes.fromhex(vector[part])) for part in ("old", "operations", "new")
        )
        assert spec_client.changed(old, operations) == new, vector["name"]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_it_subscribes_writes_and_is_sent_deltas(paged: RunningDaemon, transport: str) -> None:
    async with asyncio.timeout(LIMIT_S):
        client, other = client_of(paged, transport), client_of(paged, transport)
        await client.connect()
        await other.connect()
        board = f"deltas over {transport}"
        number = await client.subscribe("rows:whole", board=board)
        await client.shows(number, [])
        await other.mutation("rows:change", board=board, ranks={f"k{rank:02}": rank for rank in range(30)})
        await client.shows(number, lambda rows: len(rows) == 30)
        await client.mutation("rows:change", board=board, ranks={"k03": 99, "k10": None, "k20": 20})
        # 8: resolved only once every query shows it.
        shown = keys(client.queries[number].value)
        assert shown == [f"k{rank:02}" for rank in range(30) if rank not in (3, 10)] + ["k03"]
        assert client.kinds[DELTA] >= 1
        with pytest.raises(Refused) as refused:
            await client.mutation("rows:change", board=board, ranks="none")
        assert refused.value.code == "invalid_arguments"
        wrong = await client.subscribe("rows:nowhere")
        await client.until(lambda: client.queries[wrong].error is not None)
        assert client.queries[wrong].error.code == "unknown_function"  # type: ignore[union-attr]
        with pytest.raises(Refused) as refused:
            await client.action("rows:act")
        assert refused.value.code == "unknown_function"
        await client.unsubscribe(wrong)
        await client.unsubscribe(number)
        await client.until(lambda: client.version[0] == client._set)
        await client.cut()
        await other.cut()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_it_resumes_after_a_cut(paged: RunningDaemon, transport: str) -> None:
    async with asyncio.timeout(LIMIT_S):
        client, other = client_of(paged, transport), client_of(paged, transport)
        await client.connect()
        await other.connect()
        board = f"resumed over {transport}"
        await other.mutation("rows:change", board=board, ranks={"a": 1, "b": 2})
        first = await client.subscribe("rows:whole", board=board)
        second = await client.subscribe("rows:whole", board=f"{board}, quiet")
        await client.shows(first, lambda rows: keys(rows) == ["a", "b"])
        await client.shows(second, [])
        undecided = [
            await client.begin("rows:change", {"board": board, "ranks": {f"mine {rank}": rank}})
            for rank in range(10, 20)
        ]
        await client.cut()
        await other.mutation("rows:change", board=board, ranks={"b": None})
        last_ts = client.last_ts
        await client.connect()
        await asyncio.gather(*undecided)
        expected = ["a", *[f"mine {rank}" for rank in range(10, 20)]]
        await client.shows(first, lambda rows: keys(rows) == expected)
        assert client.kinds[UNCHANGED] >= 1
        assert client.last_ts > last_ts
        assert keys(await read(other, "rows:whole", board=board)) == expected
        await client.cut()
        await other.cut()


async def read(client: SpecClient, name: str, **arguments: Any) -> Any:
    """Return what a query gives now."""
    number = await client.subscribe(name, **arguments)
    await client.shows(number, lambda _: True)
    value = client.queries[number].value
    await client.unsubscribe(number)
    return value


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_its_pages_are_gapless_and_keep_their_ends(paged: RunningDaemon, transport: str) -> None:
    async with asyncio.timeout(LIMIT_S):
        client = client_of(paged, transport)
        await client.connect()
        board = f"pages over {transport}"
        await client.mutation(
            "rows:change", board=board, ranks={f"k{rank:02}": rank for rank in range(0, 20, 2)}
        )
        pages: list[int] = []
        cursor = None
        for _ in range(3):
            options = {"numItems": 4, "cursor": cursor}
            pages.append(await client.subscribe("rows:ranked", board=board, options=options))
            await client.shows(pages[-1], lambda page: True)
            cursor = client.queries[pages[-1]].value["continueCursor"]
        assert client.queries[pages[-1]].value["isDone"]

        def joined() -> list[str]:
            return [key for page in pages for key in keys(client.queries[page].value["page"])]

        everything = [f"k{rank:02}" for rank in range(0, 20, 2)]
        assert joined() == everything
        await client.mutation("rows:change", board=board, ranks={"k01": 1, "k07": 7, "k18": None})
        everything = sorted({*everything, "k01", "k07"} - {"k18"})
        assert joined() == everything
        assert len(client.queries[pages[0]].value["page"]) == 5, "it kept its end"
        await client.cut()
        await client.connect()
        await client.mutation("rows:change", board=board, ranks={"k05": 5})
        everything = sorted([*everything, "k05"])
        assert joined() == everything
        assert len(client.queries[pages[0]].value["page"]) == 6, "its journal kept the end over the cut"
        await client.cut()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_heartbeats_and_identity(paged: RunningDaemon, transport: str) -> None:
    async with asyncio.timeout(LIMIT_S):
        client = client_of(paged, transport)
        await client.connect()
        await client.until(lambda: client.pings >= 5)  # longer than a silence that ends the connection
        await client.sign_in("a token")
        await client.until(lambda: client.auth_errors)
        await client.sign_in(None)
        await client.until(lambda: client.version[1] == 2)
        await client.cut()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_what_ends_a_connection(paged: RunningDaemon, transport: str) -> None:
    async with asyncio.timeout(LIMIT_S):
        client, newer = client_of(paged, transport), client_of(paged, transport)
        await client.connect()
        newer.session = client.session
        await newer.connect()
        with pytest.raises(Refused) as refused:
            await client.until(lambda: False)
        assert refused.value.code == "unavailable"
        await newer._send(spec_client.MODIFY, 77, 78, [], [])
        with pytest.raises(Refused) as refused:
            await newer.until(lambda: False)
        assert refused.value.code == "protocol_error"
        await client.cut()
        await newer.cut()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_results_of_every_kind(probe: RunningDaemon, transport: str) -> None:
    async with asyncio.timeout(LIMIT_S):
        client = client_of(probe, transport)
        await client.connect()
        for value in (
            None,
            True,
            -(2**63),
            2**63 - 1,
            1.5,
            "ä€",
            b"\x00",
            [1, [2]],
            {"a": {"b": []}},
            "x" * 100_000,
        ):
            assert await read(client, "probe:echo", value=value) == value
        await client.cut()


def test_a_client_notices_what_a_server_must_not_send() -> None:
    client = SpecClient("tcp://127.0.0.1:1")
    client.version, client._resumed_at, client._seen_ts = (0, 0, 5), 0, 5
    client._first_changes, client._confirmable = set(), set()
    client.queries[1] = spec_client.Query("a:b", b"\x80")
    for start, end, changes in (
        ([0, 0, 4], [0, 0, 6], []),
        ([0, 0, 5], [0, 0, 4], []),
        ([0, 0, 5], [0, 0, 6], [[1, [1, b"\x92\x00\x90", b"d"]]]),
        ([0, 0, 5], [0, 0, 6], [[1, [2, b"d"]]]),
        ([0, 0, 5], [0, 0, 6], [[1, [4]], [1, [4]]]),
    ):
        with pytest.raises(Broken):
            client._transition(start, end, changes)
