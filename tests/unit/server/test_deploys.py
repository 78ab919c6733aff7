"""Deploys with a pool and an engine that do as they are told: what serves must be what was answered."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from headwater.packing import bundle_hash
from headwater_protocol.errors import RequestError
from headwater_protocol.manifest import FunctionManifest, Manifest, ProviderManifest
from headwater_server.functions.deploys import Deploys
from headwater_server.observe.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Callable

ONE, TWO = b"one", b"two"
PROVIDER = ProviderManifest("oidc", "https://id.example", "app", "", ("RS256",))
KEYLESS = ProviderManifest("jwt", "own", "", '{"keys":[{"kty":"EC","crv":"P-192"}]}', ("RS256",))


@dataclass
class Pool:
    """Prepares and activates; fails in the step that is named."""

    failing: str = ""
    active_bundle: str | None = None
    prepared: list[str] = field(default_factory=list)
    manifests: dict[bytes, Manifest] = field(default_factory=dict)

    async def ask(self, *asked: Any) -> None:
        """There are none."""

    async def describe(self, bundle: bytes) -> bytes:
        self._fail("describe")
        return self.manifests.get(bundle, Manifest()).to_json()

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
class ActionWorkers:
    """Notes which bundles it is to have workers for."""

    failing: bool = False
    prepared: list[str] = field(default_factory=list)
    active: str | None = None

    async def prepare(self, name: str, bundle: bytes) -> None:
        if self.failing:
            raise RequestError("the bundle does not load", code="invalid_bundle")
        self.prepared.append(name)

    def activate(self, name: str) -> None:
        self.active = name if name in self.prepared else None

    def discard(self, name: str) -> None:
        """What was not prepared is not there."""
        self.prepared = [one for one in self.prepared if one != name]


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

    def snapshot(self) -> Any:
        raise AssertionError("there is nothing to look at")

    async def deploy(
        self, tables: Any, name: str, bundle: bytes, deployer: str, checks: Any, crons: Any
    ) -> None:
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
        self.actions = ActionWorkers()
        self.calls: Any = SimpleNamespace(manifest=None)
        self.providers: list[Any] = []
        make: Callable[..., Deploys] = Deploys
        self.deploys = make(
            self.engine,
            self.pool,
            self.actions,
            self.calls,
            self.switchboard,
            Metrics(),
            lambda manifest: self.providers.append(manifest.providers),
            lambda: 0.0,
        )


def with_action() -> Manifest:
    return Manifest(functions=(FunctionManifest("m:act", "action", False, {}, {}),))


async def test_only_a_bundle_with_actions_has_workers_for_them() -> None:
    world = World(None)
    world.pool.manifests = {TWO: with_action()}
    await world.deploys.deploy(ONE)
    assert (world.actions.prepared, world.actions.active) == ([], None)
    await world.deploys.deploy(TWO)
    assert world.actions.active == bundle_hash(TWO)


async def test_a_bundle_whose_action_workers_do_not_come_up_is_not_deployed() -> None:
    world = World(None)
    world.pool.manifests = {TWO: with_action()}
    await world.deploys.deploy(ONE)
    world.actions.failing = True
    with pytest.raises(RequestError):
        await world.deploys.deploy(TWO)
    assert world.pool.active_bundle == bundle_hash(ONE)
    assert not world.pool.prepared


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


async def test_providers_change_with_the_bundle_that_declares_them() -> None:
    world = World(ONE)
    world.pool.manifests = {ONE: Manifest(providers=(PROVIDER,))}
    await world.deploys.restore()
    assert world.providers == [(PROVIDER,)]
    await world.deploys.try_out(TWO)
    world.pool.failing = "prepare"
    with pytest.raises(RequestError):
        await world.deploys.deploy(TWO)
    assert world.providers == [(PROVIDER,)]
    world.pool.failing = ""
    await world.deploys.deploy(TWO)
    await world.deploys.deploy(ONE)
    assert world.providers == [(PROVIDER,), (), (PROVIDER,)]


async def test_declared_keys_that_cannot_be_used_are_refused_by_dry_run_and_deploy() -> None:
    world = World(ONE)
    world.pool.manifests = {TWO: Manifest(providers=(KEYLESS,))}
    for deploy in (world.deploys.try_out, world.deploys.deploy):
        with pytest.raises(RequestError, match="jwks: key 0: its curve or alg is not taken") as caught:
            await deploy(TWO)
        assert caught.value.code == "invalid_bundle"
    assert world.engine.active == bundle_hash(ONE)
