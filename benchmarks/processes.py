"""CPU time and memory of a process and all that it started, read from /proc."""

from __future__ import annotations

import os
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """Return a process and its descendants."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
    found = [pid]
    for candidate in found:
        found += [child for child, parent in parents.items() if parent == candidate]
    return found


def cpu_s(pid: int) -> float:
    """Return user and system seconds of one process, in steps of a clock tick (10 ms)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


def tree_cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process and its living descendants together."""
    total = 0.0
    for member in tree(pid):
        try:
            total += cpu_s(member)
        except OSError:
            continue
    return total


def tree_pss_bytes(pid: int, rows: tuple[str, ...] = ("Pss:",)) -> int:
    """Return the proportional set size of a process and its living descendants: shared pages are counted once.

    Args:
        pid: The process.
        rows: What of it, as `smaps_rollup` names it.
    """
    total = 0
    for member in tree(pid):
        try:
            lines = Path(f"/proc/{member}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(rows))
    return total
