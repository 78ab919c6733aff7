"""What a deploy changes of what a deployment declares: the difference of two manifests.

Pure. The server tells it with each deploy and each dry run, the command line shows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headwater_protocol.cron_manifest import CronManifest
    from headwater_protocol.manifest import (
        FunctionManifest,
        Manifest,
        ProviderManifest,
        TableManifest,
        VariableManifest,
    )
    from headwater_protocol.route_manifest import RouteManifest


@dataclass(frozen=True, slots=True)
class Change:
    """One difference.

    Attributes:
        sign: `added`, `removed` or `changed`.
        what: `function`, `table`, `index`, `provider`, `route`, `cron` or `variable`.
        name: Of the function, table, provider, cron or variable; `table.index` of an index; method and path of a route.
        details: What of it has changed, for people: `arguments`, `result`, `documents` and the like.
    """

    sign: Literal["added", "removed", "changed"]
    what: Literal["function", "table", "index", "provider", "route", "cron", "variable"]
    name: str
    details: tuple[str, ...] = ()


def changes_between(before: Manifest, after: Manifest) -> list[Change]:
    """Return the differences, tables first, each kind by name. What only documentation changes is none."""
    return [
        *_tables(
            {table.name: table for table in before.tables}, {table.name: table for table in after.tables}
        ),
        *_functions(
            {item.name: item for item in before.functions}, {item.name: item for item in after.functions}
        ),
        *_providers(
            {item.name: item for item in before.providers}, {item.name: item for item in after.providers}
        ),
        *_routes({item.label: item for item in before.routes}, {item.label: item for item in after.routes}),
        *_crons({item.name: item for item in before.crons}, {item.name: item for item in after.crons}),
        *_variables(
            {item.name: item for item in before.variables}, {item.name: item for item in after.variables}
        ),
    ]


def _tables(before: Mapping[str, TableManifest], after: Mapping[str, TableManifest]) -> list[Change]:
    found: list[Change] = []
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old is None:
            found.append(Change("added", "table", name))
        elif new is None:
            found.append(Change("removed", "table", name, ("its documents are kept",)))
        elif old.shape != new.shape:
            found.append(Change("changed", "table", name, ("documents",)))
        if new is not None:
            found += _indexes(name, old, new)
    return found


def _indexes(table: str, old: TableManifest | None, new: TableManifest) -> list[Change]:
    before = {index.name: index for index in old.indexes} if old else {}
    after = {index.name: index for index in new.indexes}
    found: list[Change] = []
    for name in sorted(before.keys() | after.keys()):
        was, will = before.get(name), after.get(name)
        label = f"{table}.{name}"
        if was is None and will is not None:
            found.append(Change("added", "index", label))
        elif will is None:
            found.append(Change("removed", "index", label))
        elif was is not None and was != will:
            details = tuple(
                word for word in ("fields", "unique", "defaults") if getattr(was, word) != getattr(will, word)
            )
            found.append(Change("changed", "index", label, details))
    return found


def _functions(before: Mapping[str, FunctionManifest], after: Mapping[str, FunctionManifest]) -> list[Change]:
    found: list[Change] = []
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old is None:
            found.append(Change("added", "function", name))
        elif new is None:
            found.append(Change("removed", "function", name))
        else:
            details = _function_details(old, new)
            if details:
                found.append(Change("changed", "function", name, details))
    return found


def _function_details(old: FunctionManifest, new: FunctionManifest) -> tuple[str, ...]:
    found = []
    if old.kind != new.kind:
        found.append(f"{old.kind} becomes {new.kind}")
    if old.internal != new.internal:
        found.append("becomes internal" if new.internal else "becomes public")
    if old.arguments != new.arguments:
        found.append("arguments")
    if old.returns != new.returns:
        found.append("result")
    if old.stream != new.stream:
        found.append("streams" if new.stream else "streams no more")
    return tuple(found)


def _providers(before: Mapping[str, ProviderManifest], after: Mapping[str, ProviderManifest]) -> list[Change]:
    found: list[Change] = []
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old is None:
            found.append(Change("added", "provider", name))
        elif new is None:
            found.append(Change("removed", "provider", name))
        elif old != new:
            found.append(Change("changed", "provider", name, _provider_details(old, new)))
    return found


def _provider_details(old: ProviderManifest, new: ProviderManifest) -> tuple[str, ...]:
    return (
        ("keys",) * ((old.kind, old.keys) != (new.kind, new.keys))
        + ("algorithms",) * (old.algorithms != new.algorithms)
        + ("authorized parties",) * (old.authorized_parties != new.authorized_parties)
    )


def _routes(before: Mapping[str, RouteManifest], after: Mapping[str, RouteManifest]) -> list[Change]:
    found: list[Change] = []
    for label in sorted(before.keys() | after.keys()):
        old, new = before.get(label), after.get(label)
        if old is None:
            found.append(Change("added", "route", label))
        elif new is None:
            found.append(Change("removed", "route", label))
        elif details := _route_details(old, new):
            found.append(Change("changed", "route", label, details))
    return found


def _route_details(old: RouteManifest, new: RouteManifest) -> tuple[str, ...]:
    return (
        (f"answered by {new.name}",) * (old.name != new.name)
        + ("parameters",) * (old.parameters != new.parameters)
        + ("which pages may read it",) * (old.cors != new.cors)
    )


def _crons(before: Mapping[str, CronManifest], after: Mapping[str, CronManifest]) -> list[Change]:
    found: list[Change] = []
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old is None:
            found.append(Change("added", "cron", name))
        elif new is None:
            found.append(Change("removed", "cron", name))
        elif old != new:
            told = {
                "schedule": (old.schedule, old.time_zone) != (new.schedule, new.time_zone),
                "function": (old.function, old.kind) != (new.function, new.kind),
                "arguments": old.arguments != new.arguments,
            }
            found.append(
                Change("changed", "cron", name, tuple(word for word, differs in told.items() if differs))
            )
    return found


def _variables(before: Mapping[str, VariableManifest], after: Mapping[str, VariableManifest]) -> list[Change]:
    found: list[Change] = []
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if new is None:
            found.append(Change("removed", "variable", name, ("its value is kept",)))
        elif old is None:
            found.append(
                Change(
                    "added", "variable", name, (new.kind, "must be set" if new.required else "has a default")
                )
            )
        elif old != new:
            details = (new.kind,) * (old.kind != new.kind) + (
                "must be set" if new.required else "has a default",
            ) * (old.required != new.required)
            found.append(Change("changed", "variable", name, details))
    return found
