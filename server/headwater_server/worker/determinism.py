"""Makes the standard library's clock and chance those of the call, while a query or mutation runs.

A result is shared, cached and run again when what it read has changed; so it must not depend on when
and where it ran. `time.time()`, `datetime.now()` and their like tell the call's time (`ctx.now_ms`),
the functions of `random` draw from a stream that the call's seed begins. Real randomness (`os.urandom`,
and so `secrets` and `uuid.uuid4`) is for mutations, which take effect once; a query is refused it.

Outside of calls, while a bundle is imported too, and in other threads, all of them are what they always are.
A guard for honest mistakes, as `guard.py` is: clocks of other libraries, `random.Random()` without a seed,
`uuid.uuid1`, `time.clock_gettime`, `os.getrandom` and monotonic clocks are left alone.
"""

from __future__ import annotations

import ctypes
import datetime
import gc
import os
import random
import sys
import time
from functools import update_wrapper
from threading import get_ident
from typing import TYPE_CHECKING, Any

from headwater_protocol.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable

_SHARED = [name for name in random.__all__ if not isinstance(getattr(random, name), type)]
_OF_SECONDS = ("localtime", "gmtime", "ctime")
_OF_PARTS = {"asctime": 0, "strftime": 1}
"""Functions of `time` that take the present for parts that are not given, with where they would stand."""


class Determinism:
    """Knows the running call. Its owner says when one begins and ends, in the thread in which it runs.

    Attributes:
        clock_read: Whether the call that runs, or ran last, has asked a clock of the standard library.
    """

    def __init__(self) -> None:
        self._now_us: int | None = None
        self._seed = b""
        self._real_randomness = True
        self._thread = get_ident()
        self._chance = _CallRandom(self)
        self.clock_read = False

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
        self.clock_read = False
        self._thread = get_ident()
        self._chance.forget()

    def end(self) -> None:
        """The call has ended."""
        self._now_us = None
        self._real_randomness = True
        self._chance.forget()  # what follows shall not be foretold from the call's seed

    @property
    def now_us(self) -> int | None:
        """The time of the call that runs in this thread, None if none does."""
        return self._now_us if self._now_us is not None and get_ident() == self._thread else None

    def clock_us(self) -> int | None:
        """Return the same to whoever asks a clock; that is noted."""
        self.clock_read = True
        return self.now_us

    @property
    def seed(self) -> bytes | None:
        """Its seed, None if none runs."""
        return None if self.now_us is None else self._seed

    def install(self) -> None:
        """Take the place of the standard library's functions in this process, for good; before user code is imported."""
        real_time, real_time_ns = time.time, time.time_ns
        self._put(time, "time", lambda: real_time() if (us := self.clock_us()) is None else us / 1e6)
        self._put(time, "time_ns", lambda: real_time_ns() if (us := self.clock_us()) is None else us * 1000)
        for name in _OF_SECONDS:
            self._put(time, name, self._of_seconds(getattr(time, name)))
        for name, place in _OF_PARTS.items():
            self._put(time, name, self._of_parts(getattr(time, name), place, time.localtime))
        self._put(os, "urandom", self._urandom(os.urandom))
        _set_in_type(datetime.datetime, "now", classmethod(_now))
        _set_in_type(datetime.datetime, "utcnow", classmethod(_utcnow))
        standard: Any = random
        chance: Any = self._chance
        standard._inst = chance  # what its functions are methods of
        for name in _SHARED:
            setattr(random, name, getattr(chance, name))
        standard._urandom = os.urandom  # what `SystemRandom`, so `secrets`, calls

    def _put(self, module: Any, name: str, function: Callable[..., Any]) -> None:
        real = getattr(module, name)
        for place in (module, sys.modules[real.__module__]):  # that of `os.urandom` is `posix`
            setattr(place, name, _InPlaceOf(real, function) if place is module else getattr(module, name))

    def _of_seconds(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def told(seconds: float | None = None, /) -> Any:
            if seconds is None and (now_us := self.clock_us()) is not None:
                seconds = now_us / 1e6
            return real(seconds)

        return told

    def _of_parts(
        self, real: Callable[..., Any], place: int, parts_of: Callable[..., time.struct_time]
    ) -> Callable[..., Any]:
        def told(*arguments: Any) -> Any:
            if self.now_us is not None and len(arguments) == place:
                arguments = (*arguments, parts_of())
            return real(*arguments)

        return told

    def _urandom(self, real: Callable[[int], bytes]) -> Callable[[int], bytes]:
        def urandom(size: int, /) -> bytes:
            if not self._real_randomness and self.now_us is not None:
                raise RequestError(
                    "a query cannot use os.urandom, secrets or uuid4: run again, it would give another result."
                    " Use ctx.random, or do it in a mutation",
                    code="not_allowed_here",
                )
            return real(size)

        return urandom


class _InPlaceOf:
    """A function in the place of a built-in one: like that, it does not become a method in a class, and is pickled by name."""

    def __init__(self, real: Callable[..., Any], function: Callable[..., Any]) -> None:
        update_wrapper(self, real, updated=())
        self._name = real.__name__
        self._function = function

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._function(*arguments, **named)

    def __reduce__(self) -> str:
        return self._name


class _CallRandom(random.Random):
    """The instance behind the functions of `random`: seeded anew by each call that uses it."""

    def __init__(self, determinism: Determinism | None = None) -> None:
        self._determinism = determinism
        self._is_due = False
        super().__init__()

    def forget(self) -> None:
        """Be seeded before anything is drawn."""
        self._is_due = True
        self.gauss_next = None

    def random(self) -> float:
        if self._is_due:
            self.seed()
        return super().random()

    def getrandbits(self, k: int, /) -> int:
        if self._is_due:
            self.seed()
        return super().getrandbits(k)

    def seed(self, a: Any = None, version: int = 2) -> None:
        self._is_due = False
        if a is None and self._determinism is not None:
            a = self._determinism.seed  # None: of the system
        super().seed(a, version)

    def getstate(self) -> tuple[Any, ...]:
        if self._is_due:
            self.seed()
        return super().getstate()

    def setstate(self, state: tuple[Any, ...]) -> None:
        self._is_due = False
        super().setstate(state)

    def __reduce__(self) -> tuple[Any, ...]:
        return random.Random, (), self.getstate()


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
