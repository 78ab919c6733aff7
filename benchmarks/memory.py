"""What clients and an idle daemon cost in memory, as proportional set size of the daemon and all its processes.

Value: kB for each of 1,000 clients with one subscription to the same list of 50. The limit: 40 kB. Beside it: all processes
with a bundle and no client, against 80 MB; and the growth from the first tenth to the last of as many rounds as fit
into `--minutes`, each of which opens and closes subscriptions to other topics and connections, with `--deploys`
deploys of different bundles spread over them.
"""

from __future__ import annotations

import asyncio
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import headwater
from headwater.http_client import HttpClient
from headwater.packing import pack

from benchmarks import slices
from benchmarks.daemon import FUNCTIONS, Daemon, kept_bytecode, running
from benchmarks.processes import tree_pss_bytes
from benchmarks.subscribers import Subscribers

if TYPE_CHECKING:
    from benchmarks.subscribers import Call

CLIENTS = 1_000
TOPIC = "memory"
CLIENT_LIMIT_KB = 40.0
IDLE_LIMIT_MB = 80.0
ROUND_CLIENTS = 20
ROUND_SUBSCRIPTIONS = 10
SETTLE_S = 2.0


async def settled_bytes(daemon: Daemon) -> int:
    """Return the memory of all processes once what was under way is over."""
    await asyncio.sleep(SETTLE_S)
    return tree_pss_bytes(daemon.pid)


async def client_kb(daemon: Daemon) -> float:
    """Return what each of many clients costs."""
    before = await settled_bytes(daemon)
    looks: list[list[Call]] = [[("feed:newest", {"topic": TOPIC})]] * CLIENTS
    subscribers = await Subscribers.start(daemon.port, "/sync", looks)
    await subscribers.settled(CLIENTS, "changes")
    after = await settled_bytes(daemon)
    await subscribers.close()
    return (after - before) / CLIENTS / 1000


async def growth(daemon: Daemon, seconds: float, deploys: int) -> dict[str, object]:
    """Subscribe, unsubscribe, connect, disconnect and deploy for so long; return how the memory went."""
    start = time.monotonic()
    key = (daemon.data / "admin-key").read_text().strip()
    samples: list[int] = []
    rounds = deployed = 0
    async with (
        HttpClient(f"http://127.0.0.1:{daemon.port}", key=key) as http,
        headwater.connect(daemon.url) as writer,
    ):
        while (spent := time.monotonic() - start) < seconds:
            if deployed < deploys * spent / seconds:
                deployed += 1
                await http.deploy(bundle(deployed))
            await one_round(daemon, writer, rounds)
            rounds += 1
            samples.append(tree_pss_bytes(daemon.pid))
    tenth = max(1, len(samples) // 10)
    first, last = statistics.median(samples[:tenth]), statistics.median(samples[-tenth:])
    return {
        "rounds": rounds,
        "deploys": deployed,
        "first_tenth_mb": round(first / 1e6, 1),
        "last_tenth_mb": round(last / 1e6, 1),
        "most_mb": round(max(samples) / 1e6, 1),
    }


def bundle(number: int) -> bytes:
    """Return a bundle that no other number has: the same functions and one more."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / FUNCTIONS.name
        shutil.copytree(FUNCTIONS, copy)
        (copy / "further.py").write_text(
            "from headwater import QueryCtx, query\n\n\n"
            f"@query\ndef number_{number}(ctx: QueryCtx) -> int:\n    return {number}\n"
        )
        return pack(copy)


async def one_round(daemon: Daemon, writer: headwater.Client, number: int) -> None:
    """Have clients come, look at topics that nobody has looked at, see a change and leave."""

    async def visit(visitor: int) -> None:
        async with headwater.connect(daemon.url) as client:
            subscriptions = [
                client.subscribe("feed:newest", topic=f"{number}/{visitor % 4}/{i}")
                for i in range(ROUND_SUBSCRIPTIONS)
            ]
            for subscription in subscriptions:
                await anext(subscription)
            await writer.mutation("feed:add", topic=f"{number}/{visitor % 4}/0", body="x" * 100)

    await asyncio.gather(*(visit(visitor) for visitor in range(ROUND_CLIENTS)))


async def measure(minutes: float, deploys: int) -> slices.Report:
    """Measure all three."""
    async with running():
        pass  # the first one leaves its bytecode: who compiles at each start needs some MB more
    async with running() as daemon:
        idle = await settled_bytes(daemon)
        async with headwater.connect(daemon.url) as client:
            for _ in range(50):
                await client.mutation("feed:add", topic=TOPIC, body="x" * 250)
        each_kb = await client_kb(daemon)
        further = await growth(daemon, minutes * 60, deploys) if minutes else {}
    result = slices.Paired([each_kb], [CLIENT_LIMIT_KB], more_is_better=False)
    report = slices.Report("memory", result.row("kB a client"))
    report.further |= {"idle_mb": round(idle / 1e6, 1), "idle_limit_mb": IDLE_LIMIT_MB, **further}
    report.further["machine"] = slices.machine()
    return report


def main() -> int:
    """Run the benchmark."""
    parser = slices.arguments(__doc__)
    parser.add_argument("--minutes", type=float, default=0.5, help="of subscribing and leaving (default 0.5)")
    parser.add_argument("--deploys", type=int, default=4, help="deploys in that time (default 4)")
    chosen = parser.parse_args()
    with kept_bytecode():
        asyncio.run(measure(chosen.minutes, chosen.deploys)).print(as_json=chosen.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
