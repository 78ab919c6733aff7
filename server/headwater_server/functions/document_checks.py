"""Whether every document that is there fits the bundle that is to become active.

All documents of the tables whose shape changes are looked at by a worker of the new bundle, in parts, while the
old bundle serves and writes on. What it writes meanwhile is looked at afterwards, until nothing is left; the
commit that switches counts these tables as read, so it fails if anything was written after that. Where writes
do not pause by themselves for long enough, mutations of others are held back for a moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater_protocol.errors import RequestError
from headwater_storage.deployment import DocumentsNotCheckedError
from headwater_storage.keys import document_key, table_range

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from headwater_protocol.manifest import IndexManifest, Manifest
    from headwater_storage.catalog import TableDefinition
    from headwater_storage.indexes import IndexDefinition
    from headwater_storage.transaction import Transaction

    from headwater_server.functions.deploy_progress import DeployProgress
    from headwater_server.functions.kept_checks import KeptCheck
    from headwater_server.worker.messages import DocumentsChecked

_KEYS_MAX = 1_000
TOUCHED_MAX = 200_000
"""So many writes are remembered while documents are checked; after more, all are looked at again."""

_ROUNDS = 4
_PATIENT_ATTEMPTS = 3


def changed_tables(definitions: Iterable[TableDefinition], manifest: Manifest) -> list[TableDefinition]:
    """Return the stored tables whose documents have another shape in a bundle, or an index that they had not."""
    wanted = {table.name: table for table in manifest.tables}
    return [
        table
        for table in definitions
        if (new := wanted.get(table.name)) is not None
        and (
            new.shape != table.schema
            or not all(any(_is(index, one) for one in table.indexes) for index in new.indexes)
        )
    ]


def _is(wanted: IndexManifest, index: IndexDefinition) -> bool:
    """Tell whether entries of an index are what they should be in another; whether it is unique does not matter."""
    return index.maintained and (wanted.name, list(wanted.fields), wanted.defaults) == (
        index.name,
        index.fields,
        index.defaults,
    )


class DocumentChecks:
    """The checks of one deploy.

    Args:
        tables: Those to look at.
        check: Has a worker of the new bundle check documents of a table, by its number: the part that begins at a
            key (empty: at its first), or those of some keys.
        hold_back: Holds mutations back, for so long as is bearable.
        kept: How far an earlier check of the same bundle came.
        progress: Hears of each part; may end the deploy.

    Attributes:
        variables: Rows of the environment variables that the new bundle reads, as they were when they were checked.
    """

    def __init__(
        self,
        tables: Sequence[TableDefinition],
        check: Callable[[int, bytes, Sequence[bytes]], Awaitable[DocumentsChecked]],
        hold_back: Callable[[], None],
        kept: KeptCheck,
        progress: DeployProgress,
    ) -> None:
        self._tables = {document_key(table.number, b""): table for table in tables}
        self._check = check
        self._hold_back = hold_back
        self._kept = kept
        self._progress = progress
        self._may_resume = True
        self._touched: dict[bytes, None] = {}
        self._whole_is_due = True
        self._attempts = 0
        self.variables: Mapping[str, bytes | None] = {}

    def published(self, conflict_keys: Iterable[bytes]) -> None:
        """Note what is written while documents are checked."""
        for key in conflict_keys:
            if key[:4] in self._tables:
                self._touched[key] = None
        if len(self._touched) > TOUCHED_MAX:
            self._touched.clear()
            self._whole_is_due = True

    async def catch_up(self) -> None:
        """Look at what was not looked at as it is now; at all of it unless too much is written meanwhile.

        Raises:
            RequestError: `invalid_document`, naming the first that do not fit.
        """
        if self._whole_is_due:
            self._whole_is_due = False
            await self._check_whole()
        self._attempts += 1
        if self._attempts > _PATIENT_ATTEMPTS and self._touched:
            self._hold_back()
        for _ in range(_ROUNDS):
            if not self._touched:
                return
            await self._check_touched()

    def require(self, transaction: Transaction) -> None:
        """Have the commit of a transaction fail unless everything that is there then has been looked at.

        Raises:
            DocumentsNotCheckedError: Something is left to look at.
        """
        if self._touched or self._whole_is_due:
            raise DocumentsNotCheckedError
        for table in self._tables.values():
            transaction.add_range(*table_range(table.number))
        for name, row in self.variables.items():
            if transaction.variable(name) != row:
                raise RequestError("environment variables were changed while the deploy went on; repeat it")

    def built(self, index: IndexDefinition, key: bytes | None) -> None:
        """Hear how far an index is."""
        self._progress.built(index, key)

    async def _check_whole(self) -> None:
        if self._may_resume and self._tables:
            self._may_resume = False  # if all is due again, then because too much was written
            written = await self._kept.resume([table.number for table in self._tables.values()])
            self._touched.update(dict.fromkeys(written))
        else:
            self._kept.begin_anew()
        for table in self._tables.values():
            await self._check_table(table)

    async def _check_table(self, table: TableDefinition) -> None:
        end = table_range(table.number)[1]
        following: bytes | None = self._kept.position(table.number)
        while following is not None and following < end:
            checked = await self._check(table.number, following, ())
            following = self._seen(table, checked)
            await self._kept.advanced(table.number, following or end)
            self._progress.checked(table.number, following, checked.looked_at)

    async def _check_touched(self) -> None:
        keys = list(self._touched)[:_KEYS_MAX]
        for key in keys:
            del self._touched[key]
        for prefix, table in self._tables.items():
            own = [key for key in keys if key[:4] == prefix]
            while own:
                following = self._seen(table, await self._check(table.number, b"", own))
                own = own[own.index(following) :] if following is not None else []

    def _seen(self, table: TableDefinition, checked: DocumentsChecked) -> bytes | None:
        if checked.misfits:
            told = "; ".join(f"{document_id}: {problem}" for document_id, problem in checked.misfits)
            raise RequestError(
                f"table {table.name!r} has documents that do not fit what the bundle declares, the first of them:"
                f" {told}. Change them with the bundle that is active now, or declare what they have",
                code="invalid_document",
            )
        return checked.next
