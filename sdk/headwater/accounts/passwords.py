"""Passwords and one-time codes as they are stored: argon2id, in threads of their own.

Parameters: 19 MiB, two passes, one lane, as the OWASP password storage cheat sheet recommends; salt of 16 bytes and
tag of 32 as in RFC 9106. What was hashed with others is hashed again at the next sign-in.
"""

from __future__ import annotations

import asyncio
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from headwater_protocol.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")

PASSWORD_CHARACTERS_MIN = 8
PASSWORD_CHARACTERS_MAX = 256
_MEMORY_KIB = 19 * 1024
_PASSES = 2
_LANES = 1
_SALT_BYTES = 16
_TAG_BYTES = 32
_THREADS = 2
"""So many at a time in a process; each takes 19 MiB for some 20 ms and lets others run beside it."""

CURRENT = f"$argon2id$v=19$m={_MEMORY_KIB},t={_PASSES},p={_LANES}$"
"""What a hash begins with that is as one would make it today."""

_NOBODYS = f"{CURRENT}bm9ib2R5LCBub2JvZHkhIQ${'A' * 43}"
"""A hash of nothing, which is compared with where there is none, so that it takes as long."""


def checked_password(password: str) -> str:
    """Return a password that somebody chooses, in the one form that all keyboards lead to.

    Raises:
        RequestError: It is too short, or too long.
    """
    normal = normal_password(password)
    if len(normal) < PASSWORD_CHARACTERS_MIN:
        raise RequestError(f"a password has at least {PASSWORD_CHARACTERS_MIN} characters")
    return normal


def normal_password(password: str) -> str:
    """Return a password that is offered, in the same form.

    Raises:
        RequestError: It is too long.
    """
    if len(password) > PASSWORD_CHARACTERS_MAX:
        raise RequestError(f"a password has at most {PASSWORD_CHARACTERS_MAX} characters")
    return unicodedata.normalize("NFKC", password)


class Hasher:
    """Hashes secrets that people type, a few at a time, and never on the loop that others wait for."""

    def __init__(self) -> None:
        self._threads: ThreadPoolExecutor | None = None  # from the first secret on

    async def hashed(self, secret: str, salt: bytes) -> str:
        """Return the hash of a secret, with all that is needed to compare it.

        Args:
            secret: What somebody has typed.
            salt: 16 unpredictable bytes.
        """
        return await self._aside(lambda: _hashed(secret, salt[:_SALT_BYTES]))

    async def fits(self, secret: str, stored: str | None) -> bool:
        """Tell whether a secret has a hash; where there is none, no, and after the same time."""
        fits = await self._aside(lambda: _fits(secret, stored or _NOBODYS))
        return fits and stored is not None

    async def _aside(self, work: Callable[[], _T]) -> _T:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, "headwater-argon2")
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _hashed(secret: str, salt: bytes) -> str:
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id  # what declares accounts need not have it

    made = Argon2id(salt=salt, length=_TAG_BYTES, iterations=_PASSES, lanes=_LANES, memory_cost=_MEMORY_KIB)
    return made.derive_phc_encoded(secret.encode())


def _fits(secret: str, stored: str) -> bool:
    from cryptography.exceptions import InvalidKey
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

    try:
        Argon2id.verify_phc_encoded(secret.encode(), stored)
    except InvalidKey:
        return False
    return True
