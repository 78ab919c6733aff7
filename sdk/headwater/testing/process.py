"""What a function worker changes in its process, changed in the process of the tests, where others live too.

Clocks, chance and the guard act during calls and in their thread only. What a worker may do for
good, because the process is its own, is undone here after each call.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from contextlib import contextmanager
from functools import cache
from threading import get_ident
from typing import TYPE_CHECKING, Any

from headwater_server.worker.determinism import Determinism
from headwater_server.worker.guard import Guard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

_PATCHED = (time, os, random, signal)


class _GuardOfOneThread(Guard):
    """Refuses nothing to the other threads of the process: debuggers and test runners have some."""

    __slots__ = ("_on", "_thread")

    def __init__(self) -> None:
        self._on = False
        self._thread = get_ident()

    @property
    def active(self) -> bool:
        """Whether a call runs in this thread."""
        return self._on and get_ident() == self._thread

    @active.setter
    def active(self, on: bool) -> None:
        self._on = on
        self._thread = get_ident()


class _KeptChance(Determinism):
    """Gives `random` back as it was before the call: tests may have given it a seed."""

    _before: tuple[Any, ...] | None = None

    def begin(self, now_us: int, seed: bytes, *, real_randomness: bool) -> None:
        """A call begins."""
        self._before = self._chance.getstate()
        super().begin(now_us, seed, real_randomness=real_randomness)

    def end(self) -> None:
        """The call has ended, or was broken off."""
        if self._before is not None:
            super().end()
            self._chance.setstate(self._before)
            self._before = None


class Process:
    """This process, in which functions run as in a worker. Get it from `prepared_process`.

    Attributes:
        guard: Installed.
        determinism: Installed.
    """

    def __init__(self) -> None:
        before = [(module, name, value) for module in _PATCHED for name, value in vars(module).items()]
        self.guard = _GuardOfOneThread()
        self.guard.install()
        self.determinism = _KeptChance()
        self.determinism.install()
        self._replaced = {
            value: new
            for module, name, value in before
            if callable(value) and (new := getattr(module, name)) is not value
        }

    def adopt(self, package: ModuleType) -> None:
        """Replace what the modules of a bundle imported by name before this process was prepared."""
        inside = f"{package.__name__}."
        for name, module in [*sys.modules.items()]:
            if f"{name}.".startswith(inside):
                for label, value in [*vars(module).items()]:
                    if type(value).__name__ in ("builtin_function_or_method", "method"):
                        setattr(module, label, self._replaced.get(value, value))

    @contextmanager
    def during_call(self) -> Iterator[None]:
        """Leave the process as it was, however the call ends."""
        writes_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # an import in a call
        try:
            yield
        finally:
            self.guard.active = False
            self.determinism.end()
            sys.dont_write_bytecode = writes_bytecode


@cache
def prepared_process() -> Process:
    """Return this process, prepared at the first call; hooks and patches cannot be taken back."""
    return Process()
