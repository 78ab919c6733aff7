"""Deploys with a pool and an engine that do as they are told: what serves must be what was answered."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from headwater.packing import bundle_hash
from headwater_protocol.errors import RequestError
from headwater_protocol.manifest import Manifest
from headwater_server.functions.deploys import Deploys
from headwater_server.observe.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Callable

ONE, TWO = b"one", b"two"
MANIFEST = Manifest().to_json()


@dataclass
class Pool:
    """Prepares and activates; fails in the step that is named."""

    failing: str = ""
    active_bundle: str | None = None
    prepared: list[str] = field(default_factory=list)

    async def check_documents(self, *asked: Any) -> None:
        """There are none."""

    async def describe(self, bundle: bytes) -> bytes:
        self._fail("describe")
        return MANIFEST

    async def prepare(self, bundle: bytes) -> str:
        self._fail("prepare")
        self.prepared.append(bundle_hash(bundle))
        return bundle_hash(bundle)

    def activate(self, name: str) -> None:
        assert name in self.prepared
        self.prepared.remove(name)
        self.active_bundle = name

    def discard(self, name: str) -> None:
        self.prepared.remove(name)

    def _fail(self, step: str) -> None:
        if self.failing == step:
            raise RequestError("the bundle does not load", code="invalid_bundle")


@dataclass
class Engine:
    """Keeps bundles; publishes a switch only if the active bundle becomes another one."""

    switchboard: Any
    bundles: dict[str, bytes] = field(default_factory=dict)
    active: str | None = None

    def active_bundle(self) -> str | None:
        return self.active

    def bundle(self, name: str) -> bytes | None:
        return self.bundles.get(name)

    def tables(self) -> list[Any]:
        return []

    async def deploy(self, tables: Any, name: str, bundle: bytes, deployer: str, checks: Any) -> None:
        if name != self.active:
            self.active, self.bundles[name] = name, bundle
            self.switchboard.switch_bundle()


class World:
    """One daemon's worth; `restarted` is the next one's."""

    def __init__(self, active: bytes | None) -> None:
        self.switchboard: Any = SimpleNamespace(switch_bundle=None, mutations=SimpleNamespace(hold_back=None))
        self.engine = Engine(self.switchboard)
        if active is not None:
            self.engine.active = bundle_hash(active)
            self.engine.bundles[bundle_hash(active)] = active
        self.pool = Pool()
        self.calls: Any = SimpleNamespace(manifest=None)
        make: Callable[..., Deploys] = Deploys
        self.deploys = make(self.engine, self.pool, self.calls, self.switchboard, Metrics())


async def test_a_deploy_serves_and_the_same_again_changes_nothing() -> None:
    world = World(None)
    await world.deploys.restore()
    assert (await world.deploys.deploy(ONE)).changed
    assert world.pool.active_bundle == bundle_hash(ONE)
    assert not (await world.deploys.deploy(ONE)).changed
    assert not world.pool.prepared


@pytest.mark.parametrize("failing", ["describe", "prepare"])
async def test_the_same_bundle_again_serves_after_it_could_not_be_restored(failing: str) -> None:
    world = World(ONE)
    world.pool.failing = failing
    with pytest.raises(RequestError):
        await world.deploys.restore()
    assert world.calls.manifest is None
    world.pool.failing = ""
    done = await world.deploys.deploy(ONE)
    assert world.pool.active_bundle == done.bundle == bundle_hash(ONE)
    assert done.changed
    assert world.calls.manifest is not None
    assert not (await world.deploys.deploy(ONE)).changed


async def test_a_deploy_that_fails_leaves_what_served() -> None:
    world = World(ONE)
    await world.deploys.restore()
    world.pool.failing = "prepare"
    with pytest.raises(RequestError):
        await world.deploys.deploy(TWO)
    assert world.pool.active_bundle == bundle_hash(ONE)
    assert not (await world.deploys.deploy(ONE)).changed
    world.pool.failing = ""
    assert (await world.deploys.deploy(TWO)).changed
    assert world.pool.active_bundle == bundle_hash(TWO)
