"""The life of the deployment's admin key: made at the first start, found again at each start, replaced on request.

The key stands in one file, its hash in the database. Whatever moment the machine stops at,
one start later a file holds the key that the hash belongs to: a new key is durable in a
file beside the old one before its hash is stored, and takes the old one's place afterwards.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

from headwater_protocol.errors import RequestError
from headwater_storage.catalog import KEYS
from headwater_storage.disk_errors import disk_error, is_no_room

from headwater_server.net.keys import (
    hash_key,
    move_key_file,
    new_key,
    read_key_file,
    sync_key_file,
    why_weak,
    write_key_file,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from headwater_storage.engine import Engine
    from headwater_storage.transaction import Transaction

    from headwater_server.net.keys import AdminKeys

logger = logging.getLogger("headwater.key")

_FILE = "admin-key"
_ROW = b"admin"


class StoredHash(Protocol):
    """Where the valid key's hash is kept."""

    def read(self) -> bytes | None:
        """Return it, None before the first start."""

    async def write(self, valid_hash: bytes) -> None:
        """Replace it; durable on return."""


class KeyRow:
    """The hash as a row of the database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def read(self) -> bytes | None:
        """Return it, None before the first start."""
        with self._engine.begin(writable=False) as transaction:
            return transaction.get_row(KEYS, _ROW)

    async def write(self, valid_hash: bytes) -> None:
        """Replace it; durable on return."""

        def put(transaction: Transaction) -> None:
            transaction.put_row(KEYS, _ROW, valid_hash)

        await self._engine.transact(put)


class DeploymentKey:
    """Keeps file, hash and the key that requests are compared with in step.

    Args:
        stored: Where the hash is kept.
        keys: What requests are compared with; set from here.
        data: The data directory.
        given: The key file that the settings name, if they name one. What stands in it is the key.
        random_bytes: Source of new keys.

    Attributes:
        file: Where the key can be read.
        weakness: Why the key must not be used where strangers can try keys, None if it may.
    """

    weakness: str | None = None

    def __init__(
        self,
        stored: StoredHash,
        keys: AdminKeys,
        data: Path,
        given: Path | None,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self.file = given or data / _FILE
        self._new_file = self.file.with_name(self.file.name + ".new")
        self._is_given = given is not None
        self._stored = stored
        self._keys = keys
        self._random_bytes = random_bytes
        self._one_at_a_time = asyncio.Lock()

    async def load(self) -> None:
        """Find the valid key; at the first start of all, make one.

        Raises:
            RequestError: The file holds no key that is safe to use.
            TransientError: `disk_full`.
            OSError: The given file cannot be read, or no file can be written.
        """
        stored = self._stored.read()
        try:
            self._finish_rotation(stored)
            if self._is_given:
                key = read_key_file(self.file)
                valid, self.weakness = hash_key(key), why_weak(key)
            elif stored is None:
                valid = self._first_key()
            else:
                valid = stored
                self._look_for_key_of(stored)
        except OSError as error:
            if is_no_room(error):
                raise disk_error(error, self.file, "the admin key") from error
            raise
        if valid != stored:
            await self._stored.write(valid)
        self._keys.replace(valid)

    async def rotate(self) -> str:
        """Make a new key the valid one and return it; the old one is refused from then on.

        Raises:
            RequestError: The key's file cannot be replaced; the old key stays valid.
            TransientError: `disk_full`; likewise.
        """
        async with self._one_at_a_time:
            loop = asyncio.get_running_loop()
            key = new_key(self._random_bytes)
            try:
                # The new file of an earlier rotation may be the only one with the valid key.
                await loop.run_in_executor(None, self._finish_rotation, self._stored.read())
                await loop.run_in_executor(None, write_key_file, self._new_file, key)
            except OSError as error:
                if is_no_room(error):
                    raise disk_error(error, self._new_file, "a new admin key") from None
                raise RequestError(f"no new key: its file cannot be written: {error}") from None
            await self._stored.write(hash_key(key))
            self._keys.replace(hash_key(key))
            self.weakness = None
            try:
                await loop.run_in_executor(None, move_key_file, self._new_file, self.file)
            except OSError as error:
                fields = {"file": str(self.file), "new_file": str(self._new_file), "error": str(error)}
                logger.warning("key_file_not_replaced", extra={"fields": fields})
            return key

    def _finish_rotation(self, stored: bytes | None) -> None:
        """Give the new key's file its place if its hash had been stored when the last daemon ended."""
        try:
            key = self._new_file.read_bytes().strip()
        except FileNotFoundError:
            return
        if stored is not None and hash_key(key.decode(errors="surrogateescape")) == stored:
            move_key_file(self._new_file, self.file)
            logger.info("key_rotation_finished", extra={"fields": {"file": str(self.file)}})
        else:
            self._new_file.unlink()

    def _first_key(self) -> bytes:
        """Return the hash of a key that stands durably in its file: a new one, or what an interrupted start left."""
        if self.file.exists():
            sync_key_file(self.file)
        else:
            write_key_file(self._new_file, new_key(self._random_bytes))
            move_key_file(self._new_file, self.file)
        return hash_key(read_key_file(self.file))

    def _look_for_key_of(self, stored: bytes) -> None:
        try:
            found = hash_key(read_key_file(self.file)) == stored
        except (OSError, RequestError):
            found = False
        if not found:
            advice = (
                "the valid admin key is in no file here; whoever has it goes on using it. If nobody has it: write"
                " a new one to a file and start with --admin-key-file naming that file"
            )
            logger.warning(
                "admin_key_not_found", extra={"fields": {"file": str(self.file), "advice": advice}}
            )
