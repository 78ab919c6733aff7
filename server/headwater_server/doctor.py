"""The command `doctor`: a stopped data directory is verified, and repaired if that is asked for."""

from __future__ import annotations

import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
from headwater_protocol.errors import HeadwaterError
from headwater_storage.doctor import examine
from headwater_storage.environment import real_environment
from headwater_storage.findings import Finding
from headwater_storage.repair import repair

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwater_config.settings import Settings


def repaired(settings: Settings, *, accept_loss: bool) -> bool:
    """Repair the data directory and say on stderr what came of it; False if nothing was done."""
    environment = real_environment()
    try:
        report = repair(
            settings.data,
            environment,
            accept_loss=accept_loss,
            map_size_bytes=settings.store_limit_bytes,
        )
    except HeadwaterError as error:
        sys.stderr.write(f"headwater: {error.code}: {error.message}\n")
        return False
    finally:
        environment.executor.close()
    sys.stderr.write("".join(f"headwater: lost: {text}\n" for text in report.lost))
    if report.aside is None:
        sys.stderr.write("headwater: nothing was changed; --accept-loss goes on without what is lost\n")
        return False
    sys.stderr.write(f"headwater: built anew from {report.source}; the old files are in {report.aside}\n")
    return True


def examined(settings: Settings, *, as_json: bool) -> int:
    """Verify the data directory, print what is found and return the exit code: 1 with findings."""
    environment = real_environment()
    try:
        with _scratch() as scratch:
            findings, unchecked = examine(
                settings.data,
                environment,
                scratch,
                map_size_bytes=settings.store_limit_bytes,
            )
    except HeadwaterError as error:
        findings, unchecked = [Finding(None, None, f"{error.code}: {error.message}")], []
    finally:
        environment.executor.close()
    if as_json:
        rows = [finding._asdict() for finding in findings]
        sys.stdout.write(orjson.dumps({"findings": rows, "unchecked": unchecked}).decode() + "\n")
    else:
        sys.stdout.write("".join(f"{finding}\n" for finding in findings) or "no findings\n")
        sys.stderr.write("".join(f"headwater: not checked: {text}\n" for text in unchecked))
    return 1 if findings else 0


@contextmanager
def _scratch() -> Iterator[Path | None]:
    """Make a folder for the length of a block; None if there is no place for one."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="headwater-doctor-")
    except OSError:
        yield None
        return
    with folder as path:
        yield Path(path)
