"""What subscriptions cost writes that do not concern them: 10,000 on 10,000 accounts, each on another one.

Ours: transfers a second between random accounts while 100 clients are subscribed to 100 accounts each;
a transfer concerns two of the subscriptions. The limit: the same transfers in a second daemon to which
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
from benchmarks.transfers import check_money, open_accounts, run_load

if TYPE_CHECKING:
    from benchmarks.daemon import Daemon

SUBSCRIPTIONS = 10_000
CLIENTS = 100
OPENED = 1_000
WRITERS = 8
IN_FLIGHT = 20


class Watchers:
    """Clients that look at one account with each of their subscriptions.

    Attributes:
        updates: Values that came after the first ones.
    """

    def __init__(self) -> None:
        self.updates = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, stack: AsyncExitStack, daemon: Daemon) -> None:
        """Open all subscriptions and wait until each has its first value."""
        each = SUBSCRIPTIONS // CLIENTS
        for first in range(0, SUBSCRIPTIONS, each):
            client = await stack.enter_async_context(headwater.connect(daemon.url))
            subscriptions = [client.subscribe("bank:balance", number=first + i) for i in range(each)]
            for subscription in subscriptions:
                await anext(subscription)
            self._tasks += [asyncio.create_task(self._watch(subscription)) for subscription in subscriptions]
        stack.callback(self._stop)

    async def _watch(self, subscription: headwater.Subscription) -> None:
        async for _ in subscription:
            self.updates += 1

    def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()


async def opening_s(daemon: Daemon) -> float:
    """Return how long one client takes to open subscriptions and have all their values."""
    async with headwater.connect(daemon.url) as client:
        await client.wait_connected()
        start = time.perf_counter()
        subscriptions = [client.subscribe("bank:balance", number=number) for number in range(OPENED)]
        for subscription in subscriptions:
            await anext(subscription)
        return time.perf_counter() - start


async def measure(count: int) -> tuple[slices.Paired, dict[str, object]]:
    """Measure both daemons in turns."""
    result = slices.Paired([], [], more_is_better=True)
    watchers = Watchers()
    answers = 0.0
    async with AsyncExitStack() as stack:
        daemons = [await stack.enter_async_context(running()) for _ in range(2)]
        loads = []
        for daemon in daemons:
            await open_accounts(daemon, SUBSCRIPTIONS)
            words = (daemon.port, WRITERS, IN_FLIGHT, 0, SUBSCRIPTIONS, 1)
            loads.append(await Child.start("benchmarks.mutators", *words))
        opened_s = await opening_s(daemons[0])
        await watchers.open(stack, daemons[0])
        for load in loads:
            await run_load(load, slices.SLICE_S)
        watchers.updates = 0
        for _ in range(count):
            for load, rates in zip(loads, (result.ours, result.limit), strict=True):
                slice_ = await run_load(load, slices.SLICE_S * 2)
                rates.append(slice_["answers"] / slice_["seconds"])
                answers += slice_["all_answers"] * (load is loads[0])
        await asyncio.sleep(0.5)
        for load, daemon in zip(loads, daemons, strict=True):
            await load.close()
            await check_money(daemon, SUBSCRIPTIONS)
    further: dict[str, object] = {
        "subscriptions": SUBSCRIPTIONS,
        "updates_a_transfer": round(watchers.updates / answers, 3),
        f"opening_{OPENED}_s": round(opened_s, 3),
    }
    return result, further


def main() -> int:
    """Run the benchmark."""
    chosen = slices.arguments(__doc__).parse_args()
    result, further = asyncio.run(measure(chosen.slices))
    report = slices.Report("selective", result.row("transfers/s"), further)
    report.further["machine"] = slices.machine()
    report.print(as_json=chosen.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
