"""What the deployment's key opens: deploys, what is deployed, why a token is refused, and the key itself. Also version, health and metrics, which are open."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING, Protocol

from aiohttp import web
from headwater.packing import BUNDLE_BYTES_MAX, invalid_bundle
from headwater_protocol.errors import RequestError, TransientError
from headwater_protocol.manifest import Manifest

from headwater_server.identity.refusal import RefusedTokenError
from headwater_server.net.http_api import Bodies, json_response
from headwater_server.net.keys import AdminKeys, Right, bearer_key

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from headwater_storage.engine import PastDeploy

    from headwater_server.functions.deploy_progress import DeployProgress
    from headwater_server.functions.deploys import Deployed
    from headwater_server.identity.claims import VerifiedToken
    from headwater_server.observe.metrics import Metrics


class Deploys(Protocol):
    """What brings bundles into service."""

    @property
    def manifest(self) -> Manifest | None:
        """What the active bundle declares; None before the first deploy."""

    async def deploy(self, bundle: bytes, deployer: str = "") -> Deployed:
        """Make a bundle the active one."""

    async def try_out(self, bundle: bytes) -> Deployed:
        """Tell what a deploy would change."""

    async def go_back(self, name: str = "", deployer: str = "") -> Deployed:
        """Make an earlier bundle the active one again."""

    def progress(self) -> DeployProgress | None:
        """Return how far the deploy is that goes on."""

    def past(self) -> list[PastDeploy]:
        """Return the deploys that are remembered, the newest first."""


_DEPLOYER_CHARACTERS_MAX = 200


class AdminApi:
    """The routes; `add_to` puts them into an aiohttp application.

    Args:
        deploys: For deploys, rollbacks, what was deployed, and the manifest.
        keys: Who may.
        rotate_key: Makes a new key, makes it the valid one durably, and returns it.
        explain_token: Returns who a token is from, or raises RefusedTokenError.
        published_ts: For `/health`.
        metrics: For `/metrics`.
        bodies: Reads bundles.

    Attributes:
        stopping: Nothing is begun any more.
        running: How many deploys and changes of the key are not over.
    """

    def __init__(
        self,
        deploys: Deploys,
        keys: AdminKeys,
        rotate_key: Callable[[], Awaitable[str]],
        explain_token: Callable[[str], Awaitable[VerifiedToken]],
        published_ts: Callable[[], int],
        metrics: Metrics,
        bodies: Bodies,
    ) -> None:
        self._deploys = deploys
        self._keys = keys
        self._rotate_key = rotate_key
        self._explain_token = explain_token
        self._published_ts = published_ts
        self._metrics = metrics
        self._bodies = bodies
        self._version = version("headwater")
        self.stopping = False
        self.running = 0

    def add_to(self, app: web.Application) -> None:
        """Add the routes."""
        app.router.add_post("/api/admin/deploy", self._deploy)
        app.router.add_get("/api/admin/deploys", self._get_past)
        app.router.add_get("/api/admin/progress", self._get_progress)
        app.router.add_post("/api/admin/rollback", self._go_back)
        app.router.add_get("/api/admin/manifest", self._get_manifest)
        app.router.add_post("/api/admin/rotate-key", self._rotate)
        app.router.add_post("/api/admin/check-token", self._check_token)
        app.router.add_get("/version", self._get_version)
        app.router.add_get("/instance_version", self._get_version)
        app.router.add_get("/instance_name", self._get_name)
        app.router.add_get("/health", self._get_health)
        app.router.add_get("/metrics", self._get_metrics)

    async def _deploy(self, request: web.Request) -> web.Response:
        self._keys.require(bearer_key(request), Right.DEPLOY)
        asked = request.query.get("dry_run", "false")
        if asked not in ("true", "false"):
            raise RequestError(f"`dry_run` is true or false, not {asked[:100]!r}")
        dry_run = asked == "true"
        # A bundle has a limit of its own: that of messages may be smaller.
        wide = request.clone(client_max_size=BUNDLE_BYTES_MAX)
        try:
            bundle = await self._bodies.read(wide)
        except web.HTTPRequestEntityTooLarge:
            raise invalid_bundle(f"the bundle is larger than the limit of {BUNDLE_BYTES_MAX} bytes") from None
        with self.begun():
            if dry_run:
                return _told(await self._deploys.try_out(bundle))
            return _told(await self._deploys.deploy(bundle, _deployer(request)))

    async def _go_back(self, request: web.Request) -> web.Response:
        self._keys.require(bearer_key(request), Right.DEPLOY)
        with self.begun():
            return _told(await self._deploys.go_back(request.query.get("bundle", ""), _deployer(request)))

    async def _get_progress(self, request: web.Request) -> web.Response:
        self._keys.require(bearer_key(request), Right.DESCRIBE)
        progress = self._deploys.progress()
        steps = [asdict(step) for step in progress.steps] if progress else []
        bundle = progress.bundle if progress else None
        return json_response({"status": "success", "bundle": bundle, "steps": steps})

    async def _get_past(self, request: web.Request) -> web.Response:
        self._keys.require(bearer_key(request), Right.DESCRIBE)
        past = [
            {
                "number": record.number,
                "bundle": record.bundle,
                "deployed_ms": record.deployed_us / 1000,
                "deployer": record.deployer,
                "kept": is_kept,
            }
            for record, is_kept in self._deploys.past()
        ]
        return json_response({"status": "success", "deploys": past})

    async def _get_manifest(self, request: web.Request) -> web.Response:
        self._keys.require(bearer_key(request), Right.DESCRIBE)
        manifest = self._deploys.manifest or Manifest()
        return json_response({"status": "success", "manifest": json.loads(manifest.to_json())})

    async def _rotate(self, request: web.Request) -> web.Response:
        self._keys.require(bearer_key(request), Right.ADMINISTER)
        with self.begun():
            return json_response({"status": "success", "key": await self._rotate_key()})

    async def _check_token(self, request: web.Request) -> web.Response:
        """Tell a developer what clients are never told."""
        self._keys.require(bearer_key(request), Right.DESCRIBE)
        token = (await self._bodies.read(request)).decode(errors="replace").strip()
        try:
            verified = await self._explain_token(token)
        except RefusedTokenError as refusal:
            told = {"accepted": False, "reason": refusal.reason, "may_pass_later": refusal.may_pass_later}
        else:
            told = {
                "accepted": True,
                "token_identifier": verified.token_identifier,
                "expires_ms": verified.expires_at_s * 1000,
            }
        return json_response({"status": "success", **told})

    @contextmanager
    def begun(self) -> Iterator[None]:
        """Do something that a stop waits for."""
        if self.stopping:
            raise TransientError("the server is stopping; try again in a moment")
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1

    async def _get_version(self, request: web.Request) -> web.Response:
        return web.Response(text=self._version)

    async def _get_name(self, request: web.Request) -> web.Response:
        """What Convex's tools ask of a server that one runs oneself."""
        return web.Response(text="headwater")

    async def _get_health(self, request: web.Request) -> web.Response:
        if self.stopping:
            return json_response({"status": "stopping"}, 503)
        return json_response({"status": "ready", "version": self._version, "ts": self._published_ts()})

    async def _get_metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=self._metrics.text(), headers={"Content-Type": "text/plain; version=0.0.4"})


def _told(done: Deployed) -> web.Response:
    return json_response(
        {
            "status": "success",
            "bundle": done.bundle,
            "functions": done.functions,
            "tables": done.tables,
            "changed": done.changed,
            "changes": [asdict(change) for change in done.changes],
        }
    )


def _deployer(request: web.Request) -> str:
    """Return who deploys, as the request says; it is kept for people and decides nothing."""
    text = request.query.get("deployer", "")[:_DEPLOYER_CHARACTERS_MAX]
    return "".join(character for character in text if character.isprintable())
