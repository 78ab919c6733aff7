"""A helper process of a benchmark: a module that answers each line on its standard input with one line."""

from __future__ import annotations

import asyncio
import sys


class Child:
    """One such process. Make it with `start`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    @classmethod
    async def start(cls, module: str, *words: object) -> Child:
        """Start a module and wait for its first line, which says that it is ready."""
        pipe = asyncio.subprocess.PIPE
        command = [sys.executable, "-m", module, *(str(word) for word in words)]
        child = cls(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe))
        if await child._line() != "ready":
            raise RuntimeError(f"{module} did not start")
        return child

    async def ask(self, line: object) -> str:
        """Send a line and return the answer."""
        assert self._process.stdin is not None, "opened with a pipe"
        self._process.stdin.write(f"{line}\n".encode())
        return await self._line()

    async def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None, "opened with a pipe"
        self._process.stdin.close()
        await self._process.wait()

    async def _line(self) -> str:
        assert self._process.stdout is not None, "opened with a pipe"
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("a process of the benchmark has ended")
        return line.decode().strip()
