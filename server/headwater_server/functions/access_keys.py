"""Keys beside the admin key, for people and machines: made, listed with their last use, revoked.

Each is a row of the system table of keys, under its name: its role and its hash. The key itself is shown once, to
whoever makes it. When it was last used is a row of its own, written once in a while, so that using a
key costs no commit.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from headwater_protocol.errors import HeadwaterError, RequestError
from headwater_protocol.values import pack_value, unpack_value
from headwater_storage.catalog import KEYS

from headwater_server.net.keys import ROLES, AccessKey, hash_key, new_key

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from headwater_storage.transaction import Transaction

    from headwater_server.net.keys import AdminKeys

logger = logging.getLogger("headwater.key")

_KEY, _USE = b"key/", b"use/"
_AFTER_KEYS, _AFTER_USES = b"key0", b"use0"  # `0` follows `/`
_NAME_BYTES_MAX = 100
_USE_STEP_US = 60_000_000


class Database(Protocol):
    """Where the rows are."""

    def begin(self, *, writable: bool = True) -> AbstractContextManager[Transaction]:
        """Open a transaction."""

    async def transact(self, function: Callable[[Transaction], Any]) -> tuple[Any, Any]:
        """Run a function in a transaction and commit it."""


@dataclass(frozen=True, slots=True)
class ListedKey:
    """A key as it is listed.

    Attributes:
        key: The key.
        used_us: When it was last used, to the minute, µs since 1970; None: never.
    """

    key: AccessKey
    used_us: int | None


class AccessKeys:
    """All of them.

    Args:
        database: Where they are kept.
        keys: What requests are compared with; set from here.
        now_us: Time.
        random_bytes: Source of new keys.
        count_max: So many may there be.
    """

    def __init__(
        self,
        database: Database,
        keys: AdminKeys,
        now_us: Callable[[], int],
        random_bytes: Callable[[int], bytes],
        count_max: int,
    ) -> None:
        self._database = database
        self._keys = keys
        self._now_us = now_us
        self._random_bytes = random_bytes
        self._count_max = count_max
        self._used_us: dict[str, int] = {}
        self._noting: dict[str, asyncio.Task[None]] = {}
        keys.used = self._note_use

    def load(self) -> None:
        """Make those that are kept the valid ones."""
        with self._database.begin(writable=False) as transaction:
            self._keys.replace_others(_kept(transaction))

    def listed(self) -> list[ListedKey]:
        """Return them by name."""
        with self._database.begin(writable=False) as transaction:
            uses = {
                suffix[len(_USE) :].decode(): int.from_bytes(content)
                for suffix, content in transaction.read_rows(KEYS, _USE, _AFTER_USES)
            }
            return [
                ListedKey(key, self._used_us.get(key.name, uses.get(key.name))) for key in _kept(transaction)
            ]

    async def create(self, name: str, role: str) -> str:
        """Make a key and return it; nobody can be shown it again.

        Args:
            name: Whose it will be.
            role: What it will be for.

        Raises:
            RequestError: The name is taken or none, there is no such role, or there are too many keys.
        """
        encoded = _checked(name)
        if role not in ROLES:
            raise RequestError(f"there is no role {role[:_NAME_BYTES_MAX]!r}; there are {', '.join(ROLES)}")
        key = new_key(self._random_bytes)
        row = pack_value({"role": role, "digest": hash_key(key), "created_us": self._now_us()})

        def put(transaction: Transaction) -> None:
            if transaction.get_row(KEYS, _KEY + encoded) is not None:
                raise RequestError(f"there is a key {name!r} already; revoke it first")
            if len(_kept(transaction)) >= self._count_max:
                raise RequestError(
                    f"there are {self._count_max} keys already (access_keys_limit); revoke one"
                )
            transaction.put_row(KEYS, _KEY + encoded, row)
            transaction.put_row(KEYS, _USE + encoded, None)

        await self._database.transact(put)
        self._used_us.pop(name, None)
        self.load()
        logger.info("key_created", extra={"fields": {"name": name, "role": role}})
        return key

    async def revoke(self, name: str) -> None:
        """Make a key void from now on.

        Raises:
            RequestError: There is none of this name.
        """
        encoded = _checked(name)

        def remove(transaction: Transaction) -> None:
            if transaction.get_row(KEYS, _KEY + encoded) is None:
                raise RequestError(f"there is no key {name!r}; see `headwater key list`")
            transaction.put_row(KEYS, _KEY + encoded, None)
            transaction.put_row(KEYS, _USE + encoded, None)

        await self._database.transact(remove)
        self._used_us.pop(name, None)
        self.load()
        logger.info("key_revoked", extra={"fields": {"name": name}})

    def _note_use(self, key: AccessKey) -> None:
        now_us, last_us = self._now_us(), self._used_us.get(key.name)
        if key.name in self._noting or (last_us is not None and now_us - last_us < _USE_STEP_US):
            return
        self._used_us[key.name] = now_us
        task = self._noting[key.name] = asyncio.create_task(self._write_use(key, now_us))
        task.add_done_callback(lambda _: self._noting.pop(key.name))

    async def _write_use(self, key: AccessKey, now_us: int) -> None:
        suffix = key.name.encode()

        def put(transaction: Transaction) -> None:
            if transaction.get_row(KEYS, _KEY + suffix) is not None:
                transaction.put_row(KEYS, _USE + suffix, now_us.to_bytes(8))

        try:
            await self._database.transact(put)
        except HeadwaterError as error:  # the key is good without that, also where nothing can be written
            fields = {"name": key.name, "code": error.code}
            logger.warning("key_use_not_noted", extra={"fields": fields})


def _kept(transaction: Transaction) -> list[AccessKey]:
    found = []
    for suffix, content in transaction.read_rows(KEYS, _KEY, _AFTER_KEYS):
        row = unpack_value(content)
        found.append(AccessKey(suffix[len(_KEY) :].decode(), row["role"], row["digest"], row["created_us"]))
    # A role that a later version has given is none here.
    return [key for key in found if key.role in ROLES]


def _checked(name: str) -> bytes:
    if not name.strip() or not name.isprintable() or len(name.encode(errors="replace")) > _NAME_BYTES_MAX:
        raise RequestError(f"a key's name is printable text of 1 to {_NAME_BYTES_MAX} bytes")
    try:
        return name.encode()
    except UnicodeEncodeError:
        raise RequestError("a key's name is valid Unicode text") from None
