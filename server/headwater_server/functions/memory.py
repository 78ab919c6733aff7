"""How much memory a process has for itself, as the kernel counts it."""

from __future__ import annotations

import os

_PRIVATE = (b"RssAnon:", b"RssShmem:", b"VmSwap:")


def private_bytes(pid: int) -> int:
    """Return the bytes of a process that no file backs; 0 when it is gone."""
    try:
        descriptor = os.open(f"/proc/{pid}/status", os.O_RDONLY)
    except OSError:
        return 0
    try:
        text = os.read(descriptor, 16 * 1024)
    except OSError:
        return 0
    finally:
        os.close(descriptor)
    return 1024 * sum(int(line.split()[1]) for line in text.splitlines() if line.startswith(_PRIVATE))
