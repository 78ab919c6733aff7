"""Deploys: a bundle is checked, its tables and indexes made ready, and then it is switched on at one commit.

A deploy that fails at any step changes nothing that a call can see. One at a time.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwater.packing import BUNDLE_BYTES_MAX, bundle_hash, invalid_bundle
from headwater_protocol.errors import StorageError
from headwater_protocol.manifest import Manifest

if TYPE_CHECKING:
    from headwater_storage.engine import Engine

    from headwater_server.functions.calls import Calls
    from headwater_server.functions.pool import WorkerPool
    from headwater_server.observe.metrics import Metrics
    from headwater_server.switchboard import Switchboard

logger = logging.getLogger("headwater.deploys")


@dataclass(frozen=True, slots=True)
class Deployed:
    """What a deploy did.

    Attributes:
        bundle: Hash of the bundle that is active now.
        functions: How many functions it has.
        tables: How many tables it has.
        changed: False when it was the active one already.
    """

    bundle: str
    functions: int
    tables: int
    changed: bool


class Deploys:
    """Brings bundles into service."""

    def __init__(
        self, engine: Engine, pool: WorkerPool, calls: Calls, switchboard: Switchboard, metrics: Metrics
    ) -> None:
        self._engine = engine
        self._pool = pool
        self._calls = calls
        self._switchboard = switchboard
        self._metrics = metrics
        self._one_at_a_time = asyncio.Lock()

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
        self._switch(await self._pool.prepare(bundle), manifest)

    async def deploy(self, bundle: bytes) -> Deployed:
        """Make a bundle the active one.

        Raises:
            RequestError: `invalid_bundle`, with what was wrong; nothing has changed.
        """
        if len(bundle) > BUNDLE_BYTES_MAX:
            raise invalid_bundle(f"the bundle has {len(bundle)} bytes; the limit is {BUNDLE_BYTES_MAX}")
        async with self._one_at_a_time:
            try:
                done = await self._deploy(bundle)
            except BaseException:
                self._metrics.deploys.labels("failed").inc()
                raise
            self._metrics.deploys.labels("changed" if done.changed else "unchanged").inc()
            return done

    async def _deploy(self, bundle: bytes) -> Deployed:
        name = bundle_hash(bundle)
        manifest = self._calls.manifest
        if manifest is not None and name == self._pool.active_bundle == self._engine.active_bundle():
            return Deployed(name, len(manifest.functions), len(manifest.tables), changed=False)
        manifest = await self._load(bundle)
        await self._pool.prepare(bundle)
        try:
            self._switchboard.switch_bundle = lambda: self._switch(name, manifest)
            await self._engine.deploy(manifest.tables, name, bundle)
            if self._pool.active_bundle != name:
                # The database had it as its active bundle, and it could not be restored at the start:
                # there was no commit that switched it on.
                self._switch(name, manifest)
        except BaseException:
            self._pool.discard(name)
            raise
        finally:
            self._switchboard.switch_bundle = None
        logger.info("deployed", extra={"fields": {"bundle": name, "functions": len(manifest.functions)}})
        return Deployed(name, len(manifest.functions), len(manifest.tables), changed=True)

    async def _load(self, bundle: bytes) -> Manifest:
        return Manifest.from_json(await self._pool.describe(bundle))

    def _switch(self, name: str, manifest: Manifest) -> None:
        """Send calls to a prepared bundle; in a deploy, called in the step that publishes the commit."""
        self._pool.activate(name)
        self._calls.manifest = manifest
