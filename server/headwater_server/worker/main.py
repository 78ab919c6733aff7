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

import msgspec
from headwater.bundle import Bundle
from headwater.packing import bundle_hash, invalid_bundle
from headwater.parent_process import die_with_parent
from headwater.refusals import encodable
from headwater_protocol.errors import HeadwaterError, StorageError
from headwater_storage.directory import DataDirectory, WorkerLock
from headwater_storage.disk_errors import disk_error
from headwater_storage.files import RealFileSystem
from headwater_storage.lmdb_store import LmdbStore

from headwater_server.worker.control import EXIT_MEMORY
from headwater_server.worker.determinism import Determinism
from headwater_server.worker.guard import Guard
from headwater_server.worker.link import WorkerEnd
from headwater_server.worker.loader import import_paths, load_package, unpack
from headwater_server.worker.messages import ActionOrder, Described, Failure
from headwater_server.worker.output import CallOutput, OutputHandler
from headwater_server.worker.processes import close_all_except, offer_to_oom_killer
from headwater_server.worker.progress import ProgressPage
from headwater_server.worker.requirements import PACKAGES_FOLDER
from headwater_server.worker.serve import Server, Surroundings

if TYPE_CHECKING:
    import io
    from collections.abc import Callable

    from headwater_server.worker.control import Assignment
    from headwater_server.worker.output import Lines

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
    if assignment.role == "actions":
        return _run_actions(assignment, link, progress)
    directory = DataDirectory(Path(assignment.data))
    try:
        WorkerLock(RealFileSystem(), directory)  # held until the process ends: nothing closes it
    except StorageError:
        return EXIT_LOCKED
    _limit(assignment)
    page = ProgressPage(progress)
    os.close(progress)
    output = CallOutput(assignment.limits.log_lines_max, assignment.limits.log_bytes_max)
    _capture_output(output.streams, output)
    random_bytes = RandomPool(os.urandom).take
    determinism = Determinism()
    determinism.install()
    end = WorkerEnd(socket.socket(fileno=link))
    try:
        bundle = _load(assignment)
    except MemoryError:
        return EXIT_MEMORY
    except _NOT_LOADED as error:
        return _refuse(end, _refusal(error, assignment))
    output.take()
    _open_secrets(bundle, assignment)
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


def _run_actions(assignment: Assignment, link: int, progress: int) -> int:
    """Run actions until the daemon closes the link: with a loop, without the store, in a group of processes of its own.

    Whatever an action starts is in that group, and ends with this process.
    """
    import asyncio

    from headwater_server.functions.worker_link import WorkerLink
    from headwater_server.worker import actions

    os.setpgid(0, 0)
    _limit(assignment)
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    page = ProgressPage(progress)
    os.close(progress)
    connection = socket.socket(fileno=link)
    _capture_output((actions.ActionStream(0), actions.ActionStream(1)), actions.ActionLog())
    try:
        bundle = _load(assignment)
    except MemoryError:
        return EXIT_MEMORY
    except _NOT_LOADED as error:
        return _refuse(WorkerEnd(connection), _refusal(error, assignment))
    _open_secrets(bundle, assignment)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)

    def in_child() -> None:
        """Keep a process that user code forks from going on as a second worker: it ends with its next `await`."""
        connection.close()
        loop.call_soon(os._exit, 0)

    os.register_at_fork(after_in_child=in_child)
    server = actions.ActionServer(loop, bundle, page, assignment.limits, RealWorld())
    decoder: msgspec.msgpack.Decoder[ActionOrder] = msgspec.msgpack.Decoder(ActionOrder)
    try:
        loop.run_until_complete(
            actions.serve(server, lambda: WorkerLink(loop, connection, decoder, server.receive, server.lost))
        )
    except MemoryError:
        return EXIT_MEMORY
    return 0


class RealWorld:
    """The clocks and the chance of the machine; implements `actions.World`."""

    def now_ms(self) -> float:
        """Return the wall clock in ms since 1970."""
        return time.time() * 1000

    def mono_ns(self) -> int:
        """Return the monotonic clock."""
        return time.monotonic_ns()

    def random_bytes(self, size: int) -> bytes:
        """Return unpredictable bytes."""
        return os.urandom(size)


def _limit(assignment: Assignment) -> None:
    memory = assignment.limits.memory_limit_bytes
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))


def _open_secrets(bundle: Bundle, assignment: Assignment) -> None:
    """Let a bundle with secrets have their values; the key is read when one is first asked for."""
    if bundle.environments.has_secrets:
        from headwater_server.sealing import SealKey  # 3 MB, which bundles without secrets need not have

        key_file = Path(assignment.limits.environment_key_file)
        bundle.environments.unseal = SealKey(key_file, Path(assignment.data)).unseal


def _capture_output(streams: tuple[io.TextIOBase, io.TextIOBase], lines: Lines) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
    out, errors = streams
    sys.stdout, sys.stderr = out, errors
    root = logging.getLogger()
    root.handlers = [OutputHandler(lines)]
    root.setLevel(logging.INFO)


def _load(assignment: Assignment) -> Bundle:
    packed = Path(assignment.bundle_file).read_bytes()
    if bundle_hash(packed) != assignment.bundle_hash:
        raise invalid_bundle(f"the bundle in {assignment.bundle_file} is not {assignment.bundle_hash}")
    folder = Path(assignment.folder)
    package, requirements = unpack(packed, folder)
    if requirements is not None:
        packages = Path(assignment.data) / PACKAGES_FOLDER / requirements.name
        if not packages.is_dir():
            raise invalid_bundle("what the bundle requires is not installed; deploy it again")
        sys.path += import_paths(packages)  # last: nothing of it hides what the server has
    return Bundle.load(load_package(package, folder))


_NOT_LOADED = (HeadwaterError, OSError)


def _refusal(error: HeadwaterError | OSError, assignment: Assignment) -> HeadwaterError:
    """Return what to say of a bundle that could not be loaded."""
    if isinstance(error, HeadwaterError):
        return error
    # of unpacking: what the bundle itself raises is the bundle's fault
    return disk_error(error, Path(assignment.folder), "a bundle")


def _refuse(end: WorkerEnd, error: HeadwaterError) -> int:
    """Answer every request with why the bundle could not be loaded, until the daemon has seen it."""
    with contextlib.suppress(ConnectionError):
        while end.receive() is not None:
            end.add(Described(None, Failure(error.code, encodable(error.message))))
            end.flush()
    return 0
