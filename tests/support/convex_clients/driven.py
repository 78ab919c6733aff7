"""The official clients from the outside: each a process that takes commands and tells what it shows."""

from __future__ import annotations

import asyncio
import contextlib
import json
import platform
import shutil
import subprocess
from collections import defaultdict
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.own_python import python_with
from tools.node import MAJOR_MIN, find_node
from tools.web import PACKAGE, installed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tools.node import Node

FOLDER = Path(__file__).parent
TIMEOUT_S = 30.0


class ClientError(Exception):
    """What a client's promise was refused with.

    Attributes:
        name: Class of the error.
        message: Its text.
        data: Of an application error, as JSON; a `KeyError` where there is none.
    """

    def __init__(self, told: dict[str, Any]) -> None:
        super().__init__(told["message"])
        self.name: str = told["name"]
        self.message: str = told["message"]
        self._told = told

    @property
    def has_data(self) -> bool:
        """Whether it is an application error."""
        return "data" in self._told

    @property
    def data(self) -> Any:
        """What the function raised."""
        return self._told["data"]


class Peer:
    """A client; what it shows is kept in order.

    Attributes:
        shown: By watch: each value, or `ClientError`.
        auth: Each time that it told whether somebody is signed in.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._ids = count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._moved = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())
        self._killed = False
        self.shown: defaultdict[int, list[Any]] = defaultdict(list)
        self.auth: list[bool] = []

    def start(self, op: str, **fields: Any) -> asyncio.Future[Any]:
        """Give a command; its answer comes as a future."""
        number = next(self._ids)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"id": number, "op": op, **fields}).encode() + b"\n")
        return answer

    async def do(self, op: str, **fields: Any) -> Any:
        """Give a command and return its result; raises `ClientError`."""
        async with asyncio.timeout(TIMEOUT_S):
            return await self.start(op, **fields)

    async def watch(self, name: str, args: dict[str, Any] | None = None, **more: Any) -> int:
        """Subscribe; what it shows is in `shown` under the number that is returned."""
        number: int = await self.do("watch", name=name, args=args or {}, **more)
        return number

    async def mutate(self, name: str, args: dict[str, Any] | None = None, **more: Any) -> Any:
        """Run a mutation."""
        return await self.do("mutate", name=name, args=args or {}, **more)

    async def until(self, watch: int, holds: Callable[[Any], Any]) -> Any:
        """Wait until a watch shows what is wanted, and return that."""
        async with asyncio.timeout(TIMEOUT_S), self._moved:
            while not (self.shown[watch] and holds(self.shown[watch][-1])):
                assert not self._reading.done(), "the client has ended"
                await self._moved.wait()
            return self.shown[watch][-1]

    async def until_auth(self, *wanted: bool) -> None:
        """Wait until the client has told these, one after another."""
        try:
            async with asyncio.timeout(TIMEOUT_S), self._moved:
                await self._moved.wait_for(lambda: self.auth == list(wanted))
        except TimeoutError:
            raise AssertionError(f"it told {self.auth}") from None

    def kill(self) -> None:
        """End a client that waits for ever."""
        self._killed = True
        self._process.kill()

    async def end(self) -> None:
        """End the process; fails if it has ended by itself, as with an exception that nothing caught."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                code = await self._process.wait()
                await self._reading
        finally:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            for answer in self._answers.values():
                answer.cancel()
        assert code == 0 or self._killed, f"the client ended with {code}"

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            told = json.loads(line)
            if "id" in told:
                answer = self._answers.pop(told["id"])
                if answer.cancelled():
                    continue
                if "failure" in told:
                    answer.set_exception(ClientError(told["failure"]))
                else:
                    answer.set_result(told["result"])
                continue
            if "watch" in told:
                shown = ClientError(told["failure"]) if "failure" in told else told["value"]
                self.shown[told["watch"]].append(shown)
            else:
                self.auth.append(told["auth"])
            async with self._moved:
                self._moved.notify_all()
        for answer in self._answers.values():  # it has ended
            if not answer.done():
                answer.set_exception(ConnectionError("the client has ended"))
        async with self._moved:
            self._moved.notify_all()


class Tab:
    """One of the tabs of a browser; as `Peer`, whose tab it is."""

    def __init__(self, peer: Peer, number: int) -> None:
        self._peer = peer
        self._number = number
        self.shown = peer.shown

    def start(self, op: str, **fields: Any) -> asyncio.Future[Any]:
        """Give a command; its answer comes as a future."""
        return self._peer.start(op, tab=self._number, **fields)

    async def do(self, op: str, **fields: Any) -> Any:
        """Give a command and return its result; raises `ClientError`."""
        return await self._peer.do(op, tab=self._number, **fields)

    async def until(self, watch: int, holds: Callable[[Any], Any]) -> Any:
        """Wait until a component shows what is wanted, and return that."""
        return await self._peer.until(watch, holds)


async def show(page: Peer | Tab, kind: str, name: str = "", args: Any = None, **more: Any) -> int:
    """Have a page with hooks show a component; what that shows is in `shown` under the number that is returned."""
    number: int = await page.do("show", kind=kind, name=name, args=args or {}, **more)
    return number


def browser_program() -> str:
    """Return Chromium; skips the test where there is none, as the tests of our own client in a browser do."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("there is no Chromium")
    return found


def node_program() -> str:
    """Return the Node.js with Convex's packages installed; skips the test where there is none."""
    node = find_node()
    if node is None:
        pytest.skip(f"there is no Node.js {MAJOR_MIN} or later, neither on the PATH nor of pyright's wheel")
    _install(node, FOLDER)
    return str(node.program)


def _install(node: Node, package: Path) -> None:
    assert installed(node, package), f"npm cannot install what {package}/package-lock.json names"


def python_program() -> str:
    """Return a Python with Convex's client, in an environment of its own; skips the test where that cannot be had."""
    if platform.machine() not in ("x86_64", "aarch64"):
        pytest.skip("there is no wheel of Convex's client of Python for this machine")
    return python_with(FOLDER / "requirements.txt")


def javascript(url: str, **options: Any) -> contextlib.AbstractAsyncContextManager[Peer]:
    """Start Convex's client of JavaScript, and have it connect."""
    return _driven(node_program(), "peer.mjs", url, options)


def react(url: str) -> contextlib.AbstractAsyncContextManager[Peer]:
    """Start a page with Convex's hooks under jsdom, and have it connect."""
    return _driven(node_program(), "react.mjs", url, {})


@contextlib.asynccontextmanager
async def tabs(*urls: str) -> AsyncIterator[list[Tab]]:
    """Start a browser with a tab for each address, in which a page with Convex's hooks connects to it."""
    program, browser, node = node_program(), browser_program(), find_node()
    assert node is not None, "else the test was skipped"
    _install(node, PACKAGE)  # which has what drives browsers
    more = (browser, str(PACKAGE / "package.json"))
    async with _driven(program, "chromium.mjs", urls[0], {}, *more) as peer:
        found = [Tab(peer, number) for number in range(len(urls))]
        for tab, url in zip(found[1:], urls[1:], strict=True):
            await tab.do("open", url=url, options={})
        yield found
        for tab in found:
            assert await tab.do("complaints") == []


def python(url: str) -> contextlib.AbstractAsyncContextManager[Peer]:
    """Start Convex's client of Python, and have it connect."""
    return _driven(python_program(), "peer.py", url, {})


@contextlib.asynccontextmanager
async def _driven(
    program: str, script: str, url: str, options: dict[str, Any], *more: str
) -> AsyncIterator[Peer]:
    process = await asyncio.create_subprocess_exec(
        program, str(FOLDER / script), *more, stdin=subprocess.PIPE, stdout=subprocess.PIPE, limit=1 << 28
    )
    peer = Peer(process)
    try:
        await peer.do("open", url=url, options=options)
        yield peer
    finally:
        await peer.end()
