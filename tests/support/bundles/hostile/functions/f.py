"""Each deed is done in a mutation, after a write that must never be seen."""

import builtins
import ctypes
import gc
import json
import mmap
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from headwater import Index, MutationCtx, QueryCtx, Table, mutation, query


class Row(Table, name="rows"):
    owner: str
    number: int = 0

    by_owner = Index("owner")


class Counter(Table, name="counters"):
    name: str
    count: int = 0

    by_name = Index("name", unique=True)


def endless(ctx: MutationCtx) -> Any:
    while True:
        pass


def recursion(ctx: MutationCtx) -> Any:
    return recursion(ctx)


def flood(ctx: MutationCtx) -> Any:
    while True:
        print("x" * 1_000_000)


def reads_for_ever(ctx: MutationCtx) -> Any:
    while True:
        ctx.db.scan(Row).collect()


def writes_for_ever(ctx: MutationCtx) -> Any:
    while True:
        ctx.db.insert(Row(owner="hostile"))


def monkeypatch(ctx: MutationCtx) -> Any:
    builtins.len = lambda thing: 7  # type: ignore[assignment]
    json.loads = None  # type: ignore[assignment]
    sys.modules.pop("headwater", None)
    raise RuntimeError("patched")


def deaf(ctx: MutationCtx) -> Any:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
    gc.disable()
    sys.settrace(None)
    while True:
        time.sleep(1)


def without_limits(ctx: MutationCtx) -> Any:
    resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return [bytearray(1 << 20) for _ in range(4_096)] and None


def nested(ctx: MutationCtx) -> Any:
    value: list[Any] = []
    for _ in range(1_000_000):
        value = [value]
    return value


DEEDS: dict[str, Callable[[MutationCtx], Any]] = {
    "endless loop": endless,
    "sleep": lambda ctx: time.sleep(3_600),
    "catastrophic regex": lambda ctx: re.match(r"(a+)+$", "a" * 40 + "b"),
    "4 GB of lists": lambda ctx: [bytearray(1 << 20) for _ in range(4_096)] and None,
    "4 GB at once": lambda ctx: bytearray(4 << 30) and None,
    "fork bomb": lambda ctx: [os.fork() for _ in range(100)] and None,
    "exit": lambda ctx: os._exit(3),
    "SystemExit": lambda ctx: sys.exit(0),
    "KeyboardInterrupt": lambda ctx: signal.raise_signal(signal.SIGINT) or endless(ctx),
    "an alarm": lambda ctx: signal.setitimer(signal.ITIMER_REAL, 0.05) and None,
    "abort": lambda ctx: os.abort(),
    "segmentation fault": lambda ctx: ctypes.string_at(0) and None,
    "output flood": flood,
    "deep recursion": recursion,
    "deep result": nested,
    "large result": lambda ctx: "x" * 20_000_000,
    "closed descriptors": lambda ctx: os.closerange(0, 1_000),
    "a thread": lambda ctx: threading.Thread(target=endless, args=(ctx,)).start(),
    "monkeypatching": monkeypatch,
    "no signals": deaf,
    "no limits": without_limits,
    "kills its parent": lambda ctx: os.kill(os.getppid(), signal.SIGKILL),
    "a process": lambda ctx: subprocess.run(["sleep", "3600"], check=False) and None,
    "the network": lambda ctx: socket.create_connection(("127.0.0.1", 9)) and None,
    "a file": lambda ctx: os.open("hostile", os.O_WRONLY | os.O_CREAT),
    "memory of others": lambda ctx: mmap.mmap(-1, 1 << 40) and None,
    "reads for ever": reads_for_ever,
    "writes for ever": writes_for_ever,
}


@mutation
def do(ctx: MutationCtx, deed: str) -> Any:
    ctx.db.insert(Row(owner="hostile"))
    return DEEDS[deed](ctx)


@query
def deeds(ctx: QueryCtx) -> list[str]:
    return list(DEEDS)


@query
def traces(ctx: QueryCtx) -> int:
    """How many rows of hostile calls are seen."""
    return sum(1 for _ in ctx.db.query(Row.by_owner, owner="hostile"))


@query
def look(ctx: QueryCtx, name: str) -> int:
    found = ctx.db.query(Counter.by_name, name=name).unique()
    return found.count if found else 0


@mutation
def count(ctx: MutationCtx, name: str) -> int:
    found = ctx.db.query(Counter.by_name, name=name).unique()
    if found is None:
        ctx.db.insert(Counter(name=name, count=1))
        return 1
    ctx.db.patch(found.id, count=found.count + 1)
    return found.count + 1
