"""What subscriptions cost writes that do not concern them: 10,000 on 10,000 accounts, each on another one.

Ours: payments a second into random accounts while 100 clients are subscribed to 100 accounts each;
a payment concerns one of the subscriptions. The limit: the same payments in a second daemon to which
nobody is subscribed. Before that: how long one client takes to open 1,000 subscriptions and have all values.
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import headwater

from benchmarks import slices
from benchmarks.child import Child
from benchmarks.daemon import running
from benchmarks.subscribers import Subscribers
from benchmarks.transfers import check_money, open_accounts, run_load

if TYPE_CHECKING:
    from benchmarks.daemon import Daemon
    from benchmarks.subscribers import Call

SUBSCRIPTIONS = 10_000
CLIENTS = 100
OPENED = 1_000
WRITERS = 8


async def opening_s(daemon: Daemon) -> float:
    """Return how long one client takes to open subscriptions and have all their values."""
    async with headwater.connect(daemon.url) as client:
        await client.wait_connected()
        start = time.perf_counter()
        subscriptions = [client.subscribe("bank:balance", number=number) for number in range(OPENED)]
        for subscription in subscriptions:
            await anext(subscription)
        return time.perf_counter() - start


async def measure(count: int, writers: int, in_flight: int) -> tuple[slices.Paired, dict[str, object]]:
    """Measure both daemons in turns."""
    result = slices.Paired([], [], more_is_better=True)
    answers = {"watched": 0.0, "others": 0.0}
    async with AsyncExitStack() as stack:
        daemons = [await stack.enter_async_context(running()) for _ in range(2)]
        loads = []
        for daemon in daemons:
            await open_accounts(daemon, SUBSCRIPTIONS)
            words = (daemon.port, writers, in_flight, 0, SUBSCRIPTIONS, 1, "bank:pay_in")
            loads.append(await Child.start("benchmarks.mutators", *words))
        opened_s = await opening_s(daemons[0])
        each = SUBSCRIPTIONS // CLIENTS
        looks: list[list[Call]] = [
            [("bank:balance", {"number": first + i}) for i in range(each)]
            for first in range(0, SUBSCRIPTIONS, each)
        ]
        subscribers = await Subscribers.start(daemons[0].port, "/sync", looks)
        first = await subscribers.settled(SUBSCRIPTIONS, "changes")
        for _ in range(count + 1):
            for load, rates, name in zip(loads, (result.ours, result.limit), answers, strict=True):
                slice_ = await run_load(load, slices.SLICE_S * 2)
                rates.append(slice_["answers"] / slice_["seconds"])
                answers[name] += slice_["all_answers"]
        del result.ours[0], result.limit[0]
        changes = (await subscribers.settled(first["changes"], "changes"))["changes"] - first["changes"]
        for load, daemon, paid_in in zip(loads, daemons, answers.values(), strict=True):
            await load.close()
            await check_money(daemon, SUBSCRIPTIONS, int(paid_in))
        await subscribers.close()
    further: dict[str, object] = {
        "subscriptions": SUBSCRIPTIONS,
        "writers": writers,
        "in_flight": in_flight,
        "changes_a_write": round(changes / answers["watched"], 3),
        f"opening_{OPENED}_s": round(opened_s, 3),
    }
    return result, further


def main() -> int:
    """Run the benchmark."""
    parser = slices.arguments(__doc__)
    parser.add_argument(
        "--writers", type=int, default=WRITERS, help=f"clients that write (default {WRITERS})"
    )
    parser.add_argument("--in-flight", type=int, default=1, help="writes of each under way (default 1)")
    chosen = parser.parse_args()
    result, further = asyncio.run(measure(chosen.slices, chosen.writers, chosen.in_flight))
    report = slices.Report("selective", result.row("writes/s"), further)
    report.further["machine"] = slices.machine()
    report.print(as_json=chosen.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
