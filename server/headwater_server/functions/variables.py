"""The environment variables of the deployment: rows of the database, checked against what the active bundle declares."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from headwater_protocol.errors import RequestError, TransientError
from headwater_protocol.variables import VariableRow, checked_name
from headwater_storage.catalog import ENVIRONMENT, active_bundle

from headwater_server.worker.messages import CheckVariables, VariablesChecked

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping
    from contextlib import AbstractContextManager

    from headwater_protocol.manifest import Manifest
    from headwater_storage.proposal import CommitTs
    from headwater_storage.transaction import Transaction

    from headwater_server.sealing import SealKey
    from headwater_server.worker.messages import Question, Reply

logger = logging.getLogger("headwater.environment")

_LAST = b"\xff"
_ATTEMPTS_MAX = 5

_T = TypeVar("_T")


class Database(Protocol):
    """What this needs of the engine."""

    def begin(self, *, writable: bool = True) -> AbstractContextManager[Transaction]:
        """Open a transaction over the newest state; it is only read from."""

    async def transact(self, function: Callable[[Transaction], _T]) -> tuple[_T, CommitTs]:
        """Run a function in a transaction and commit it, again after a conflict."""


@dataclass(frozen=True, slots=True)
class VariableLimits:
    """Bounds.

    Attributes:
        variables_max: So many there may be.
        name_characters_max: Length of a name.
        value_bytes_max: Size of a value.
    """

    variables_max: int = 512
    name_characters_max: int = 64
    value_bytes_max: int = 16 * 1024


@dataclass(frozen=True, slots=True)
class ListedVariable:
    """A variable as it is listed.

    Attributes:
        name: What it is called.
        secret: Whether it is sealed.
        value: What it is; None for a secret one, and for one that is not set.
        updated_us: When it was set, µs since 1970; None if it is not.
        kind: Its type in the active bundle, "" if that does not read it.
        required: Whether that needs it.
    """

    name: str
    secret: bool
    value: str | None
    updated_us: int | None
    kind: str = ""
    required: bool = False


class Variables:
    """The variables.

    Args:
        database: Keeps them.
        key: Seals secret ones.
        limits: Bounds.
        ask: Has a worker of the active bundle look at something.
        manifest: Returns what the active bundle declares, None before the first deploy.
        changed: Told of each change, once it is published.
        now_us: Time of a change.
        random_bytes: For sealing.
    """

    def __init__(
        self,
        database: Database,
        key: SealKey,
        limits: VariableLimits,
        ask: Callable[[Question], Awaitable[Reply]],
        manifest: Callable[[], Manifest | None],
        changed: Callable[[], None],
        now_us: Callable[[], int],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._database = database
        self._key = key
        self._limits = limits
        self._ask = ask
        self._manifest = manifest
        self._changed = changed
        self._now_us = now_us
        self._random_bytes = random_bytes

    def rows(self) -> Mapping[str, bytes]:
        """Return all rows by name."""
        with self._database.begin() as transaction:
            return _rows(transaction)

    def listed(self) -> list[ListedVariable]:
        """Return the variables that are set, and those that the active bundle reads besides, by name."""
        manifest = self._manifest()
        declared = {} if manifest is None else {one.name: one for one in manifest.variables}
        rows = self.rows()
        found = []
        for name in sorted(rows.keys() | declared.keys()):
            told = declared.get(name)
            kind, required = ("", False) if told is None else (told.kind, told.required)
            if name not in rows:
                secret = told is not None and told.secret
                found.append(ListedVariable(name, secret, None, None, kind, required))
            else:
                row = VariableRow.from_bytes(rows[name])
                secret = row.sealed is not None
                found.append(ListedVariable(name, secret, row.value, row.updated_us, kind, required))
        return found

    async def set(self, name: str, value: str, *, secret: bool) -> bool:
        """Set a variable; tell whether it is a secret. As `change`."""
        return name in await self.change({name: value}, secret={name} if secret else ())

    async def remove(self, name: str) -> None:
        """Remove a variable. As `change`."""
        await self.change({name: None})

    async def change(
        self, changes: Mapping[str, str | None], *, secret: Collection[str] = ()
    ) -> frozenset[str]:
        """Set variables, or remove those that are to be None: all of them or none.

        Args:
            changes: What is to be, by name.
            secret: Which of them are secrets; others are too if the active bundle says so.

        Returns:
            Those that were set and are secrets.

        Raises:
            RequestError: One cannot have this name or value, there are too many, it does not fit the active bundle or
                cannot be sealed; or one to be removed is not there, or the active bundle needs it.
        """
        manifest = self._manifest()
        declared = {one.name for one in manifest.variables if one.secret} if manifest is not None else set()
        rows: dict[str, bytes | None] = {}
        sealed = set()
        for name, value in changes.items():
            checked_name(name, self._limits.name_characters_max)
            if value is not None and (name in secret or name in declared):
                sealed.add(name)
            rows[name] = None if value is None else self._row(name, value, secret=name in sealed)

        def write(transaction: Transaction) -> None:
            known = _rows(transaction)
            for name, row in rows.items():
                if row is None and name not in known:
                    raise RequestError(f"the variable {name} is not set; see `headwater env list`")
                if row is not None and name not in known and len(known) >= self._limits.variables_max:
                    raise RequestError(
                        f"there are {len(known)} variables already (`environment_limit_variables`)"
                    )
                transaction.put_row(ENVIRONMENT, name.encode(), row)
                if row is None:
                    del known[name]
                else:
                    known[name] = row

        await self._change(dict(changes), write)
        for name, row in rows.items():
            if row is None:
                logger.info("variable_removed", extra={"fields": {"name": name}})
            else:
                logger.info("variable_set", extra={"fields": {"name": name, "secret": name in sealed}})
        return frozenset(sealed)

    def _row(self, name: str, value: str, *, secret: bool) -> bytes:
        size, limit = len(_encoded(value)), self._limits.value_bytes_max
        if size > limit:
            raise RequestError(f"the value of {name} has {size} bytes; the limit is {limit}")
        sealed = self._key.seal(name, value, self._random_bytes) if secret else None
        return VariableRow(None if secret else value, sealed, self._now_us()).to_bytes()

    async def _change(self, changes: dict[str, str | None], write: Callable[[Transaction], None]) -> None:
        """Write, if the bundle that is active at that commit agrees."""
        for _ in range(_ATTEMPTS_MAX):
            with self._database.begin() as transaction:
                bundle = active_bundle(transaction)
            if bundle is not None:
                await self._check(changes)

            def write_if_same(transaction: Transaction, expected: str | None = bundle) -> bool:
                if active_bundle(transaction) != expected:
                    return False
                write(transaction)
                return True

            written, _ = await self._database.transact(write_if_same)
            if written:
                self._changed()
                return
        raise TransientError("deploys go on; try again")

    async def _check(self, changes: dict[str, str | None]) -> None:
        manifest = self._manifest()
        if manifest is None or not manifest.variables:
            return
        reply = await self._ask(CheckVariables(changes))
        assert isinstance(reply, VariablesChecked), "what was asked for"
        # Of others nothing is said here: they may be what the next command mends.
        problems = [text for text in reply.problems if text.split(" ")[0].rstrip(":") in changes]
        if problems:
            raise RequestError(f"the active bundle refuses it: {'; '.join(problems)}")


def _rows(transaction: Transaction) -> dict[str, bytes]:
    return {suffix.decode(): content for suffix, content in transaction.read_rows(ENVIRONMENT, b"", _LAST)}


def _encoded(value: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise RequestError("a value is valid Unicode text") from None
