"""A real daemon for tests in another language, and links to it that can be cut.

`python -m support.daemon_peer BUNDLE FLAG…` starts one in a folder of its own, deploys a bundle (of `bundles/`, or a path) and then takes a command
a line, as JSON, and answers each with a line: what it returned, or `{"error": …}`. At the end of its input it ends
everything. Its first line says where to connect:

- `daemon`: the daemon itself;
- `ill`: through a proxy whose connections fall ill when told to (`support/ill_proxy.py`);
- `cut`: through one that cuts each connection once it has carried a few mutations (`support/cutting_proxy.py`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.cutting_proxy import CuttingProxy, Figures, Plan, Point
from support.daemon import RunningDaemon, running
from support.ill_proxy import Illness, IllProxy

if TYPE_CHECKING:
    from collections.abc import Callable


class Peer:
    """Carries out commands.

    Attributes:
        figures: What the cutting proxy has seen.
    """

    def __init__(self, daemon: RunningDaemon, chance: random.Random) -> None:
        self.figures = Figures()
        self._daemon = daemon
        self._chance = chance
        self._ill = IllProxy(daemon.port)
        self._cut = CuttingProxy(daemon.port, self._plan, self.figures, websocket=True)

    def _plan(self) -> Plan:
        return Plan(
            point=self._chance.choice(list(Point)),
            count=self._chance.randint(1, 6),
            part=self._chance.random(),
            reset=self._chance.random() < 0.5,
            lag_s=self._chance.choice((0.0, 0.0, 0.05)),
        )

    async def serve(self, commands: asyncio.StreamReader) -> None:
        """Take commands until there are no more."""
        async with self._ill, self._cut:
            say({"daemon": self._daemon.port, "ill": self._ill.port, "cut": self._cut.port})
            while line := await commands.readline():
                name, *words = json.loads(line)
                try:
                    say(await getattr(self, name)(*words))
                except (AssertionError, OSError) as error:
                    say({"error": str(error)})

    # ------------------------------------------------------------------------------------------ commands

    async def key(self) -> str:
        """Return its admin key."""
        return self._daemon.key

    async def kill(self) -> None:
        """End the daemon with SIGKILL."""
        await asyncio.to_thread(self._daemon.kill)

    async def stop(self) -> int:
        """Have it stop in order; return its exit code."""
        return await asyncio.to_thread(self._daemon.terminate)

    async def start(self) -> None:
        """Start it again."""
        await asyncio.to_thread(self._daemon.start)

    async def pause(self) -> None:
        """Let the daemon stand still, its connections open."""
        self._daemon.signal(signal.SIGSTOP)

    async def resume(self) -> None:
        """Let it go on."""
        self._daemon.signal(signal.SIGCONT)

    async def ill(self, illness: str) -> None:
        """Let all present connections through `ill` be ill."""
        self._ill.fall_ill(Illness[illness])

    async def whole(self) -> dict[str, int]:
        """Let connections through `cut` be well from now on; return how many were cut, by point."""
        self._cut.cutting = False
        return {point.name: count for point, count in self.figures.cuts.items()}

    async def call(self, kind: str, name: str, arguments: dict[str, Any]) -> Any:
        """Run a function over HTTP, as somebody else would."""
        call: Callable[[], Any] = lambda: self._daemon.call(kind, name, **arguments)  # noqa: E731
        return await asyncio.to_thread(call)


def say(answer: Any) -> None:
    """Write a line."""
    print(json.dumps(answer), flush=True)


async def main(bundle: str, *options: str) -> None:
    """Serve one daemon until standard input ends."""
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # the proxies write to connections that have ended
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(commands), sys.stdin
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder), *options, deploy=Path(bundle) if "/" in bundle else bundle) as daemon,
    ):
        await Peer(daemon, random.Random(int(os.environ.get("HEADWATER_SEED", "1")))).serve(commands)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
