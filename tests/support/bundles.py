"""Bundles for tests: the one that type checkers are shown, and small ones written where they are used."""

from __future__ import annotations

import importlib
import sys
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import msgspec
from headwater.bundle import Bundle

from support.memory_backend import MemoryBackend

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwater.bundle import CallOutcome
    from headwater.call_failures import CallFailure
    from headwater_protocol.manifest import Manifest

TYPING = Path(__file__).parents[1] / "typing"
HEADER = """
from __future__ import annotations
from typing import *
from datetime import *
from decimal import Decimal
from enum import Enum
from uuid import UUID
from headwater import *
from headwater.queries import Range
"""
encode = msgspec.msgpack.encode
decode = msgspec.msgpack.decode


@contextmanager
def imported(folder: Path, name: str) -> Iterator[Any]:
    """Import a package from a folder, and forget it afterwards."""
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))
        for known in [known for known in sys.modules if known == name or known.startswith(f"{name}.")]:
            del sys.modules[known]


def write_package(folder: Path, modules: dict[str, str], *, header: str = HEADER) -> None:
    """Write modules, `nested/name` allowed, as the package `bundle`."""
    for path, source in modules.items():
        file = folder / "bundle" / f"{path}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(header + dedent(source))
        for parent in file.relative_to(folder).parents[:-1]:
            (folder / parent / "__init__.py").touch()


class World:
    """A loaded bundle over a backend in memory.

    Attributes:
        bundle: The bundle.
        backend: Its transaction; all calls share it.
        last: Outcome of the latest call.
    """

    last: CallOutcome

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.manifest: Manifest = bundle.manifest()
        self.backend = MemoryBackend(self.manifest)

    def mutation(self, name: str, /, **arguments: Any) -> Any:
        self.last = self.bundle.call_mutation(name, encode(arguments), self.backend, internal_allowed=True)
        return self._value()

    def query(self, name: str, /, **arguments: Any) -> Any:
        self.last = self.bundle.call_query(name, encode(arguments), self.backend, internal_allowed=True)
        return self._value()

    def refused(self, call: Any, name: str, /, **arguments: Any) -> CallFailure:
        """Return the failure of a call that must fail."""
        try:
            value = call(name, **arguments)
        except AssertionError:
            assert self.last.failure is not None
            return self.last.failure
        raise AssertionError(f"{name} returned {value!r}")

    def _value(self) -> Any:
        assert self.last.failure is None, self.last.failure
        assert self.last.result is not None
        return decode(self.last.result.content)


@contextmanager
def right_world() -> Iterator[World]:
    """The bundle that type checkers are shown, running."""
    with imported(TYPING, "right") as package:
        yield World(Bundle.load(package))


@contextmanager
def small_world(folder: Path, modules: dict[str, str]) -> Iterator[World]:
    """A bundle of modules given as source, running."""
    write_package(folder, modules)
    with imported(folder, "bundle") as package:
        yield World(Bundle.load(package))
