"""The whole system in one process on virtual time: one seed decides everything.

A daemon (all of it real, see `life.py`), clients over a lossy network, a disk that outlives the daemon.
While the clients work through their scripts, faults come: kills and power cuts, also in the middle of
writing and of recovery; full, slow and failing disks; deaths of workers; cut, half-open and slow
connections; a clock that is set; restarts; a deploy. Then the faults stop, everything has to come to rest
within a bounded time, and what clients were told and shown is compared with the log.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from headwater.packing import bundle_hash
from headwater_config.settings import Settings
from headwater_protocol.errors import HeadwaterError
from headwater_storage.check import check, digest, replay

from support.memory_files import Crashed
from support.world.clients import ScriptedClient
from support.world.life import KILLED, Disk, Faults, Life
from support.world.network import Network
from support.world.paged_store import PagedStore
from support.world.timeline import Timeline, WallClock
from support.world.truth import ACCOUNTS, BALANCE, Truth, Wrong
from support.world.workers import archive

if TYPE_CHECKING:
    from collections.abc import Callable

HISTORY_S = 120.0
REST_S = 240.0
_LOOK_S = 0.2
_UNKNOWN = ("outcome_unknown", "connection_lost")
_MEMORY = "/dev/shm"
"""Bundles and the admin key lie in real files, which need no disk."""
_KEY = "headwater-admin-" + "k" * 48


@dataclass(frozen=True)
class Setup:
    """How much happens in a history.

    Attributes:
        clients: How many.
        calls: Mutations of each.
        faults: How many faults come.
        life: What lives the daemon's life: a test may take a broken one.
        kinds: Faults that may come, chosen from; None: all.
    """

    clients: int = 3
    calls: int = 7
    faults: int = 6
    life: type[Life] = Life
    kinds: tuple[str, ...] | None = None


@dataclass
class Figures:
    """What a history was made of, for tests and for people."""

    acknowledged: int = 0
    transitions: int = 0
    lives: int = 0
    virtual_s: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)


class World:
    """One history."""

    def __init__(self, seed: int, setup: Setup | None = None) -> None:
        self.seed = seed
        self.setup = setup or Setup()
        self.random = Random(seed)
        self.timeline = Timeline()
        self.outside = self.timeline.new_loop("outside")
        self.network = Network(self.timeline, self.outside, self.random)
        self.disk = Disk()
        self.clock = WallClock(self.timeline)
        self.faults = Faults()
        self.life: Life | None = None
        self.figures = Figures()
        self.clients: list[ScriptedClient] = []
        self._resting = False
        self._disk_was_full = self._disk_was_failing = False
        self._last_ts = 0
        self._errors: list[str] = []
        self._tasks: list[asyncio.Task[Any]] = []

    def run(self) -> World:
        """Live through the history and check all of it.

        Raises:
            Wrong: A promise was broken; the trace is in its notes.
        """
        logging.getLogger("headwater").setLevel(logging.CRITICAL + 1)
        memory = _MEMORY if Path(_MEMORY).is_dir() else None
        with TemporaryDirectory(prefix="headwater-world-", dir=memory) as folder:
            self._settings = _settings(Path(folder))
            try:
                self._live()
            except BaseException as error:
                trace = "\n".join(self.timeline.recent)
                error.add_note(f"make sim SEED={self.seed} repeats it; the last events:\n{trace}")
                raise
            finally:
                if self.life is not None and not self.life.loop.is_closed():
                    self.life.files.dead = True
                    self._bury(self.life)
                self.outside.bury()
                logging.getLogger("headwater").setLevel(logging.NOTSET)
        return self

    def _live(self) -> None:
        self._tasks.append(self.outside.create_task(self._keep_a_daemon()))
        for number in range(self.setup.clients):
            client = ScriptedClient(
                f"c{number}", self.network, self.timeline, Random(self.random.getrandbits(64))
            )
            self.clients.append(client)
            self._tasks.append(self.outside.create_task(client.script(self.setup.calls)))
        self._tasks.append(self.outside.create_task(self._deploys()))
        chaos = self.outside.create_task(self._chaos())
        self._tasks.append(chaos)
        watch = self.outside.create_task(self._watch(chaos.done))
        self._run(watch, HISTORY_S, "the faults do not end")
        self._rest()
        self.timeline.note("rest")
        watch = self.outside.create_task(self._watch(self._is_at_rest))
        self._run(watch, REST_S, "not everything comes to rest")
        self._check()
        self.figures.virtual_s = self.timeline.now

    async def _watch(self, done: Callable[[], bool]) -> None:
        """Wait until something holds or has failed."""
        while not done() and not self._has_failed():
            await asyncio.sleep(_LOOK_S)

    def _run(self, watch: asyncio.Task[None], limit_s: float, otherwise: str) -> None:
        reached = self.timeline.run(watch.done, limit_s)
        self._raise_failures()
        if not reached:
            waiting = [
                f"{client.name}: {client.state}, {[call for call in client.calls if call.ended_s is None]}"
                for client in self.clients
            ]
            left = self._leftovers(self.life) if self.life is not None and self.life.serves else "no daemon"
            raise Wrong(f"{otherwise}: {waiting}, {left}")

    def _has_failed(self) -> bool:
        life = self.life
        if life is not None:
            self._look_at_errors(life)
        return bool(
            self._errors
            or self.outside.errors
            or any(client.wrong for client in self.clients)
            or any(task.done() and not task.cancelled() and task.exception() for task in self._tasks)
            or (life is not None and life.ended != KILLED and life.failure() is not None)
        )

    def _raise_failures(self) -> None:
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()):
                raise error
        if self.life is not None and (failure := self.life.failure()) and self.life.ended != KILLED:
            raise failure
        for client in self.clients:
            self._errors += client.wrong
        self._errors += [f"a handler outside failed: {context}" for context in self.outside.errors]
        if self._errors:
            raise Wrong("; ".join(self._errors))

    # --------------------------------------------------------------------------------------- the daemon

    async def _keep_a_daemon(self) -> None:
        """Start a daemon whenever there is none."""
        while True:
            if self.life is None or self.life.ended is not None:
                if self.life is not None:
                    self._end_of(self.life)
                    await asyncio.sleep(self.random.choice((0.01, 0.1, 1.0)))
                self._start_life()
            await asyncio.sleep(0.02)

    def _start_life(self) -> None:
        self.figures.lives += 1
        life = self.life = self.setup.life(
            self.timeline, self.random, self.disk, self.clock, self._settings, self.faults, self.figures.lives
        )
        if not self._resting and self.random.random() < 0.3:
            life.files.operations_left = self.random.choice((3, 10, 30, 60, 150))
        try:
            life.start()
        except Crashed:
            return
        except HeadwaterError as error:
            life._stopped()
            if not self._is_excused(error):
                raise
            self.timeline.note(f"it does not start: {error.code}")
            return
        life.files.operations_left = None
        self._check_recovered(life)
        self.network.life = life

    def _end_of(self, life: Life) -> None:
        self.network.daemon_ended(life, tells=self.random.random() < 0.8)
        self._look_at_errors(life)
        if life.ended == KILLED:
            if self.random.random() < 0.5:
                self.timeline.note("the power is cut")
                self.figures.faults["power cut"] += 1
                self.disk.power_cut(self.random)
            else:
                self.disk.kill()
        else:
            if self.disk.open_files:
                self._errors.append(f"files are left open: {list(self.disk.open_files.values())}")
            if life.error is not None and not self._is_excused(life.error):
                raise life.error
        self._bury(life)
        self.life = self.network.life = None
        self.faults.lock_refusals = self.random.choice((0, 0, 2))

    def _is_excused(self, error: BaseException) -> bool:
        """Tell whether the disk gives a daemon reason to end like this."""
        if not isinstance(error, HeadwaterError):
            return False
        return (error.code == "disk_full" and self._disk_was_full) or (
            error.code == "disk_failed" and self._disk_was_failing
        )

    def _bury(self, life: Life) -> None:
        life.files.dead = True
        self.timeline.forget(life.loop)
        life.loop.bury()

    def _look_at_errors(self, life: Life) -> None:
        for context in life.loop.errors:
            if not isinstance(context.get("exception"), Crashed | HeadwaterError):
                self._errors.append(f"a handler of daemon {life.number} failed: {context}")
        life.loop.errors.clear()

    def _check_recovered(self, life: Life) -> None:
        """A recovered store has nothing wrong with it, and is what its log gives from the beginning."""
        store, log = life.daemon.engine.store, life.daemon.engine.log
        findings = check(store, log)
        scratch_files = Disk()
        folder = Path("/scratch")
        scratch_files.make_folder(folder)
        scratch = PagedStore.open(scratch_files, folder, create=True)
        replay(log, scratch)
        if digest(scratch) != digest(store):
            findings.append("replay gives another database")
        if findings:
            raise Wrong(f"after recovery {life.number}: {findings}")
        ts = life.daemon.engine.published_ts
        if ts < self._last_ts:
            raise Wrong(f"recovery {life.number} went back from {self._last_ts} to {ts}")
        self._last_ts = ts

    # ------------------------------------------------------------------------------------------- script

    async def _deploys(self) -> None:
        """Deploy the first bundle, and later the second."""
        await self._deploy("world_one")
        await asyncio.sleep(self.random.random() * 4)
        await self._deploy("world_two")
        for client in self.clients:
            if self.random.random() < 0.5:
                client.follow("screens:largest", {"count": 4})

    async def _deploy(self, name: str) -> None:
        """Deploy until it is done, as an operator would; what the daemon's end cuts off is tried again."""
        wanted = bundle_hash(archive(name))
        while True:
            life = self.life
            if life is not None and life.serves and life.ended is None:
                outcome: list[object] = []
                life.loop.at(self.timeline.now, self._begin_deploy, life, name, outcome)
                while not outcome and life.ended is None:
                    await asyncio.sleep(0.05)
                if outcome and not isinstance(outcome[0], BaseException):
                    assert life.daemon.engine.active_bundle() == wanted
                    return
                if outcome and not isinstance(outcome[0], HeadwaterError):
                    raise outcome[0]  # type: ignore[misc]
            await asyncio.sleep(0.1)

    def _begin_deploy(self, life: Life, name: str, outcome: list[object]) -> None:
        async def deploy() -> None:
            try:
                outcome.append(await life.daemon.deploys.deploy(archive(name)))
            except Exception as error:
                outcome.append(error)
            self.timeline.note(f"deploy of {name}: {outcome[0]!r}")

        life.loop.create_task(deploy())

    async def _chaos(self) -> None:
        kinds = self.setup.kinds or tuple(FAULTS)
        for _ in range(self.setup.faults):
            await asyncio.sleep(self.random.choice((0.01, 0.1, 0.3, 0.5, 1.0)) * (0.5 + self.random.random()))
            kind = self.random.choice(kinds)
            self.timeline.note(f"fault: {kind}")
            self.figures.faults[kind] += 1
            await FAULTS[kind](self)

    def _rest(self) -> None:
        """End all faults that last."""
        self._resting = True
        self.disk.space = self.disk.fail = None
        self.network.is_down = False
        self.faults.disk_slow_s = 0.004
        if self.life is not None:
            self.life.files.operations_left = None
            self.life.executor.slow_s = 0.004

    # ------------------------------------------------------------------------------------------- faults

    async def _kill(self) -> None:
        if self.life is not None and self.life.ended is None:
            self.life.kill()

    async def _kill_while_writing(self) -> None:
        if self.life is not None:
            self.life.files.operations_left = self.random.randint(1, 12)

    async def _restart(self) -> None:
        if self.life is not None:
            self.life.stop()

    async def _kill_worker(self) -> None:
        if self.life is not None and self.life.serves:
            for processes in self.life.processes[-1:]:
                workers = list(processes.workers.values())
                if workers:
                    self.random.choice(workers).end(KILLED)

    async def _kill_zygote(self) -> None:
        if self.life is not None and self.life.serves and self.life.processes:
            self.life.processes[-1].lose_zygote()

    async def _cut(self) -> None:
        for wire in list(self.network.wires):
            if self.random.random() < 0.6:
                wire.cut()

    async def _stall(self) -> None:
        for wire in list(self.network.wires):
            if self.random.random() < 0.4:
                wire.stall(self.random.choice((0.3, 3.0)))

    async def _partition(self) -> None:
        self.network.is_down = True
        for wire in list(self.network.wires):
            wire.cut()
        await asyncio.sleep(self.random.choice((0.2, 2.0)))
        self.network.is_down = False

    async def _fill_disk(self) -> None:
        self.disk.space = self.random.choice((0, 1_000, 5_000, 10_000, 30_000))
        self._disk_was_full = True
        await asyncio.sleep(self.random.choice((0.2, 1.0, 3.0)))
        self.disk.space = None

    async def _fail_sync(self) -> None:
        self.disk.fail = (self.random.choice(("sync", "sync", "write")), errno.EIO)
        self._disk_was_failing = True
        await asyncio.sleep(0.5)
        self.disk.fail = None

    async def _slow_disk(self) -> None:
        life = self.life
        if life is not None:
            life.executor.slow_s = 0.3
            await asyncio.sleep(1.0)
            life.executor.slow_s = 0.004

    async def _slow_calls(self) -> None:
        usual = self.faults.call_costs_s
        self.faults.call_costs_s = (0.001, 0.03, 0.1, 1.5)
        await asyncio.sleep(1.5)
        self.faults.call_costs_s = usual

    async def _set_clock(self) -> None:
        self.clock.wall_offset_s += self.random.choice(
            (-3600.0, 3600.0, -10.0, 315_360_000.0, -315_360_000.0)
        )

    # ------------------------------------------------------------------------------------------- checks

    def _is_at_rest(self) -> bool:
        life = self.life
        if life is None or not life.serves or not all(client.finished for client in self.clients):
            return False
        return not self._leftovers(life) and self._screens_are_up_to_date(life)

    def _screens_are_up_to_date(self, life: Life) -> bool:
        newest = life.daemon.engine.published_ts
        if not all(client.state.connected and client.shown for client in self.clients):
            return False
        if any(len(client.shown[-1][1]) < len(client.queries) for client in self.clients):
            return False
        truth = self._truth(life)
        return all(
            client.shown[-1][0] <= newest and not self._differences(truth, client, newest)
            for client in self.clients
        )

    def _truth(self, life: Life) -> Truth:
        return Truth(life.daemon.engine.log.read(1))

    def _differences(self, truth: Truth, client: ScriptedClient, ts: int) -> list[str]:
        return [
            f"{client.name} shows {client.queries[number]} = {value}, which is {wanted} at {ts}"
            for number, value in client.shown[-1][1].items()
            if value != (wanted := truth.result(ts, *client.queries[number]))
        ]

    def _check(self) -> None:
        life = self.life
        assert life is not None
        self._look_at_errors(life)
        truth = self._truth(life)
        balances = truth.last.balances()
        if len(balances) != ACCOUNTS or sum(balances.values()) != ACCOUNTS * BALANCE:
            raise Wrong(f"the accounts hold {balances}")
        for client in self.clients:
            self._check_calls(truth, client)
            self._check_screens(truth, client)
        self._check_order(truth)
        self._raise_failures()

    def _check_calls(self, truth: Truth, client: ScriptedClient) -> None:
        stamps = []
        for call in client.calls:
            effect = truth.effects.get(call.tag)
            if effect is not None:
                stamps.append(effect[0])
            if call.ended_s is None:
                raise Wrong(f"{call.tag} was never decided")
            if call.error is None:
                self.figures.acknowledged += 1
                if effect is None:
                    raise Wrong(f"{call.tag} was acknowledged at {call.ended_s:.3f} and is lost")
                if effect[1] != call.result:
                    raise Wrong(f"{call.tag} returned {call.result}, its commit says {effect[1]}")
            elif effect is not None and call.error not in _UNKNOWN:
                raise Wrong(f"{call.tag} failed with {call.error} and took effect at {effect[0]}")
        if stamps != sorted(stamps):
            raise Wrong(f"the mutations of {client.name} took effect out of order")

    def _check_screens(self, truth: Truth, client: ScriptedClient) -> None:
        for ts, values in client.shown:
            self.figures.transitions += 1
            for number, value in values.items():
                name, arguments = client.queries[number]
                wanted = truth.result(ts, name, arguments)
                if value != wanted:
                    raise Wrong(
                        f"{client.name} at {ts} showed {name} {arguments} = {value}, which was {wanted}"
                    )

    def _check_order(self, truth: Truth) -> None:
        """What was acknowledged before another began is before it in the log."""
        calls = [call for client in self.clients for call in client.calls if call.tag in truth.effects]
        for before in calls:
            for after in calls:
                first, second = truth.effects[before.tag][0], truth.effects[after.tag][0]
                if before.error is None and before.ended_s < after.began_s and first >= second:  # type: ignore[operator]
                    raise Wrong(f"{after.tag} began after {before.tag} was acknowledged and is before it")

    def _leftovers(self, life: Life) -> dict[str, int]:
        """Return what is held for something that will not come any more."""
        daemon = life.daemon
        counts = {
            "connections": len(daemon.hub) - len(self.clients),
            "undecided mutations": daemon.mutations.unfinished,
            "held results": len(daemon.switchboard._held),
        }
        return {name: count for name, count in counts.items() if count}


FAULTS: dict[str, Any] = {
    "kill": World._kill,
    "kill while writing": World._kill_while_writing,
    "restart": World._restart,
    "kill worker": World._kill_worker,
    "kill zygote": World._kill_zygote,
    "cut": World._cut,
    "stall": World._stall,
    "partition": World._partition,
    "full disk": World._fill_disk,
    "failing disk": World._fail_sync,
    "slow disk": World._slow_disk,
    "slow calls": World._slow_calls,
    "clock": World._set_clock,
}


def _settings(folder: Path) -> Settings:
    key = folder / "key"
    key.write_text(_KEY)
    key.chmod(0o600)
    return Settings(
        data=folder / "data",
        admin_key_file=key,
        workers=2,
        heartbeat_s=2.0,
        session_send_buffer_bytes=16 * 1024,
        session_stall_limit_s=5.0,
        call_log_console="off",  # no threads
    )
