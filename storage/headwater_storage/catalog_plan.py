"""From the catalog as it is to the catalog that a manifest asks for.

Pure: what has to be looked up (whether a table is empty, how far an index is) is asked
through `CatalogFacts`, which a transaction answers, so that the answers are part of its
read set.

A deploy takes two steps. `plan_building` adds the indexes that need time, beside everything
the running bundle uses. `plan_switch` does all the rest at once: what fails before it has
changed nothing that a call can see.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec
from headwater_protocol.errors import RequestError
from headwater_protocol.ids import TABLE_NUMBER_MAX

from headwater_storage.catalog import TABLE_NAME_BYTES_MAX, Numbers, TableDefinition
from headwater_storage.indexes import IndexDefinition

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headwater_storage.catalog import Catalog


class IndexSpec(Protocol):
    """An index as a manifest declares it."""

    @property
    def name(self) -> str:
        """Name within its table."""

    @property
    def fields(self) -> Sequence[str]:
        """Dotted paths."""

    @property
    def unique(self) -> bool:
        """Whether its fields may not occur twice."""

    @property
    def defaults(self) -> Mapping[str, bytes]:
        """What stands for fields that documents do not have, encoded, by dotted path."""


class TableSpec(Protocol):
    """A table as a manifest declares it."""

    @property
    def name(self) -> str:
        """Table name."""

    @property
    def shape(self) -> str:
        """Canonical JSON schema of its documents, as text."""

    @property
    def indexes(self) -> Sequence[IndexSpec]:
        """Its indexes."""


class CatalogFacts(Protocol):
    """What a plan has to look up."""

    def is_empty(self, table: TableDefinition) -> bool:
        """Tell whether the table has no document."""

    def is_built(self, index: IndexDefinition) -> bool:
        """Tell whether a building index has every entry."""

    def is_swept(self, index: IndexDefinition) -> bool:
        """Tell whether a dropping index has no entry left."""


class IndexesIncompleteError(Exception):
    """The switch needs an index that is not built: build it and plan again."""


class CatalogPlan(NamedTuple):
    """Rows to write.

    Attributes:
        tables: Changed tables.
        numbers: The row of free numbers afterwards.
    """

    tables: list[TableDefinition]
    numbers: Numbers


def check_specs(specs: Sequence[TableSpec]) -> None:
    """Refuse a manifest whose tables or indexes cannot be stored."""
    names = set[str]()
    for spec in specs:
        if spec.name in names:
            raise RequestError(f"two tables are called {spec.name!r}", code="invalid_bundle")
        if not spec.name or spec.name.startswith("_") or len(spec.name.encode()) > TABLE_NAME_BYTES_MAX:
            raise RequestError(
                f"table name {spec.name!r}: expected 1 to {TABLE_NAME_BYTES_MAX} bytes, not beginning with '_'",
                code="invalid_bundle",
            )
        names.add(spec.name)
        index_names = [index.name for index in spec.indexes]
        if len(set(index_names)) < len(index_names) or not all(index.fields for index in spec.indexes):
            raise RequestError(
                f"table {spec.name!r}: its indexes need names of their own and at least one field",
                code="invalid_bundle",
            )


def plan_building(
    catalog: Catalog, numbers: Numbers, specs: Sequence[TableSpec], facts: CatalogFacts
) -> CatalogPlan:
    """Return the rows that add what must be built, and give up what an abandoned deploy was building."""
    wanted = {spec.name: spec for spec in specs}
    changed: list[TableDefinition] = []
    next_index = numbers.next_index
    for handle in catalog.by_number.values():
        table = handle.definition
        spec = wanted.get(table.name)
        kept = _matches(table, spec)
        indexes = [
            index if index.state != "building" or index in kept else _in_state(index, "dropping")
            for index in table.indexes
        ]
        for index in spec.indexes if spec else ():
            if _match(table, index) is None and not facts.is_empty(table):
                indexes.append(_definition(next_index, table.number, index, "building"))
                next_index += 1
        if indexes != table.indexes:
            changed.append(msgspec.structs.replace(table, indexes=indexes))
    return CatalogPlan(changed, Numbers(numbers.next_table, next_index))


def plan_switch(
    catalog: Catalog, numbers: Numbers, specs: Sequence[TableSpec], facts: CatalogFacts
) -> CatalogPlan:
    """Return the rows after which the catalog is what the manifest asks for.

    Raises:
        IndexesIncompleteError: An index has to be built first.
    """
    existing = {handle.definition.name: handle.definition for handle in catalog.by_number.values()}
    planned: list[TableDefinition] = []
    next_table, next_index = numbers.next_table, numbers.next_index
    for spec in specs:
        table = existing.pop(spec.name, None)
        if table is None:
            if next_table > TABLE_NUMBER_MAX:
                raise RequestError(f"there is no number left for table {spec.name!r}", code="invalid_bundle")
            table = TableDefinition(next_table, spec.name, 1, spec.shape)
            next_table += 1
            fresh = True
        else:
            fresh = False
        indexes: list[IndexDefinition] = []
        for wanted in spec.indexes:
            found = None if fresh else _match(table, wanted)
            if found is None:
                if not fresh and not facts.is_empty(table):
                    raise IndexesIncompleteError
                found = _definition(next_index, table.number, wanted, "ready")
                next_index += 1
            elif found.state == "building" and not facts.is_built(found):
                raise IndexesIncompleteError
            indexes.append(_in_state(found, "ready"))
        shape = table.shape if table.schema == spec.shape else table.shape + 1
        planned.append(
            msgspec.structs.replace(
                table,
                shape=shape,
                schema=spec.shape,
                indexes=indexes + _leaving(table, indexes, facts),
                removed=False,
            )
        )
    planned.extend(
        msgspec.structs.replace(table, indexes=_leaving(table, [], facts), removed=True)
        for table in existing.values()
    )
    before = {handle.definition.name: handle.definition for handle in catalog.by_number.values()}
    changed = [table for table in planned if before.get(table.name) != table]
    return CatalogPlan(changed, Numbers(next_table, next_index))


def plan_abandon(catalog: Catalog, numbers: Numbers) -> CatalogPlan:
    """Return the rows that give up every index that is being built."""
    changed = []
    for handle in catalog.by_number.values():
        table = handle.definition
        indexes = [
            _in_state(index, "dropping") if index.state == "building" else index for index in table.indexes
        ]
        if indexes != table.indexes:
            changed.append(msgspec.structs.replace(table, indexes=indexes))
    return CatalogPlan(changed, numbers)


def _leaving(
    table: TableDefinition, staying: list[IndexDefinition], facts: CatalogFacts
) -> list[IndexDefinition]:
    """Return the indexes that no bundle needs any more and that still have entries."""
    numbers = {index.number for index in staying}
    return [
        _in_state(index, "dropping")
        for index in table.indexes
        if index.number not in numbers and not (index.state == "dropping" and facts.is_swept(index))
    ]


def _matches(table: TableDefinition, spec: TableSpec | None) -> list[IndexDefinition]:
    found = [_match(table, index) for index in spec.indexes] if spec else []
    return [index for index in found if index is not None]


def _match(table: TableDefinition, spec: IndexSpec) -> IndexDefinition | None:
    """Return the table's index, ready or being built, that is what the manifest asks for."""
    for index in table.indexes:
        if index == _definition(index.number, table.number, spec, index.state) and index.maintained:
            return index
    return None


def _definition(number: int, table: int, spec: IndexSpec, state: str) -> IndexDefinition:
    return IndexDefinition(
        number, table, spec.name, list(spec.fields), spec.unique, state, dict(spec.defaults)
    )


def _in_state(index: IndexDefinition, state: str) -> IndexDefinition:
    return msgspec.structs.replace(index, state=state)
