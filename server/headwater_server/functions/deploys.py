"""Deploys: a bundle is checked, its tables and indexes made ready, and then it is switched on at one commit.

A deploy that fails at any step changes nothing that a call can see. One at a time. Going back to an earlier
bundle is a deploy of what was kept of it.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from headwater.packing import BUNDLE_BYTES_MAX, bundle_hash, invalid_bundle
from headwater_protocol.errors import RequestError, StorageError
from headwater_protocol.manifest import Manifest
from headwater_protocol.manifest_changes import Change, changes_between

from headwater_server.functions.deploy_progress import DeployProgress
from headwater_server.functions.document_checks import TOUCHED_MAX, DocumentChecks, changed_tables
from headwater_server.functions.kept_checks import KeptCheck
from headwater_server.identity.key_sets import check_keys
from headwater_server.jobs.crons import cron_specs
from headwater_server.worker.messages import (
    CheckDocuments,
    CheckVariables,
    DocumentsChecked,
    VariablesChecked,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from headwater_storage.catalog import TableDefinition
    from headwater_storage.engine import Engine, PastDeploy

    from headwater_server.functions.action_pool import ActionPool
    from headwater_server.functions.calls import Calls
    from headwater_server.functions.pool import WorkerPool
    from headwater_server.observe.metrics import Metrics
    from headwater_server.switchboard import Switchboard

logger = logging.getLogger("headwater.deploys")

_HASH_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Deployed:
    """What a deploy did.

    Attributes:
        bundle: Hash of the bundle that is active now.
        functions: How many functions it has.
        tables: How many tables it has.
        changed: False when it was the active one already.
        changes: What is different from what was active before.
    """

    bundle: str
    functions: int
    tables: int
    changed: bool
    changes: Sequence[Change] = ()


class Deploys:
    """Brings bundles into service.

    Args:
        engine: The database, which keeps bundles.
        pool: Runs their queries and mutations.
        actions: Runs their actions.
        calls: Told of the manifest.
        switchboard: Told of what a deploy changes with its commit.
        metrics: Counted in.
        use_manifest: Told whose tokens are taken and which routes there are, in the step in which the bundle that
            says so becomes active.
        mono_s: Monotonic clock.

    Attributes:
        turn: Held while a deploy goes on: one at a time.
        after_switch: Called when another bundle has become the active one.
        install: Installs what a bundle requires, before it is loaded.
    """

    def __init__(
        self,
        engine: Engine,
        pool: WorkerPool,
        actions: ActionPool,
        calls: Calls,
        switchboard: Switchboard,
        metrics: Metrics,
        use_manifest: Callable[[Manifest], None],
        mono_s: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._pool = pool
        self._actions = actions
        self._calls = calls
        self._switchboard = switchboard
        self._metrics = metrics
        self._use_manifest = use_manifest
        self._mono_s = mono_s
        self._progress: DeployProgress | None = None
        self.turn = asyncio.Lock()
        self.after_switch: Callable[[], None] = lambda: None
        self.install: Callable[[bytes], Awaitable[None]] = _nothing

    @property
    def manifest(self) -> Manifest | None:
        """What the active bundle declares; None before the first deploy."""
        return self._calls.manifest

    async def restore(self) -> None:
        """Bring the active bundle of the database into service; nothing to do before the first deploy."""
        active = self._engine.active_bundle()
        if active is None:
            return
        bundle = self._engine.bundle(active)
        if bundle is None:
            raise StorageError(f"the active bundle {active} is not in the database; run `headwater doctor`")
        manifest = await self._load(bundle)
        self._switch(await self._prepare(bundle, manifest), manifest)

    async def deploy(self, bundle: bytes, deployer: str = "") -> Deployed:
        """Make a bundle the active one.

        Args:
            bundle: The archive.
            deployer: Who does it, as they say.

        Raises:
            RequestError: `invalid_bundle`, with what was wrong; nothing has changed. Also when a later deploy takes
                its place, while documents are checked or indexes built.
        """
        _check_size(bundle)
        name = bundle_hash(bundle)
        if self._progress is not None and self._progress.bundle != name:
            await self._load(bundle)  # what cannot be deployed takes nobody's place
            self._take_place(name)
        async with self.turn:
            return await self._counted(self._deploy(bundle, deployer))

    def progress(self) -> DeployProgress | None:
        """Return how far the deploy is that goes on, None if none does."""
        return self._progress

    def _take_place(self, bundle: str) -> None:
        """Have the deploy give up that goes on now, unless it is at its end."""
        if self._progress is not None:
            self._progress.supersede(bundle)

    async def try_out(self, bundle: bytes) -> Deployed:
        """Load a bundle, check documents against it, and tell what a deploy of it would change; nothing does.

        Raises:
            RequestError: `invalid_bundle`; `invalid_document`: there are some that do not fit it.
        """
        _check_size(bundle)
        name, manifest = bundle_hash(bundle), await self._load(bundle)
        told = self._told(name, manifest, changed=name != self._engine.active_bundle())
        async with self.turn:
            tables = changed_tables(self._engine.tables(), manifest)
            if tables or manifest.variables:
                await self._check_only(name, bundle, tables, manifest)
        return told

    async def _check_only(
        self, name: str, bundle: bytes, tables: list[TableDefinition], manifest: Manifest
    ) -> None:
        await self._pool.prepare(bundle)
        try:
            await self._check_variables(name, manifest)
            await self._checks(name, tables).catch_up()
        finally:
            self._progress = None
            self._pool.discard(name)

    def _checks(self, name: str, tables: list[TableDefinition]) -> DocumentChecks:
        """Return the checks of a deploy that begins now, with its progress."""
        names = {table.number: table.name for table in self._engine.tables()}
        self._progress = DeployProgress(name, names, self._engine.snapshot)
        return DocumentChecks(
            tables,
            partial(self._check_documents, name),
            self._switchboard.mutations.hold_back,
            KeptCheck(self._engine, name, self._mono_s, TOUCHED_MAX),
            self._progress,
        )

    def past(self) -> list[PastDeploy]:
        """Return the deploys that are remembered, the newest first."""
        return self._engine.deploys()

    async def go_back(self, name: str = "", deployer: str = "") -> Deployed:
        """Make an earlier bundle the active one again.

        Args:
            name: How its hash begins; empty: the one that was active before.
            deployer: Who does it, as they say.

        Raises:
            RequestError: There is none, it is not kept any more, or the name fits more than one;
                `invalid_bundle`, `unique_violation`: it does not fit what there is now.
        """
        self._take_place(self._kept_bundle(name))
        async with self.turn:
            found = self._kept_bundle(name)
            archive = self._engine.bundle(found)
            if archive is None:
                raise RequestError(f"the bundle {found[:_HASH_SHOWN]} is not kept any more")
            return await self._counted(self._deploy(archive, deployer))

    def _kept_bundle(self, name: str) -> str:
        active = self._engine.active_bundle()
        past = self._engine.deploys()
        if not name:
            found = next((one.record.bundle for one in past if one.record.bundle != active), None)
            found = found or next((one for one in self._engine.kept_bundles() if one != active), None)
            if found is None:
                raise RequestError("there is no bundle to go back to: no other was deployed before this one")
            return found
        fitting = {one.record.bundle for one in past if one.record.bundle.startswith(name)}
        if len(fitting) != 1:
            many = "more than one" if fitting else "none"
            raise RequestError(f"of the bundles that were deployed, {many} begins with {name[:100]!r}")
        return fitting.pop()

    async def _counted(self, deploying: Coroutine[Any, Any, Deployed]) -> Deployed:
        try:
            done = await deploying
        except BaseException:
            self._metrics.deploys.ended.labels("failed").inc()
            raise
        self._metrics.deploys.ended.labels("changed" if done.changed else "unchanged").inc()
        return done

    async def _deploy(self, bundle: bytes, deployer: str) -> Deployed:
        name = bundle_hash(bundle)
        manifest = self._calls.manifest
        if manifest is not None and name == self._pool.active_bundle == self._engine.active_bundle():
            return self._told(name, manifest, changed=False)
        manifest = await self._load(bundle)
        told = self._told(name, manifest, changed=True)
        await self._prepare(bundle, manifest)
        try:
            self._switchboard.switch_bundle = lambda: self._switch(name, manifest)
            tables = changed_tables(self._engine.tables(), manifest)
            variables = await self._check_variables(name, manifest)
            self._switchboard.document_checks = checks = self._checks(name, tables)
            checks.variables = variables
            crons = cron_specs(manifest)
            await self._engine.deploy(manifest.tables, name, bundle, deployer, checks, crons)
            if self._pool.active_bundle != name:
                # The database had it as its active bundle, and it could not be restored at the start:
                # there was no commit that switched it on.
                self._switch(name, manifest)
        except BaseException:
            self._pool.discard(name)
            self._actions.discard(name)
            raise
        finally:
            self._switchboard.switch_bundle = self._switchboard.document_checks = None
            self._progress = None
        logger.info("deployed", extra={"fields": {"bundle": name, "functions": len(manifest.functions)}})
        return told

    async def _check_variables(self, name: str, manifest: Manifest) -> dict[str, bytes | None]:
        """Return the rows of the variables that a prepared bundle reads.

        Raises:
            RequestError: `invalid_bundle`: some are missing or do not fit.
        """
        if not manifest.variables:
            return {}
        reply = await self._pool.ask(CheckVariables({}), name)
        assert isinstance(reply, VariablesChecked), "what was asked for"
        if reply.problems:
            raise invalid_bundle(
                "the bundle needs other environment variables; see `headwater env set`:"
                + "".join(f"\n  {text}" for text in reply.problems)
            )
        return reply.rows

    async def _check_documents(
        self, name: str, table: int, following: bytes, keys: Sequence[bytes]
    ) -> DocumentsChecked:
        reply = await self._pool.ask(CheckDocuments(table, following, list(keys)), name)
        assert isinstance(reply, DocumentsChecked), "what was asked for"
        self._metrics.deploys.documents_checked.inc(reply.looked_at)
        return reply

    def _told(self, name: str, manifest: Manifest, *, changed: bool) -> Deployed:
        changes = changes_between(self._calls.manifest or Manifest(), manifest)
        return Deployed(name, len(manifest.functions), len(manifest.tables), changed, changes)

    async def _load(self, bundle: bytes) -> Manifest:
        """Return what a bundle declares, as far as it can be used; what it requires is installed before."""
        await self.install(bundle)
        manifest = Manifest.from_json(await self._pool.describe(bundle))
        check_keys(manifest.providers)
        return manifest

    async def _prepare(self, bundle: bytes, manifest: Manifest) -> str:
        """Start all workers that a bundle needs, and return its hash."""
        name = await self._pool.prepare(bundle)
        if manifest.routes or any(function.kind == "action" for function in manifest.functions):
            try:
                await self._actions.prepare(name, bundle)
            except BaseException:
                self._pool.discard(name)
                raise
        return name

    def _switch(self, name: str, manifest: Manifest) -> None:
        """Send calls to a prepared bundle; in a deploy, called in the step that publishes the commit."""
        self._pool.activate(name)
        self._actions.activate(name)
        self._calls.manifest = manifest
        self._use_manifest(manifest)
        self.after_switch()


async def _nothing(_: bytes) -> None:
    """Install nothing."""


def _check_size(bundle: bytes) -> None:
    if len(bundle) > BUNDLE_BYTES_MAX:
        raise invalid_bundle(f"the bundle has {len(bundle)} bytes; the limit is {BUNDLE_BYTES_MAX}")
