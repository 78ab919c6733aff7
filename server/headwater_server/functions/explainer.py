"""Tells a developer what a call costs and how fresh its result is kept: what it reads, and what made it stale."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec
from headwater_protocol.errors import RequestError, error_for
from headwater_storage.key_text import key_place, range_place, table_of

from headwater_server.functions.work import ExplainWork, Work
from headwater_server.worker.messages import CallExplained, Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from headwater_storage.catalog import Catalog
    from headwater_storage.explained import ReadCost

    from headwater_server.functions.mutations import Publication
    from headwater_server.observe.conflicts import ConflictCounts
    from headwater_server.reactive.core import ReactiveCore
    from headwater_server.reactive.sessions import QueryKey

_KEYS_AT_ONCE = 1_000
_BY_ID_SHOWN = 3
_decode = msgspec.msgpack.Decoder().decode


class Runner(Protocol):
    """What runs calls: the worker pool."""

    def submit(self, work: Work) -> None:
        """Send a call to a worker, or let it wait for one."""


class Explainer:
    """Runs calls to explain them, and looks up what is remembered of others like them.

    Args:
        runner: Runs them.
        publication: Knows what is published.
        core: Has the live queries.
        conflicts: Counts those of mutations.
        catalog: Returns the tables of now.
    """

    def __init__(
        self,
        runner: Runner,
        publication: Publication,
        core: ReactiveCore,
        conflicts: ConflictCounts,
        catalog: Callable[[], Catalog],
    ) -> None:
        self._runner = runner
        self._publication = publication
        self._core = core
        self._conflicts = conflicts
        self._catalog = catalog

    async def explain(
        self, kind: Literal["query", "mutation"], name: str, arguments: bytes, identity: bytes | None
    ) -> dict[str, Any]:
        """Run a query or mutation, commit nothing, and tell what it has read and would have written.

        Raises:
            HeadwaterError: It was ended by a limit, or could not be run. What it raised itself is told.
        """
        done = await self._run(kind, name, arguments, identity)
        return self._told(done)

    async def live(
        self, name: str, arguments: bytes, identity: bytes | None, after: int = 0
    ) -> dict[str, Any]:
        """Tell how the live queries of a function and these arguments get on.

        Args:
            name: Function.
            arguments: Encoded map; in whichever order its keys are.
            identity: Of whom asks: whether there is a result that they would be shown.
            after: Only causes after the one of this number.
        """
        keys = await self._live_keys(name, arguments)
        report = self._core.live.report(keys, identity, self._core.published_ts, after)
        catalog = self._catalog()
        told = report._asdict()
        told["causes"] = [
            {
                "number": cause.number,
                "ts": cause.ts,
                "function": cause.function,
                **asdict(key_place(catalog, cause.key)),
            }
            for cause in report.causes
        ]
        return told

    def conflicts(self, function: str = "") -> list[dict[str, Any]]:
        """Tell which mutations have lost to which others, the most frequent first; of one function if it is said."""
        return [{**lost._asdict(), "count": count} for lost, count in self._conflicts.of(function)]

    async def _run(
        self, kind: Literal["query", "mutation"], name: str, arguments: bytes, identity: bytes | None
    ) -> CallExplained:
        future: asyncio.Future[CallExplained | Failure] = asyncio.get_running_loop().create_future()

        def done(told: CallExplained | Failure) -> None:
            if not future.done():
                future.set_result(told)

        self._runner.submit(ExplainWork(kind, name, arguments, identity, done))
        told = await future
        if isinstance(told, Failure):
            raise error_for(told.code, told.message)
        published = asyncio.Event()
        self._publication.when_published(told.ts, published.set)
        await published.wait()
        return told

    async def _live_keys(self, name: str, arguments: bytes) -> list[QueryKey]:
        """Return the live queries of a function whose arguments are equal, in parts, so that nobody waits for it."""
        wanted = _plain(arguments)
        found = []
        for place, key in enumerate(list(self._core.live.by_key)):
            if key.name == name and (key.arguments == arguments or _plain(key.arguments) == wanted):
                found.append(key)
            if place % _KEYS_AT_ONCE == _KEYS_AT_ONCE - 1:
                await asyncio.sleep(0)
        return found

    def _told(self, done: CallExplained) -> dict[str, Any]:
        explained, usage, failure = done.explained, done.usage, done.failure
        return {
            "ts": done.ts,
            "outcome": "success" if failure is None else failure.code,
            "error": "" if failure is None else failure.message,
            "duration_ms": usage.duration_us / 1000,
            "documents_read": usage.documents_read,
            "bytes_read": usage.bytes_read,
            "result_bytes": explained.result_bytes,
            "reads": _reads(self._catalog(), explained.reads),
            "more_reads": explained.more_reads,
            "variables": explained.variables,
            "identity_read": explained.identity_read,
            "clock_read": explained.clock_read,
            "writes": [
                {"table": cost.table, "deed": cost.deed, "documents": cost.documents, "bytes": cost.size}
                for cost in explained.writes
            ],
            "jobs": explained.jobs,
        }


def explainable(kind: str, name: str) -> Literal["query", "mutation"]:
    """Return the kind of a function that can be explained.

    Raises:
        RequestError: It is an action.
    """
    if kind == "query":
        return "query"
    if kind == "mutation":
        return "mutation"
    raise RequestError(
        f"{name} is an action: it reads and writes through the queries and mutations that it calls. Explain those;"
        f" `headwater logs --function {name}` shows the action's own runs, and what each call of it cost"
    )


def _reads(catalog: Catalog, costs: Iterable[ReadCost]) -> list[dict[str, Any]]:
    """Return what was read, with ranges as people write them; of many documents by their ids only how many."""
    rows = []
    by_id: dict[str, list[ReadCost]] = defaultdict(list)
    for cost in costs:
        if cost.hi:
            rows.append(_row(asdict(range_place(catalog, cost.lo, cost.hi)), cost))
        else:
            by_id[table_of(catalog, cost.lo)].append(cost)
    for table, gets in by_id.items():
        if len(gets) <= _BY_ID_SHOWN:
            rows += [_row(asdict(key_place(catalog, cost.lo)), cost) for cost in gets]
            continue
        total = gets[0]._replace(
            documents=sum(cost.documents for cost in gets), size=sum(cost.size for cost in gets)
        )
        rows.append(_row({"table": table, "index": None, "text": f"{len(gets)} documents by id"}, total))
    return rows


def _row(place: dict[str, Any], cost: ReadCost) -> dict[str, Any]:
    return place | {"times": cost.times, "documents": cost.documents, "bytes": cost.size}


def _plain(arguments: bytes) -> Any:
    try:
        return _decode(arguments)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return arguments
