"""Has what a bundle requires installed before it is loaded, by a process of its own, within a time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import tempfile
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headwater.packing import REQUIREMENTS, invalid_bundle
from headwater_storage.disk_errors import disk_error

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger("headwater.requirements")

_MODULE = "headwater_server.worker.install"
_LINES_SHOWN = 20
_LINE_BYTES_MAX = 1_000


@dataclass(frozen=True, slots=True)
class InstallOptions:
    """Bounds of installations.

    Attributes:
        time_limit_s: How long one may take.
        bytes_max: How much may be installed for one bundle.
        kept: For so many bundles is it kept.
    """

    time_limit_s: float
    bytes_max: int
    kept: int


class RequirementsInstaller:
    """Installs requirements, one bundle at a time.

    Args:
        folder: Where they come to lie; made with the first ones.
        options: Bounds.
        environment: Environment variables of the process: pip takes its index and proxies from there.
    """

    def __init__(self, folder: Path, options: InstallOptions, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._options = options
        self._environment = dict(environment)
        self._turn = asyncio.Lock()

    async def install(self, bundle: bytes) -> None:
        """Return when what a bundle requires is there.

        Raises:
            RequestError: `invalid_bundle`, with what pip says.
        """
        # The name of each file stands in an archive as it is. What else is in it, the daemon does not look at.
        if REQUIREMENTS.encode() not in bundle:
            return
        async with self._turn:
            await self._install(bundle)

    async def _install(self, bundle: bytes) -> None:
        try:
            handle, name = tempfile.mkstemp(prefix="headwater-bundle-", suffix=".zip")
            with os.fdopen(handle, "wb") as file:
                file.write(bundle)
        except OSError as error:
            raise disk_error(error, Path(tempfile.gettempdir()), "a bundle") from error
        limits = (str(self._options.kept), str(self._options.bytes_max), str(os.getpid()))
        words = [sys.executable, "-P", "-m", _MODULE, name, str(self._folder), *limits]
        try:
            process = await asyncio.create_subprocess_exec(
                *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
                limit=_LINE_BYTES_MAX * 64,
            )
            await self._finish(process)
        finally:
            os.unlink(name)

    async def _finish(self, process: asyncio.subprocess.Process) -> None:
        said: deque[str] = deque(maxlen=_LINES_SHOWN)
        try:
            async with asyncio.timeout(self._options.time_limit_s):
                await _read(process, said)
                code = await process.wait()
        except TimeoutError:
            said.append(
                f"it took longer than {self._options.time_limit_s:g} s (requirements_time_limit_s) and was ended"
            )
            code = -1
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        if code != 0:
            told = "\n".join(line for line in said if line)
            logger.warning("requirements_not_installed", extra={"fields": {"output": told}})
            raise invalid_bundle(f"the bundle's {REQUIREMENTS}: {told}")
        logger.info("requirements_installed")


async def _read(process: asyncio.subprocess.Process, said: deque[str]) -> None:
    """Take what a process prints, to its end; the last lines are kept."""
    assert process.stdout is not None, "opened with a pipe"
    while True:
        try:
            line = await process.stdout.readline()
        except ValueError:  # longer than the limit: left out
            continue
        if not line:
            return
        said.append(line[:_LINE_BYTES_MAX].decode(errors="replace").rstrip())
