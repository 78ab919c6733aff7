"""A worker from the fork to its end: the composition root of the process that runs user code."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from headwater.bundle import Bundle
from headwater.packing import bundle_hash, invalid_bundle
from headwater.refusals import encodable
from headwater_protocol.errors import HeadwaterError, StorageError
from headwater_storage.directory import DataDirectory, WorkerLock
from headwater_storage.disk_errors import disk_error
from headwater_storage.files import RealFileSystem
from headwater_storage.lmdb_store import LmdbStore

from headwater_server.worker.determinism import Determinism
from headwater_server.worker.guard import Guard
from headwater_server.worker.link import WorkerEnd
from headwater_server.worker.loader import load_package, unpack
from headwater_server.worker.messages import Described, Failure
from headwater_server.worker.output import CallOutput, OutputHandler
from headwater_server.worker.processes import close_all_except, die_with_parent, offer_to_oom_killer
from headwater_server.worker.progress import ProgressPage
from headwater_server.worker.serve import Server, Surroundings

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater_server.worker.control import Assignment

EXIT_MEMORY = 81
"""Exit code of a worker that hit its memory limit."""

EXIT_LOCKED = 82
"""Exit code of a worker that found the data directory in recovery: another daemon has it."""

_RANDOM_POOL_BYTES = 4096


class RandomPool:
    """Unpredictable bytes, fetched from the system in larger pieces."""

    def __init__(self, fetch: Callable[[int], bytes]) -> None:
        self._fetch = fetch
        self._pool = b""
        self._position = 0

    def take(self, size: int) -> bytes:
        """Return `size` bytes, each handed out once."""
        end = self._position + size
        if end > len(self._pool):
            self._pool = self._fetch(max(_RANDOM_POOL_BYTES, size))
            self._position, end = 0, size
        taken = self._pool[self._position : end]
        self._position = end
        return taken


def run(assignment: Assignment, link: int, progress: int, parent: int) -> int:
    """Serve one bundle until the daemon closes the link.

    Args:
        assignment: What this worker is for.
        link: Descriptor of the socket to the daemon.
        progress: Descriptor of the progress page.
        parent: Process id of the zygote.

    Returns:
        The exit code.
    """
    die_with_parent(parent)
    close_all_except({link, progress})
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    offer_to_oom_killer()
    directory = DataDirectory(Path(assignment.data))
    try:
        WorkerLock(RealFileSystem(), directory)  # held until the process ends: nothing closes it
    except StorageError:
        return EXIT_LOCKED
    memory = assignment.limits.memory_limit_bytes
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    page = ProgressPage(progress)
    os.close(progress)
    output = _capture_output(assignment)
    random_bytes = RandomPool(os.urandom).take
    determinism = Determinism()
    determinism.install()
    end = WorkerEnd(socket.socket(fileno=link))
    try:
        bundle = _load(assignment)
    except HeadwaterError as error:
        return _refuse(end, error)
    except OSError as error:  # of unpacking: what the bundle itself raises is the bundle's fault
        return _refuse(end, disk_error(error, Path(assignment.folder), "a bundle"))
    except MemoryError:
        return EXIT_MEMORY
    output.take()
    guard = Guard()
    guard.install()
    store = LmdbStore.open(directory.store_folder, map_size=assignment.limits.map_size_bytes, readonly=True)
    server = Server(
        end,
        store,
        bundle,
        assignment.bundle_hash,
        page,
        guard,
        determinism,
        output,
        assignment.limits,
        Surroundings(time.monotonic_ns, random_bytes),
    )
    try:
        server.serve()
    except ConnectionError:  # the daemon closed its end without reading the rest
        return 0
    except MemoryError:
        return EXIT_MEMORY
    return 0


def _capture_output(assignment: Assignment) -> CallOutput:
    output = CallOutput(assignment.limits.log_lines_max, assignment.limits.log_bytes_max)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
    sys.stdout, sys.stderr = output.streams
    root = logging.getLogger()
    root.handlers = [OutputHandler(output)]
    root.setLevel(logging.INFO)
    return output


def _load(assignment: Assignment) -> Bundle:
    packed = Path(assignment.bundle_file).read_bytes()
    if bundle_hash(packed) != assignment.bundle_hash:
        raise invalid_bundle(f"the bundle in {assignment.bundle_file} is not {assignment.bundle_hash}")
    folder = Path(assignment.folder)
    return Bundle.load(load_package(unpack(packed, folder), folder))


def _refuse(end: WorkerEnd, error: HeadwaterError) -> int:
    """Answer every request with why the bundle could not be loaded, until the daemon has seen it."""
    with contextlib.suppress(ConnectionError):
        while end.receive() is not None:
            end.add(Described(None, Failure(error.code, encodable(error.message))))
            end.flush()
    return 0
