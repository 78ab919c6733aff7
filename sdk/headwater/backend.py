"""What a ctx needs from a database: the seam between the authoring API and a transaction.

The server's worker implements it over `headwater_storage.Transaction`; tests of users may
implement it over memory. Everything here is encoded documents and plain values: types,
decoding and checks stay on the caller's side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from headwater_protocol.documents import StoredDocument

__all__ = ["Backend", "Bound", "StoredDocument"]

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Bound(NamedTuple):
    """One end of a range on the field after the equality prefix."""

    value: Any
    inclusive: bool


class Backend(Protocol):
    """One transaction. Values are msgpack's own types (and aware datetimes)."""

    @property
    def now_us(self) -> int:
        """Wall time of the call in µs since 1970, frozen at its start."""

    def table_name(self, document_id: str) -> str | None:
        """Return the table that an id names, None if it is malformed or of no known table."""

    def variable(self, name: str) -> bytes | None:
        """Read the row of an environment variable, None if it is not set; a missing one counts as read too."""

    def get(self, document_id: str) -> StoredDocument | None:
        """Read one document; the id must be well-formed. Missing documents count as read too."""

    def read_range(
        self,
        table: str,
        index: str | None,
        equal: Sequence[Any],
        lower: Bound | None,
        upper: Bound | None,
        *,
        descending: bool,
        after: bytes | None = None,
        until: bytes | None = None,
    ) -> Iterator[StoredDocument]:
        """Read a range lazily, in index order. What was consumed is what counts as read.

        Args:
            table: Table name.
            index: Index name; None for the table itself in creation order (then `equal` is
                empty and bounds are `creation_time_ms` as floats).
            equal: Values of the first fields of the index, in its order.
            lower: Lower bound on the next field (`creation_time_ms` after the last one).
            upper: Upper bound likewise.
            descending: Read from the end.
            after: Leave out everything up to this `position` and what stands there, in
                reading order. Positions come back from clients: whatever bytes they are,
                nothing outside the range may be read.
            until: Leave out everything behind this `position`, in reading order; what
                stands there still belongs to the range.
        """

    def position(self, table: str, index: str | None, document_id: str, document: bytes) -> bytes:
        """Return where a document just read stands in an index (None: in creation order): opaque.

        It stays a place in that index when the document moves or goes away.
        """

    def new_id(self, table: str) -> tuple[str, float]:
        """Return a new id of the table and its creation time in ms since 1970."""

    def put(self, document_id: str, document: bytes) -> None:
        """Insert or replace one document; `document` carries `_id` and `_creationTime`.

        Raises:
            RequestError: `unique_violation`, `document_too_large`, a limit of the call.
        """

    def delete(self, document_id: str) -> None:
        """Delete one existing document."""

    def schedule(self, function: str, kind: Any, arguments: bytes, due_us: int) -> str:
        """Have a mutation or action run at a time, µs since 1970, once this has committed; return the job's id.

        Raises:
            RequestError: A limit of the call.
        """

    def cancel_job(self, job_id: str) -> bool:
        """Have a job not run any more; False if it has begun, has ended or is not there.

        Raises:
            RequestError: It is no id of a job.
        """

    def savepoint(self) -> Any:
        """Return what `roll_back` comes back to."""

    def roll_back(self, savepoint: Any, /) -> None:
        """Forget what was put and deleted since a savepoint of this call; what was read stays read."""
