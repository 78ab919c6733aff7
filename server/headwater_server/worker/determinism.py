"""Makes the standard library's clock and chance those of the call, while a query or mutation runs.

A result is shared, cached and run again when what it read has changed; so it must not depend on when
and where it ran. `time.time()`, `datetime.now()` and their like tell the call's time (`ctx.now_ms`),
the functions of `random` draw from a stream that the call's seed begins. Real randomness (`os.urandom`,
and so `secrets` and `uuid.uuid4`) is for mutations, which take effect once; a query is refused it.

Outside of calls, while a bundle is imported too, all of them are what they always are. A guard for
honest mistakes, as `guard.py` is: clocks of other libraries, `random.Random()` without a seed and
monotonic clocks are left alone.
"""

from __future__ import annotations

import ctypes
import datetime
import gc
import os
import random
import time
from functools import wraps
from typing import TYPE_CHECKING, Any

from headwater_protocol.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable

_SHARED = [name for name in random.__all__ if not isinstance(getattr(random, name), type)]
_AT_A_TIME = {"localtime": 0, "gmtime": 0, "ctime": 0, "asctime": 0, "strftime": 1}
"""Functions of `time` that take the present for a time that is not given, with where it would stand."""


class Determinism:
    """Knows the running call. Its owner says when one begins and ends."""

    def __init__(self) -> None:
        self._now_us: int | None = None
        self._seed = b""
        self._real_randomness = True
        self._chance = _CallRandom(self)

    def begin(self, now_us: int, seed: bytes, *, real_randomness: bool) -> None:
        """A call begins.

        Args:
            now_us: Its time, µs since 1970.
            seed: Begins what `random` gives.
            real_randomness: Whether it may ask for bytes that nobody can foretell.
        """
        self._now_us = now_us
        self._seed = seed
        self._real_randomness = real_randomness
        self._chance.is_due = True

    def end(self) -> None:
        """The call has ended."""
        self._now_us = None
        self._real_randomness = True
        self._chance.is_due = True  # what follows shall not be foretold from the call's seed

    @property
    def seed(self) -> bytes | None:
        """The running call's seed, None if none runs."""
        return None if self._now_us is None else self._seed

    def install(self) -> None:
        """Take the place of the standard library's functions in this process, for good; before user code is imported."""
        self._install_time()
        _set_in_type(datetime.datetime, "now", classmethod(_now))
        _set_in_type(datetime.datetime, "utcnow", classmethod(_utcnow))
        standard: Any = random
        chance: Any = self._chance
        standard._inst = chance  # what its functions are methods of
        for name in _SHARED:
            setattr(random, name, getattr(chance, name))
        os.urandom = self._urandom(os.urandom)
        standard._urandom = os.urandom  # what `SystemRandom`, so `secrets`, calls

    def _install_time(self) -> None:
        real_time, real_time_ns = time.time, time.time_ns
        time.time = lambda: real_time() if self._now_us is None else self._now_us / 1e6
        time.time_ns = lambda: real_time_ns() if self._now_us is None else self._now_us * 1000
        for name, place in _AT_A_TIME.items():
            setattr(time, name, self._at_a_time(getattr(time, name), place))

    def _at_a_time(self, real: Callable[..., Any], place: int) -> Callable[..., Any]:
        takes_parts = real.__name__ in ("asctime", "strftime")

        @wraps(real)
        def told(*arguments: Any) -> Any:
            if self._now_us is not None and len(arguments) == place:
                seconds = self._now_us / 1e6
                arguments = (*arguments, time.localtime(seconds) if takes_parts else seconds)
            return real(*arguments)

        return told

    def _urandom(self, real: Callable[[int], bytes]) -> Callable[[int], bytes]:
        @wraps(real)
        def urandom(size: int, /) -> bytes:
            if not self._real_randomness:
                raise RequestError(
                    "a query cannot use os.urandom, secrets or uuid4: run again, it would give another result."
                    " Use ctx.random, or do it in a mutation",
                    code="not_allowed_here",
                )
            return real(size)

        return urandom


class _CallRandom(random.Random):
    """The instance behind the functions of `random`: seeded anew by each call that uses it.

    Attributes:
        is_due: To be seeded before anything is drawn.
    """

    def __init__(self, determinism: Determinism) -> None:
        self._determinism = determinism
        self.is_due = False
        super().__init__()

    def random(self) -> float:
        if self.is_due:
            self._begin()
        return super().random()

    def getrandbits(self, k: int, /) -> int:
        if self.is_due:
            self._begin()
        return super().getrandbits(k)

    def seed(self, a: Any = None, version: int = 2) -> None:
        self.is_due = False
        super().seed(a, version)

    def getstate(self) -> tuple[Any, ...]:
        if self.is_due:
            self._begin()
        return super().getstate()

    def setstate(self, state: tuple[Any, ...]) -> None:
        self.is_due = False
        super().setstate(state)

    def _begin(self) -> None:
        self.seed(self._determinism.seed)  # None: of the system


def _now(cls: type[datetime.datetime], tz: datetime.tzinfo | None = None) -> datetime.datetime:
    """Return what `time.time` tells."""
    return cls.fromtimestamp(time.time(), tz)


def _utcnow(cls: type[datetime.datetime]) -> datetime.datetime:
    """Return what `time.time` tells in UTC, naive."""
    return cls.fromtimestamp(time.time(), datetime.UTC).replace(tzinfo=None)


def _set_in_type(cls: type, name: str, attribute: Any) -> None:
    """Set an attribute of a type that is written in C, which Python itself refuses."""
    (attributes,) = gc.get_referents(cls.__dict__)
    attributes[name] = attribute
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(cls))
