"""Starts of the real engine on a disk that is full, or fails, at each call in turn. A process with `native/faults.c` runs this.

Each time the database has a log to replay. Each start that is met by the fault tells how it ended, up to the first that meets none.
"""

from __future__ import annotations

import asyncio
import errno
import json
import sys
from itertools import count
from pathlib import Path
from typing import Any

from headwater_protocol.errors import StorageError, TransientError
from headwater_storage.checkpoint import CheckpointOptions
from headwater_storage.engine import Engine, EngineOptions
from headwater_storage.environment import real_environment
from headwater_storage.file_log import FileLogOptions
from headwater_storage.recovery import StorageOptions

from support.disk_faults import Faults, Kind, Plan
from support.disk_lives import BUNDLES
from support.memory_store import insert

STARTS_MAX = 200
KINDS = (Plan(Kind.NO_ROOM, errno.ENOSPC), Plan(Kind.SHORT, errno.ENOSPC), Plan(Kind.FAIL, errno.EIO))
OPENED = "opened"
OPTIONS = EngineOptions(
    storage=StorageOptions(
        log=FileLogOptions(segment_bytes=1 << 16, keep_bytes=0),
        checkpoint=CheckpointOptions(interval_s=3600.0),
        map_size_bytes=1 << 30,
    )
)


async def leave_log(data: Path) -> None:
    """Make a checkpoint and commit a little behind it, all of which the next start replays."""
    environment = real_environment()
    Engine.open(data, OPTIONS, environment).close()
    engine = Engine.open(data, OPTIONS, environment)
    running = asyncio.create_task(engine.run())
    await engine.deploy([BUNDLES[1]], "bundle", b"archive")
    for call in range(3):
        await engine.transact(lambda transaction, call=call: insert(transaction, "rows", call=call, text="t"))
    engine.stop()
    await running
    engine.close(clean=False)
    environment.executor.close()


def start(data: Path) -> tuple[str, str]:
    """Open the database and let it go; return the code of the error, or `OPENED`, and what it said."""
    environment = real_environment()
    try:
        Engine.open(data, OPTIONS, environment).close(clean=False)
    except (TransientError, StorageError) as error:
        return error.code, error.message
    finally:
        environment.executor.close()
    return OPENED, ""


def starts(data: Path, faults: Faults, plan: Plan) -> list[dict[str, Any]]:
    """Let each call of a start meet the fault, the first, the second …; return how the starts ended."""
    found = []
    for at in count(1):
        assert at < STARTS_MAX, "a start has no end of calls"
        asyncio.run(leave_log(data))
        faults.arm(plan, at)
        code, said = start(data)
        faults.disarm()
        if not faults.fired:
            assert code == OPENED, said
            return found
        found.append({"place": faults.place, "code": code, "said": said})
    raise AssertionError("unreachable")


def main(words: list[str]) -> int:
    """Print how all starts ended, by kind of fault, as JSON."""
    data, control = Path(words[0]), Path(words[1])
    faults = Faults(data, control)
    found = [{"is_full": plan.is_full, "starts": starts(data, faults, plan)} for plan in KINDS]
    sys.stdout.write(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
