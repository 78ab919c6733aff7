from dataclasses import dataclass, field

import pytest
from headwater_protocol.errors import RequestError
from headwater_storage.catalog import Catalog, Numbers, TableDefinition
from headwater_storage.catalog_plan import (
    CatalogPlan,
    IndexesIncompleteError,
    TableSpec,
    check_specs,
    plan_abandon,
    plan_building,
    plan_switch,
)
from headwater_storage.indexes import IndexDefinition


@dataclass
class Index:
    name: str
    fields: list[str]
    unique: bool = False
    defaults: dict[str, bytes] = field(default_factory=dict)


@dataclass
class Table:
    name: str
    indexes: list[Index] = field(default_factory=list)
    shape: str = "{}"


class Facts:
    """Answers from sets of numbers."""

    def __init__(self, *, empty: set[int] = frozenset(), done: set[int] = frozenset()) -> None:  # type: ignore[assignment]
        self.empty = empty
        self.done = done

    def is_empty(self, table: TableDefinition) -> bool:
        return table.number in self.empty

    def is_built(self, index: IndexDefinition) -> bool:
        return index.number in self.done

    def is_swept(self, index: IndexDefinition) -> bool:
        return index.number in self.done


class World:
    """A catalog that plans are carried out on."""

    def __init__(self) -> None:
        self.catalog = Catalog([])
        self.numbers = Numbers()

    def take(self, plan: CatalogPlan) -> list[TableDefinition]:
        self.catalog = self.catalog.replaced(plan.tables)
        self.numbers = plan.numbers
        return plan.tables

    def switch(self, *specs: TableSpec, facts: Facts | None = None) -> list[TableDefinition]:
        return self.take(plan_switch(self.catalog, self.numbers, specs, facts or Facts()))

    def build(self, *specs: TableSpec, facts: Facts | None = None) -> list[TableDefinition]:
        return self.take(plan_building(self.catalog, self.numbers, specs, facts or Facts()))

    def states(self, table: str) -> dict[str, list[str]]:
        states: dict[str, list[str]] = {}
        for handle in self.catalog.by_number.values():
            if handle.definition.name == table:
                for index in handle.definition.indexes:
                    states.setdefault(index.name, []).append(index.state)
        return states


BY_A, BY_B = Index("by_a", ["a"]), Index("by_b", ["b"])


def test_new_tables_and_their_indexes_are_ready_at_once() -> None:
    world = World()
    world.switch(Table("x", [BY_A, BY_B]), Table("y", [BY_A]))
    assert [handle.definition.number for handle in world.catalog.by_name.values()] == [32, 33]
    assert world.states("x") == {"by_a": ["ready"], "by_b": ["ready"]}
    assert sorted(world.catalog.indexes) == [1, 2, 3]
    assert world.numbers == Numbers(34, 4)
    assert world.switch(Table("x", [BY_A, BY_B]), Table("y", [BY_A])) == []


def test_an_index_on_documents_is_built_before_the_switch() -> None:
    world = World()
    world.switch(Table("x"))
    with pytest.raises(IndexesIncompleteError):
        world.switch(Table("x", [BY_A]))
    world.build(Table("x", [BY_A]))
    assert world.states("x") == {"by_a": ["building"]}
    assert world.build(Table("x", [BY_A])) == []
    with pytest.raises(IndexesIncompleteError):
        world.switch(Table("x", [BY_A]))
    world.switch(Table("x", [BY_A]), facts=Facts(done={1}))
    assert world.states("x") == {"by_a": ["ready"]}


def test_an_empty_table_needs_no_building() -> None:
    world = World()
    world.switch(Table("x"))
    assert world.build(Table("x", [BY_A]), facts=Facts(empty={32})) == []
    world.switch(Table("x", [BY_A]), facts=Facts(empty={32}))
    assert world.states("x") == {"by_a": ["ready"]}


def test_a_changed_index_stands_beside_the_old_one_until_the_switch() -> None:
    world = World()
    world.switch(Table("x", [BY_A]))
    unique = Index("by_a", ["a"], unique=True)
    world.build(Table("x", [unique]))
    assert world.states("x") == {"by_a": ["ready", "building"]}
    assert world.catalog.by_name["x"].ready["by_a"].number == 1
    world.switch(Table("x", [unique]), facts=Facts(done={2}))
    assert world.catalog.by_name["x"].ready["by_a"].number == 2
    assert world.states("x") == {"by_a": ["ready", "dropping"]}
    world.switch(Table("x", [unique]), facts=Facts(done={1}))
    assert world.states("x") == {"by_a": ["ready"]}
    assert world.numbers.next_index == 3


def test_removed_tables_keep_their_row_and_come_back() -> None:
    world = World()
    world.switch(Table("x", [BY_A]), Table("y"))
    world.switch(Table("y"))
    assert set(world.catalog.by_name) == {"y"}
    assert world.states("x") == {"by_a": ["dropping"]}
    world.build(Table("x", [BY_A]), Table("y"))
    world.switch(Table("x", [BY_A]), Table("y"), facts=Facts(done={1, 2}))
    assert world.catalog.by_name["x"].definition.number == 32
    assert world.states("x") == {"by_a": ["ready"]}


def test_another_schema_is_another_shape() -> None:
    world = World()
    world.switch(Table("x", shape="one"))
    assert world.catalog.by_name["x"].shape == 1
    world.switch(Table("x", shape="two"))
    assert world.catalog.by_name["x"].shape == 2
    world.switch(Table("x", shape="two"))
    assert world.catalog.by_name["x"].shape == 2


def test_what_an_abandoned_deploy_was_building_is_given_up() -> None:
    world = World()
    world.switch(Table("x"))
    world.build(Table("x", [BY_A, BY_B]))
    world.build(Table("x", [BY_B]))
    assert world.states("x") == {"by_a": ["dropping"], "by_b": ["building"]}
    world.take(plan_abandon(world.catalog, world.numbers))
    assert world.states("x") == {"by_a": ["dropping"], "by_b": ["dropping"]}


@pytest.mark.parametrize(
    "specs",
    [
        [Table("x"), Table("x")],
        [Table("")],
        [Table("_x")],
        [Table("x" * 201)],
        [Table("x", [BY_A, BY_A])],
        [Table("x", [Index("by_a", [])])],
    ],
)
def test_bad_manifests_are_refused(specs: list[Table]) -> None:
    with pytest.raises(RequestError) as failure:
        check_specs(specs)
    assert failure.value.code == "invalid_bundle"
