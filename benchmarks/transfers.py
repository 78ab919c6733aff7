"""How many durable mutations a second the whole daemon does: two accounts read and written in each.

1,000 accounts, 64 clients with 40 mutations in flight each over WebSocket; a session's
mutations run in order, so at most 64 run at a time. The limit: the bare pipeline of
`commit` (append, fdatasync, LMDB puts, none of Headwater's code) with the same write sets in
batches of 64. The load generator shares the machine; its CPU is told apart.

With `--zipf 1.5` the accounts are drawn with Zipf's law of that exponent (of two accounts one is
nearly always among the hottest three), and the limit is the rate at which the same daemon does
the transfers when all accounts are drawn alike. One more client, with one transfer at a time
between accounts of its own, tells how long those wait that have nothing to do with the hot ones.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import statistics
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import headwater
import msgspec
from headwater_protocol.ids import make_suffix, table_prefix
from headwater_storage.catalog import FIRST_USER_TABLE, REQUESTS
from headwater_storage.keys import document_key
from headwater_storage.stored import pack_stored

from benchmarks import slices
from benchmarks.bare import BarePipeline, Batch
from benchmarks.child import Child
from benchmarks.daemon import running
from benchmarks.processes import cpu_s, tree, tree_cpu_s

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.daemon import Daemon

ACCOUNTS = 1_000
CLIENTS = 64
IN_FLIGHT = 40
BATCH = 64
BYSTANDER_ACCOUNTS = 64
HOT_SLICE_S = 2.0
COUNTERS = {
    f"headwater_{name}_total": name
    for name in ("commits", "batches", "conflicts", "lane_chains", "lane_members", "lane_reruns")
} | {
    "headwater_gate_wait_seconds_count": "gate_waits",
    'headwater_gate_wait_seconds_bucket{le="0.05"}': "gate_waits_to_50_ms",
    'headwater_gate_wait_seconds_bucket{le="0.1"}': "gate_waits_to_100_ms",
}
"""Which of the daemon's counters are shown, and as what."""


async def run_load(load: Child, seconds: float, exponent: float = 0.0) -> dict[str, float]:
    """Send mutations for so long."""
    result: dict[str, float] = json.loads(await load.ask(f"{seconds} {exponent}"))
    return result


async def open_accounts(daemon: Daemon, count: int) -> None:
    """Open accounts with 1,000 on each."""
    async with headwater.connect(daemon.url) as client:
        for first in range(0, count, 500):
            some = min(500, count - first)
            await client.mutation("bank:open_accounts", first=first, count=some, balance=1_000)


async def check_money(daemon: Daemon, accounts: int, paid_in: int = 0) -> None:
    """Fail if money was made or lost."""
    async with headwater.connect(daemon.url) as client:
        money = await client.query("bank:total")
    if money != accounts * 1_000 + paid_in:
        raise AssertionError(f"money was made or lost: {money}")


def bare_batches() -> Iterator[tuple[int, Batch]]:
    """Yield what 64 transfers write: two accounts and the row of the request each."""
    accounts = []
    for number in range(ACCOUNTS):
        suffix = make_suffix(1_700_000_000_000_000 + number, 0, os.urandom(10))
        accounts.append((suffix.encode(), table_prefix(FIRST_USER_TABLE) + suffix))
    session = os.urandom(16)
    row = msgspec.msgpack.encode([os.urandom(16), b"\xc0", "", "", None])
    for first in itertools.count(0, BATCH):
        puts = []
        for request in range(first, first + BATCH):
            for suffix, document_id in (accounts[request % ACCOUNTS], accounts[(request * 7 + 1) % ACCOUNTS]):
                document = {
                    "_id": document_id,
                    "_creationTime": 1.7e12,
                    "number": request,
                    "balance": request,
                }
                key = document_key(FIRST_USER_TABLE, suffix)
                puts.append((key, pack_stored(1, msgspec.msgpack.encode(document), key)))
            key = document_key(REQUESTS, session + request.to_bytes(8, "big"))
            puts.append((key, pack_stored(0, row, key)))
        yield BATCH, (b"".join(key + value for key, value in puts), puts, [])


async def measure(folder: Path, count: int) -> tuple[slices.Paired, dict[str, object]]:
    """Measure slices in turns."""
    result = slices.Paired([], [], more_is_better=True)
    totals = {"all_answers": 0.0, "errors": 0.0}
    async with running() as daemon:
        await open_accounts(daemon, ACCOUNTS)
        bare, batches = BarePipeline(folder), bare_batches()
        load = await Child.start(
            "benchmarks.mutators", daemon.port, CLIENTS, IN_FLIGHT, 0, ACCOUNTS, 1, "bank:transfer"
        )
        clients_before_s = (await run_load(load, 1.0))["cpu_s"]
        bare.run(batches, slices.SLICE_S / 2)
        cpu = {"daemon": 0.0, "workers": 0.0, "clients": 0.0}
        for _ in range(count):
            before = (cpu_s(daemon.pid), tree_cpu_s(daemon.pid), 0.0)
            slice_ = await run_load(load, slices.SLICE_S * 2)
            daemon_s = cpu_s(daemon.pid) - before[0]
            cpu["daemon"] += daemon_s
            cpu["workers"] += tree_cpu_s(daemon.pid) - before[1] - daemon_s
            cpu["clients"] = slice_["cpu_s"] - clients_before_s
            for key in totals:
                totals[key] += slice_[key]
            result.ours.append(slice_["answers"] / slice_["seconds"])
            result.limit.append(bare.run(batches, slices.SLICE_S))
        await load.close()
        bare.close()
        await check_money(daemon, ACCOUNTS)
        further: dict[str, object] = {
            "errors": int(totals["errors"]),
            "processes": len(tree(daemon.pid)),
            "daemon_cpu_us": round(cpu["daemon"] / totals["all_answers"] * 1e6, 1),
            "workers_cpu_us": round(cpu["workers"] / totals["all_answers"] * 1e6, 1),
            "clients_cpu_us": round(cpu["clients"] / totals["all_answers"] * 1e6, 1),
        }
    return result, further


async def measure_hot(exponent: float, count: int) -> tuple[slices.Paired, dict[str, object]]:
    """Measure hot and uniform slices in turns, and a bystander in both."""
    result = slices.Paired([], [], more_is_better=True)
    waits: dict[float, list[dict[str, float]]] = {exponent: [], 0.0: []}
    cpu: dict[float, list[tuple[float, float]]] = {exponent: [], 0.0: []}
    counters: dict[float, Counter[str]] = {exponent: Counter(), 0.0: Counter()}
    errors = 0.0
    async with running() as daemon:
        await open_accounts(daemon, ACCOUNTS + BYSTANDER_ACCOUNTS)
        load = await Child.start(
            "benchmarks.mutators", daemon.port, CLIENTS, IN_FLIGHT, 0, ACCOUNTS, 1, "bank:transfer"
        )
        bystander = await Child.start(
            "benchmarks.mutators", daemon.port, 1, 1, ACCOUNTS, BYSTANDER_ACCOUNTS, 2, "bank:transfer"
        )
        for each in (exponent, 0.0):
            await run_load(load, HOT_SLICE_S, each)
        for _ in range(count):
            for each, rates in ((exponent, result.ours), (0.0, result.limit)):
                before, counted = (cpu_s(daemon.pid), tree_cpu_s(daemon.pid)), await lane_counters(daemon)
                slice_, waited = await asyncio.gather(
                    run_load(load, HOT_SLICE_S, each), run_load(bystander, HOT_SLICE_S)
                )
                daemon_s = cpu_s(daemon.pid) - before[0]
                calls = slice_["all_answers"] + waited["all_answers"]
                workers_s = tree_cpu_s(daemon.pid) - before[1] - daemon_s
                cpu[each].append((daemon_s / calls * 1e6, workers_s / calls * 1e6))
                rates.append(slice_["answers"] / slice_["seconds"])
                for name, value in (await lane_counters(daemon)).items():
                    counters[each][name] += value - counted[name]
                waits[each].append(waited)
                errors += slice_["errors"] + waited["errors"]
        await load.close()
        await bystander.close()
        await check_money(daemon, ACCOUNTS + BYSTANDER_ACCOUNTS)
    further: dict[str, object] = {"exponent": exponent, "errors": int(errors)}
    for name, key in (("hot", exponent), ("uniform", 0.0)):
        further[f"{name}_counters"] = dict(counters[key])
        for figure in ("p50_ms", "p99_ms"):
            median = statistics.median(slice_[figure] for slice_ in waits[key])
            further[f"bystander_{name}_{figure}"] = round(median, 2)
        further[f"{name}_daemon_cpu_us"] = round(statistics.median(daemon_us for daemon_us, _ in cpu[key]), 1)
        further[f"{name}_workers_cpu_us"] = round(statistics.median(workers for _, workers in cpu[key]), 1)
    return result, further


async def lane_counters(daemon: Daemon) -> dict[str, int]:
    """Return what the daemon has counted of commits, conflicts and the lane."""
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{daemon.port}/metrics") as answer:
        text = await answer.text()
    found: dict[str, int] = {}
    for line in text.splitlines():
        sample, _, value = line.rpartition(" ")
        if sample in COUNTERS:
            found[COUNTERS[sample]] = int(float(value))
    return found


def main() -> int:
    """Run the benchmark."""
    parser = slices.arguments(__doc__)
    parser.add_argument(
        "--zipf", type=float, help="draw the accounts with Zipf's law; the limit is the rate without it"
    )
    chosen = parser.parse_args()
    if chosen.zipf:
        result, further = asyncio.run(measure_hot(chosen.zipf, chosen.slices))
        report = slices.Report("transfers-zipf", result.row("mutations/s"), further)
        report.further["machine"] = slices.machine()
        report.print(as_json=chosen.json)
        return 0
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder:
        result, further = asyncio.run(measure(Path(folder), chosen.slices))
    report = slices.Report("transfers", result.row("mutations/s"), further)
    report.further["machine"] = slices.machine()
    report.print(as_json=chosen.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
