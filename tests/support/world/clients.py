"""Clients of the simulated world: the real one, each with a script, and what it has seen and been told."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from headwater.client.aio import Client
from headwater.client.transport import Address
from headwater_protocol.client_events import Moved, MutationResolved, Opened, QueryFailed, ValueChanged
from headwater_protocol.errors import HeadwaterError

from support.world.truth import ACCOUNTS, BALANCE

if TYPE_CHECKING:
    from headwater_protocol.client_events import ClientEvent

    from support.world.network import Network
    from support.world.timeline import Timeline

_ADDRESS = Address("tcp", "tcp://world:1", "world", 1, "")


@dataclass
class Call:
    """One mutation, as its client knows it.

    Attributes:
        tag: Names its effect.
        began_s: When it was called.
        ended_s: When its outcome came, None if it did not.
        result: What it returned.
        error: Code of its failure.
    """

    tag: str
    began_s: float
    ended_s: float | None = None
    result: Any = None
    error: str | None = None


class ScriptedClient(Client):
    """The real client, watched.

    Attributes:
        calls: Its mutations, in the order of their calls.
        shown: What it showed after each transition: ts, and values by query.
        queries: Name and arguments by query number.
        wrong: What it saw that must not be.
    """

    def __init__(self, name: str, network: Network, timeline: Timeline, random: Random) -> None:
        super().__init__(
            _ADDRESS,
            Random(random.getrandbits(64)),
            wall_s=lambda: 0.0,
            connect_timeout_s=None,
            in_flight_max=10,
            frame_limit_bytes=1 << 20,
            open_transport=network.open,
        )
        self.name = name
        self.calls: list[Call] = []
        self.shown: list[tuple[int, dict[int, Any]]] = []
        self.queries: dict[int, tuple[str, dict[str, Any]]] = {}
        self.ts = 0
        self.wrong: list[str] = []
        self.finished = False
        self._timeline = timeline
        self._chance = random
        self._values: dict[int, Any] = {}
        self._kept: list[Any] = []

    # ------------------------------------------------------------------------------------------- script

    async def script(self, calls: int) -> None:
        async with self:
            for name, arguments in self._subscriptions():
                self.follow(name, arguments)
            await self._make_accounts()
            running: set[asyncio.Task[None]] = set()
            for number in range(calls):
                running.add(asyncio.create_task(self._call(f"{self.name}-{number}")))
                if self._chance.random() < 0.6:
                    await asyncio.wait(running)
                await asyncio.sleep(self._chance.choice((0.0, 0.001, 0.01, 0.1, 0.4)))
            await asyncio.wait(running)
            self.finished = True
            self._timeline.note(f"{self.name} has finished")
            await asyncio.Event().wait()

    async def _make_accounts(self) -> None:
        names = [f"a{number}" for number in range(ACCOUNTS)]
        while True:
            try:
                await self.mutation("bank:begin", accounts=names, balance=BALANCE)
            except HeadwaterError as error:
                self._timeline.note(f"{self.name} cannot begin: {error.code}")
                await asyncio.sleep(0.05)
            else:
                return

    def _subscriptions(self) -> list[tuple[str, dict[str, Any]]]:
        chance = self._chance
        all_of_them: list[tuple[str, dict[str, Any]]] = [
            ("screens:total", {}),
            ("screens:balance", {"name": f"a{chance.randrange(ACCOUNTS)}"}),
            ("screens:newest", {"queue": f"l{chance.randrange(2)}", "count": 3}),
            ("screens:room", {"room": f"r{chance.randrange(2)}"}),
            ("screens:names", {"after": f"n{chance.randrange(10)}"}),
        ]
        return chance.sample(all_of_them, chance.randint(2, 4))

    def follow(self, name: str, arguments: dict[str, Any]) -> None:
        subscription = self.subscribe(name, **arguments)
        self._kept.append(subscription)
        self.queries[subscription._number] = (name, arguments)

    async def _call(self, tag: str) -> None:
        chance = self._chance
        call = Call(tag, self._timeline.now)
        self.calls.append(call)
        kind = chance.choice(("transfer", "transfer", "append", "append", "sit", "claim"))
        match kind:
            case "transfer":
                source, target = chance.sample(range(ACCOUNTS), 2)
                arguments: dict[str, Any] = {
                    "source": f"a{source}",
                    "target": f"a{target}",
                    "amount": chance.randint(1, 9),
                }
            case "append":
                arguments = {"queue": f"l{chance.randrange(2)}"}
            case "sit":
                arguments = {"room": f"r{chance.randrange(2)}"}
            case _:
                arguments = {"name": f"n{chance.randrange(12)}"}
        try:
            call.result = await self.mutation(f"bank:{kind}", tag=tag, **arguments)
        except HeadwaterError as error:
            call.error = error.code
        call.ended_s = self._timeline.now
        self._timeline.note(f"{tag} {kind}: {call.error or call.result}")

    # -------------------------------------------------------------------------------------- what it sees

    def _dispatch(self, events: Any) -> None:
        for event in events:
            self._see(event)
        super()._dispatch(events)

    def _see(self, event: ClientEvent) -> None:
        match event:
            case Opened(_, ts):
                self._timeline.note(f"{self.name} is connected at {ts}")
            case ValueChanged(number, value):
                self._values[number] = value
            case QueryFailed(number, error):
                self._timeline.note(f"{self.name}: {self.queries.get(number)} failed: {error.code}")
                self._values.pop(number, None)
            case MutationResolved():
                pass
            case Moved(ts):
                if ts < self.ts:
                    self.wrong.append(f"{self.name} went back from {self.ts} to {ts}")
                self.ts = ts
                self.shown.append((ts, dict(self._values)))
