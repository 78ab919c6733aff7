"""The real daemon on a disk that fails at a chosen call, with real clients that keep their own record.

While the disk is full, the daemon goes on with the same process: queries and new subscriptions are answered, new writes
are refused, and all of it works again once there is room. When the disk fails it ends with its exit code; started again
it has everything that was acknowledged. Whatever was refused never appears.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import itertools
import random
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from headwater.packing import pack
from headwater_protocol.errors import HeadwaterError

from support.daemon import BUNDLES, Answer, RunningDaemon
from support.disk_faults import PLANS, Faults, Plan, Tally
from support.eager_client import EagerClient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from headwater.client.aio import Client

WRITERS = 2
PROBER = 99
BIG_BYTES = 900_000
WAIT_S = 30.0
POLL_S = 0.004
FIRE_WAIT_S = 5.0
CALLS_MAX = 25
CANNOT_START, FAILED = 1, 4
OPTIONS = (
    "--workers", "1",
    "--log-segment-bytes", "1048576",
    "--checkpoint-interval-s", "0.1",
)  # fmt: skip
ENDS_THE_DAEMON = ("log/", "store/", " /checkpoint", " /format")
"""Files whose failure the daemon does not outlive; without the others it can do."""


@dataclass
class Writer:
    """A client and its own record.

    Attributes:
        number: Its name in the database.
        acknowledged: Entries that were; the next one has this number.
        refused: Calls that were refused.
        wrong: What it should not have been told.
    """

    number: int
    acknowledged: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)

    async def write(self, client: Client, size: int) -> bool:
        """Append the next entry; False if it was refused. A refused number is tried again: it must not be there."""
        try:
            await client.mutation("disk:append", writer=self.number, number=self.acknowledged, size=size)
        except HeadwaterError as error:
            if error.code not in ("disk_full", "unavailable"):
                self.wrong.append(f"writer {self.number}, {self.acknowledged}: {error.code}: {error.message}")
            self.refused += 1
            return False
        self.acknowledged += 1
        return True


class Trial:
    """One daemon and what is done to its disk."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.tally = Tally()
        self._folder = folder
        self.daemon = RunningDaemon(folder, OPTIONS)
        self.faults = Faults(self.daemon.data, folder / "control")
        self.daemon.environment = self.faults.environment
        self.writers = [Writer(number) for number in range(WRITERS)]
        self.prober = Writer(PROBER)
        self._stamps = itertools.count()
        self._new_key = ""  # the answer to the last rotation
        self._next = dict.fromkeys(PLANS, 1)

    # ------------------------------------------------------------------ small things

    def client(self) -> Client:
        return EagerClient(
            self.daemon.url if self.chance.random() < 0.5 else self.daemon.tcp_url, self.chance
        )

    def bundle(self) -> bytes:
        """The same functions under another hash each time."""
        folder = self._folder / "stamped" / "functions"
        if not folder.exists():
            shutil.copytree(BUNDLES / "disk" / "functions", folder)
        (folder / "stamp.py").write_text(f"STAMP = {next(self._stamps)}\n")
        return pack(folder)

    async def deploy(self) -> None:
        answer = await asyncio.to_thread(self.post, "deploy", self.bundle())
        if answer.status not in (200, 507):
            raise AssertionError(f"a deploy was answered with {answer.status}: {answer.text}")

    async def rotate_key(self) -> None:
        answer = await asyncio.to_thread(self.post, "rotate-key", b"")
        if answer.status == 200:
            self._new_key = answer.json["key"]
        elif answer.status != 507:
            raise AssertionError(f"a new key was answered with {answer.status}: {answer.text}")

    def post(self, action: str, content: bytes) -> Answer:
        """Act as the deployment's owner. A new key whose file found no room is in its file only after a start."""
        key = self._new_key or self.daemon.key
        return self.daemon.post(f"/api/admin/{action}", content, Authorization=f"Headwater {key}")

    # ------------------------------------------------------------------ a full disk

    async def full_round(self, client: Client, count: int) -> None:
        """Fill the disk at the next call of a kind, look what works, give room, and see that all of it goes on."""
        plans = [plan for plan in PLANS if plan.is_full]
        plan = plans[count % len(plans)]
        self.faults.arm(plan, self._next[plan])
        # What is in the log already is not answered before there is room.
        rare = asyncio.create_task(self._provoke(count))
        await self._meet_full_disk(client, plan)
        (outcome,) = await asyncio.gather(rare, return_exceptions=True)
        if isinstance(outcome, BaseException) and not self.faults.hit_meta:  # else the daemon was just ending
            raise outcome

    async def _meet_full_disk(self, client: Client, plan: Plan) -> None:
        process = self.daemon.process
        assert process is not None
        if not await self._fired(FIRE_WAIT_S):
            self.faults.disarm()
            return
        self._next[plan] = self._next[plan] % CALLS_MAX + 1
        where = f"{plan}: {self.faults.place}"
        self.tally.note(plan, self.faults.place)
        if self.faults.hit_meta:
            await self._ends_and_comes_back(where, {FAILED})
            return
        try:
            await self._works_without_room(client)
            self.faults.give_room()
            async with asyncio.timeout(WAIT_S):
                while not await self.prober.write(client, 10):
                    await asyncio.sleep(POLL_S)
            updates = client.subscribe("disk:newest", writer=PROBER)
            async with asyncio.timeout(WAIT_S):
                while await anext(updates) != self.prober.acknowledged - 1:
                    pass
        except (TimeoutError, AssertionError, HeadwaterError) as error:
            if self.faults.hit_meta:
                await self._ends_and_comes_back(where, {FAILED})
                return
            raise AssertionError(f"{where}: {error!r}\n{self.daemon.log_text()[-3000:]}") from error
        assert self.daemon.process is process, where
        assert process.poll() is None, f"{where}: it ended with {process.poll()}"
        self.faults.disarm()

    async def _provoke(self, count: int) -> None:
        """Writes and checkpoints go on by themselves; have something rarer happen too."""
        if count % 5 == 3:
            await self.deploy()
        elif count % 11 == 6:
            await self.rotate_key()

    async def _works_without_room(self, client: Client) -> None:
        """A query and a new subscription are answered, a new write is refused."""
        assert self.faults.full
        async with asyncio.timeout(WAIT_S):
            assert len(await client.query("disk:numbers", writer=PROBER)) == self.prober.acknowledged
            assert await anext(client.subscribe("disk:newest", writer=PROBER)) == (
                self.prober.acknowledged - 1 if self.prober.acknowledged else None
            )
            refused = self.prober.refused
            await self.prober.write(client, 10)
        assert self.prober.refused == refused + 1, "a write was taken while the disk was full"

    async def _fired(self, seconds: float) -> bool:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + seconds
        # The other side is another process: nothing tells but its memory.
        while not self.faults.fired and loop.time() < deadline_s:
            await asyncio.sleep(POLL_S)
        return self.faults.fired

    # ------------------------------------------------------------------ a failing disk

    async def failure_round(self, count: int) -> None:
        """Have a call fail, also while the daemon starts; it ends with its code, and comes back with everything."""
        plans = [plan for plan in PLANS if not plan.is_full]
        plan = plans[count % len(plans)]
        at_start = count % 3 == 2
        at = self.chance.randrange(1, 25 if at_start else 12)
        if at_start:
            await asyncio.to_thread(self.daemon.kill)
            self._new_key = ""
            self.faults.arm(plan, at)
            self.daemon.launch()
            await self._started_or_ended()
        else:
            self.faults.arm(plan, at)
            await self._rare_or_ended(count)
        if not await self._fired(WAIT_S if self.daemon.process is None else FIRE_WAIT_S):
            self.faults.disarm()
            return
        self.tally.note(plan, self.faults.place)
        where = f"{plan} at {at}: {self.faults.place}"
        if any(name in self.faults.place for name in ENDS_THE_DAEMON):
            await self._ends_and_comes_back(where, {FAILED})
        else:
            await self._comes_back_if_it_ended(where)

    async def full_start(self, count: int) -> None:
        """Start on a disk that is full from one call on: it says so, or serves; with room it starts again.

        Exit code 1 means that it could not start, whatever found no room, and 4 that it served already and
        then found none for LMDB's meta page.
        """
        plan = [plan for plan in PLANS if plan.is_full][count % 4]
        await asyncio.to_thread(self.daemon.kill)
        self._new_key = ""
        self.faults.arm(plan, 1 + self.chance.randrange(40))
        said_before = len(self.daemon.log_text())
        self.daemon.launch()
        await self._started_or_ended()
        if self.faults.fired:
            self.tally.note(plan, self.faults.place)
        where = f"at the start, {plan}: {self.faults.place}"
        process = self.daemon.process
        assert process is not None
        if process.poll() is None:
            self.faults.disarm()
            return
        code = await asyncio.to_thread(self.daemon.wait_end)
        said = self.daemon.log_text()[said_before:]
        if '"event": "ready"' in said:
            assert code == FAILED, f"{where}: it served and ended with {code}\n{said[-3000:]}"
            assert self.faults.hit_meta, f"{where}: it ended though it could have gone on\n{said[-3000:]}"
        else:
            assert code == CANNOT_START, f"{where}: it ended with {code}\n{said[-3000:]}"
            assert "headwater: disk_full: " in said.strip().splitlines()[-1], f"{where}: it said {said!r}"
        self.faults.disarm()
        await self._start_again()

    async def _rare_or_ended(self, count: int) -> None:
        with contextlib.suppress(OSError, AssertionError, http.client.HTTPException):
            await self._provoke(count + 3)

    async def _started_or_ended(self) -> None:
        process = self.daemon.process
        assert process is not None
        async with asyncio.timeout(60.0):
            while process.poll() is None and not await asyncio.to_thread(self.daemon.is_ready):
                await asyncio.sleep(0.01)

    async def _ends_and_comes_back(self, where: str, codes: set[int]) -> None:
        code = await asyncio.to_thread(self.daemon.wait_end)
        self.faults.disarm()
        assert code in codes, f"{where}: it ended with {code}\n{self.daemon.log_text()[-3000:]}"
        await self._start_again()

    async def _start_again(self) -> None:
        self._new_key = ""  # a start puts the valid key into its file
        await asyncio.to_thread(self.daemon.start)

    async def _comes_back_if_it_ended(self, where: str) -> None:
        process = self.daemon.process
        assert process is not None
        self.faults.disarm()
        await asyncio.sleep(0.1)
        if process.poll() is not None:
            await self._ends_and_comes_back(where, {CANNOT_START, FAILED})

    # ------------------------------------------------------------------ the whole

    async def with_writers(self, work: Callable[[Client], Awaitable[None]]) -> None:
        """Do something while all writers write, and let each finish what it has begun."""
        async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
            client = await stack.enter_async_context(self.client())
            stopping = asyncio.Event()
            for writer in self.writers:
                own = await stack.enter_async_context(self.client())
                tasks.create_task(self._until(writer, own, stopping))
            try:
                await work(client)
            finally:
                stopping.set()

    async def _until(self, writer: Writer, client: Client, stopping: asyncio.Event) -> None:
        """Write; every now and then more than the rest of a segment holds."""
        for count in itertools.count():
            if stopping.is_set():
                return
            if not await writer.write(client, BIG_BYTES if count % 60 == 11 else 50 + count % 7 * 300):
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.003)

    def check_record(self) -> None:
        """Compare the database with what every client was told."""
        for writer in (*self.writers, self.prober):
            assert not writer.wrong, writer.wrong[:5]
            found = self.daemon.call("query", "disk:numbers", writer=writer.number)
            assert found == list(range(writer.acknowledged)), (
                f"writer {writer.number} was acknowledged {writer.acknowledged}, there are {found}"
            )


def trial(folder: Path, seed: int, *, full_rounds: int, failures: int) -> Tally:
    """Run a daemon through full and failing disks; return what was met.

    Args:
        folder: For the data directory.
        seed: Of everything that is left to chance.
        full_rounds: How often the disk is filled while the daemon serves; some meet nothing.
        failures: How often it fails, and how often the daemon starts on a full one.
    """
    print(f"seed {seed}")
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    run = Trial(folder, seed)
    daemon = run.daemon

    async def work(client: Client) -> None:
        for count in range(full_rounds):
            await run.full_round(client, count)
        for count in range(failures):
            await run.failure_round(count)
            await run.full_start(count)

    try:
        daemon.start()
        assert daemon.deploy(run.bundle()).status == 200
        asyncio.run(run.with_writers(work))
        run.check_record()
        assert daemon.terminate() == 0
        assert daemon.doctor() == []
        daemon.start()
        run.check_record()
        assert daemon.terminate() == 0
    finally:
        daemon.end()
    run.tally.acknowledged = sum(writer.acknowledged for writer in (*run.writers, run.prober))
    run.tally.refused = sum(writer.refused for writer in (*run.writers, run.prober))
    return run.tally
