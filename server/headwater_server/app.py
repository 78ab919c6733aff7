"""Composition root: the one module that names the concrete parts and knows the settings."""

from __future__ import annotations

import asyncio
import logging
import os
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING

from aiohttp import web
from headwater_protocol.errors import HeadwaterError, RequestError, TransientError
from headwater_storage.catalog import ACTIVE_BUNDLE_KEY, SYSTEM_HANDLES
from headwater_storage.engine import Engine
from headwater_storage.key_text import table_of

from headwater_server.functions.access_keys import AccessKeys
from headwater_server.functions.action_pool import ActionPool
from headwater_server.functions.actions import Actions
from headwater_server.functions.calls import Calls
from headwater_server.functions.deployment_key import DeploymentKey, KeyRow
from headwater_server.functions.deploys import Deploys
from headwater_server.functions.document_rewriter import DocumentRewriter
from headwater_server.functions.explainer import Explainer
from headwater_server.functions.failures import CallReporter
from headwater_server.functions.mutations import Mutations
from headwater_server.functions.pool import WorkerPool
from headwater_server.functions.request_trimmer import RequestTrimmer
from headwater_server.functions.requirements_installer import RequirementsInstaller
from headwater_server.functions.roster import Roster
from headwater_server.functions.table_browser import TableBrowser
from headwater_server.functions.timed_reads import TimedReads
from headwater_server.functions.variables import Variables
from headwater_server.identity.action_tokens import ActionTokens
from headwater_server.identity.fetcher import Fetcher, FetchOptions
from headwater_server.identity.own_issuer import OwnIssuer
from headwater_server.identity.sign_ins import SignIns
from headwater_server.identity.verifier import Clocks, Verifier
from headwater_server.jobs.crons import CronClock
from headwater_server.jobs.scheduler import JobScheduler
from headwater_server.net.admin_api import AdminApi
from headwater_server.net.admission import Admission
from headwater_server.net.convex_system import SystemFunctions
from headwater_server.net.convex_tools import ConvexTools
from headwater_server.net.data_api import DataApi
from headwater_server.net.environment_api import EnvironmentApi
from headwater_server.net.explain_api import ExplainApi
from headwater_server.net.http_admission import admission_middleware
from headwater_server.net.http_api import Bodies, HttpApi, cors_middleware, error_middleware
from headwater_server.net.hub import Hub
from headwater_server.net.issuer_api import IssuerApi
from headwater_server.net.key_api import KeyApi
from headwater_server.net.keys import AdminKeys
from headwater_server.net.listeners import Listeners
from headwater_server.net.log_api import LogApi
from headwater_server.net.route_api import PREFIX, RouteApi
from headwater_server.net.start_page import StartPage
from headwater_server.net.tcp import TcpShell
from headwater_server.net.tls import ServedCertificate, served_certificate
from headwater_server.net.trace_context import trace_middleware, with_calling_span
from headwater_server.net.websocket import WebSocketShell
from headwater_server.observe.call_destinations import make_destinations
from headwater_server.observe.call_log import CallLog, EventText
from headwater_server.observe.conflicts import ConflictCounts
from headwater_server.observe.metrics import Metrics
from headwater_server.observe.push_traces import PushTraces
from headwater_server.observe.sending import is_loopback
from headwater_server.observe.trace_sender import TraceSender
from headwater_server.observe.traces import Tracer
from headwater_server.options import (
    action_options,
    admission_limits,
    browse_limits,
    call_log_options,
    connection_limits,
    cron_options,
    destination_options,
    door_options,
    engine_options,
    environment_key_file,
    install_options,
    issuer_options,
    job_options,
    mutation_limits,
    pool_options,
    rewrite_options,
    route_limits,
    sign_in_limits,
    trim_options,
    variable_limits,
    verifier_options,
)
from headwater_server.reactive.core import ReactiveCore
from headwater_server.reactive.seam import ReactiveOptions
from headwater_server.sealing import SealKey
from headwater_server.switchboard import Switchboard
from headwater_server.worker.request_row import RequestMemory
from headwater_server.worker.requirements import PACKAGES_FOLDER

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from headwater_config.settings import Settings
    from headwater_protocol.manifest import Manifest
    from headwater_storage.catalog import Catalog
    from headwater_storage.environment import Environment
    from headwater_storage.proposal import Proposal

    from headwater_server.functions.limits import WorkerLimits
    from headwater_server.functions.roster import StartProcesses
    from headwater_server.observe.call_destinations import WebhookTarget
    from headwater_server.observe.trace_sender import TraceOptions
    from headwater_server.worker.messages import Failure, Request
    from headwater_server.worker.request_row import Answer

logger = logging.getLogger("headwater")

_ENGINE_STOP_S = 1.0


class Daemon:
    """Everything one daemon consists of.

    Args:
        settings: Checked settings.
        environment: Clock, randomness, files, threads.
        engine: An open database.
        start_processes: Starts what function workers come from.
        webhook: Where the log of calls is sent, None if nowhere.
        traces: How spans of calls are sent, None if they are not.
    """

    def __init__(
        self,
        settings: Settings,
        environment: Environment,
        engine: Engine,
        start_processes: StartProcesses,
        webhook: WebhookTarget | None = None,
        traces: TraceOptions | None = None,
    ) -> None:
        self.settings = settings
        self.engine = engine
        self.heartbeat_s = settings.heartbeat_s
        self.metrics = Metrics()
        self._environment = environment
        self._mono_s = environment.clock.mono_s
        reporter = self._make_call_log(webhook)
        options = pool_options(settings)
        roster = Roster(options, settings.data, start_processes, self._mono_s)
        self.pool = WorkerPool(options, roster, mono_s=self._mono_s, next_us=engine.next_us)
        self.switchboard = Switchboard(
            self.pool,
            reporter,
            self.metrics,
            clean_readers=engine.store.reader_check,
            after_publish=lambda: self.hub.frames.clear(),
        )
        self._make_entrance()
        core = _reactive_core(self.switchboard, engine, self._mono_s, settings)
        self.mutations = Mutations(
            self.pool,
            engine,
            self.switchboard,
            reporter,
            self.metrics,
            mutation_limits(settings),
            self._mono_s,
            lambda pause_s, action: asyncio.get_running_loop().call_later(pause_s, action),
            self._record_failure,
        )
        self.switchboard.core, self.switchboard.mutations = core, self.mutations
        engine.listener = self.switchboard
        engine.watch_oldest(self.switchboard.oldest_ts)
        engine.end_reader = self.pool.end_reader
        self.explainer = self._make_explainer(core)
        self._make_actions(options.worker, roster, reporter)
        self.hub: Hub = Hub(
            core,
            self.mutations,
            self.actions,
            engine.incarnation,
            self.metrics,
            connection_limits(settings),
            self._mono_s,
            self._history_ends,
            self.sign_ins,
            self.keys,
            self.admission,
            settings.delta_memory_bytes // 4,
        )
        self.trace_sender = None if traces is None else self._follow_calls(traces)
        self.trimmer = RequestTrimmer(engine, trim_options(settings), self.metrics)
        self._bodies = Bodies(settings.http_body_limit_s)
        self._make_administration()
        self._engine_task: asyncio.Task[None] | None = None
        self._listeners = Listeners(door_options(settings), self.admission)
        self._certificate: ServedCertificate | None = None  # from `listen` on, if there is one
        self.port = self.tcp_port = self.routes_port = 0

    def _make_entrance(self) -> None:
        """Make what says who somebody is, and lets them in."""
        settings, metrics = self.settings, self.metrics
        self.verifier = self._make_verifier()
        self.sign_ins = SignIns(
            self.verifier, sign_in_limits(settings), metrics.identity, self._mono_s, self._wall_s
        )
        self.keys = AdminKeys(b"")
        self.admission = Admission(admission_limits(settings), metrics.limits, self._mono_s)

    def _make_actions(self, transactions: WorkerLimits, roster: Roster, reporter: CallReporter) -> None:
        """Make what runs actions, in workers of the same zygote as the others, and what runs any call without a session."""
        self.action_pool = ActionPool(
            action_options(self.settings, transactions),
            roster,
            self._mono_s,
            self._table_names,
            lambda: self.variables.rows(),
        )
        self.actions = Actions(
            self.action_pool,
            self.pool,
            self.mutations,
            self.switchboard,
            reporter,
            self.metrics,
            self._mono_s,
        )
        self.route_api = RouteApi(
            self.actions,
            self.sign_ins,
            self.verifier.concerns,
            self.admission,
            route_limits(self.settings),
            self.metrics.routes,
            self._mono_s,
        )
        self.timed_reads = TimedReads(self.engine.window, lambda: self.engine.published_ts, self._mono_s)
        self.switchboard.handed_out = self.timed_reads.oldest_ts
        self.calls = Calls(
            self.pool,
            self.actions,
            self.mutations,
            self.switchboard,
            reporter,
            self.metrics,
            self.settings.action_stream_window_bytes,
            self._mono_s,
            self.timed_reads,
        )
        self.jobs = JobScheduler(
            self.engine,
            self.mutations,
            self.actions,
            lambda: self.calls.manifest,
            self._environment.clock.wall_us,
            job_options(self.settings),
            self.metrics.jobs,
        )
        self.actions.jobs = self.jobs
        self.actions.tokens = ActionTokens(self.issuer, self.verifier)
        self.switchboard.scheduled = self.jobs.scheduled
        self.crons = CronClock(
            self.engine,
            self.jobs.scheduled,
            lambda: self.calls.manifest is not None,
            self._environment.clock.wall_us,
            cron_options(self.settings),
        )

    def _make_call_log(self, webhook: WebhookTarget | None) -> CallReporter:
        """Make what keeps the events of calls, and where else they go; return what calls are reported to."""
        settings, environment = self.settings, self._environment
        secret = cache(lambda: environment.random.bytes(32))
        self.call_log = CallLog(call_log_options(settings), environment.clock.wall_us)
        self.call_text = EventText(settings.call_log_identity, secret)
        self.call_destinations = make_destinations(
            destination_options(settings, webhook), secret, self._wall_s, environment.random.bytes
        )
        self.call_log.destinations.extend(self.call_destinations)
        self.metrics.follow_call_log(self.call_log, self.call_destinations)
        return CallReporter(
            production=settings.production, random_bytes=environment.random.bytes, log=self.call_log
        )

    def _make_explainer(self, core: ReactiveCore) -> Explainer:
        """Make what counts conflicts, and tells of calls."""
        conflicts = ConflictCounts(
            lambda key: table_of(self._catalog(), key), self.metrics.function_conflicts
        )
        self.engine.lost = conflicts.lost
        return Explainer(self.pool, self.switchboard, core, conflicts, self._catalog)

    def _follow_calls(self, options: TraceOptions) -> TraceSender:
        """Have calls followed; return what sends their spans."""
        environment = self._environment
        random_bytes = environment.random.bytes
        instance = self.engine.incarnation.hex()
        sender = TraceSender(options, instance, version("headwater"), random_bytes)
        tracer = Tracer(options.ratio, self._mono_s, environment.clock.wall_us, random_bytes, sender.offer)
        self.mutations.tracer = self.calls.tracer = self.actions.tracer = tracer
        self.switchboard.follow(PushTraces(tracer))
        self.metrics.spans.sender = sender
        return sender

    def _after_switch(self) -> None:
        """Look at what another bundle changes."""
        self.rewriter.wake()
        self.crons.changed()

    def _catalog(self) -> Catalog:
        """Return the tables of now."""
        with self.engine.snapshot() as snapshot:
            return self.engine.catalog(snapshot)

    def _table_names(self) -> dict[int, str]:
        """Return the tables that ids may name, by number."""
        names = {table.number: table.name for table in self.engine.tables()}
        return names | {number: handle.definition.name for number, handle in SYSTEM_HANDLES.items()}

    def _make_verifier(self) -> Verifier:
        """Make who says whose tokens are, and the deployment as one who signs some."""
        settings, environment = self.settings, self._environment
        self.seal_key = SealKey(environment_key_file(settings), settings.data)
        wall_us, random_bytes = environment.clock.wall_us, environment.random.bytes
        self.issuer = OwnIssuer(self.engine, self.seal_key, issuer_options(settings), wall_us, random_bytes)
        fetcher = Fetcher(
            FetchOptions(
                limit_s=settings.provider_fetch_limit_s,
                bytes_max=settings.provider_fetch_limit_bytes,
                private_allowed=settings.provider_private_addresses,
            )
        )
        clocks = Clocks(wall_s=self._wall_s, mono_s=self._mono_s)
        return Verifier(verifier_options(settings), clocks, fetcher.get, self.metrics, self.issuer)

    def _make_administration(self) -> None:
        """Make what the deployment's key opens."""
        settings, engine, environment = self.settings, self.engine, self._environment
        self.deploys = Deploys(
            engine,
            self.pool,
            self.action_pool,
            self.calls,
            self.switchboard,
            self.metrics,
            self._use_manifest,
            self._mono_s,
        )
        self.rewriter = DocumentRewriter(
            engine, self.pool.ask, self.deploys.turn, rewrite_options(settings), self._mono_s, self.metrics
        )
        self.deploys.after_switch = self._after_switch
        self.deploys.install = RequirementsInstaller(
            settings.data / PACKAGES_FOLDER, install_options(settings), os.environ
        ).install
        self.key = DeploymentKey(
            KeyRow(engine), self.keys, settings.data, settings.admin_key_file, environment.random.bytes
        )
        limit = settings.access_keys_limit
        self.access_keys = AccessKeys(engine, self.keys, engine.next_us, environment.random.bytes, limit)
        self.variables: Variables = Variables(
            engine,
            self.seal_key,
            variable_limits(settings),
            self.pool.ask,
            lambda: self.deploys.manifest,
            self.action_pool.variables_changed,
            engine.next_us,
            environment.random.bytes,
        )
        self.browser = TableBrowser(engine, browse_limits(settings))
        self.system = self.hub.system = SystemFunctions(
            self.browser, self.variables, lambda: self.deploys.manifest
        )
        self.admin_api = AdminApi(
            self.deploys,
            self.keys,
            self.key.rotate,
            self.verifier.explain,
            lambda: engine.published_ts,
            self.metrics,
            self._bodies,
        )

    # ------------------------------------------------------------------ life

    async def start(self) -> None:
        """Bring up everything but the listening sockets."""
        self._engine_task = asyncio.create_task(self.engine.run(), name="engine")
        for destination in self.call_destinations:
            destination.start()
        if self.trace_sender is not None:
            self.trace_sender.start()
        self.pool.start(self.switchboard, self.mutations)
        self.action_pool.start(self.actions)
        await self.key.load()
        self.access_keys.load()
        self.issuer.load()
        self.issuer.changed = lambda: self._use_providers(self.deploys.manifest)
        try:
            await self.deploys.restore()
        except HeadwaterError as error:
            if error.code in ("disk_full", "disk_failed"):
                raise
            # The bundle worked when it was deployed; the data must stay reachable and a new deploy possible.
            logger.error(
                "bundle_not_restored", extra={"fields": {"code": error.code, "error": error.message}}
            )

    async def listen(self) -> None:
        """Let clients in: whoever can connect is served.

        Raises:
            RequestError: Strangers could connect, and guess the key.
        """
        if self.key.weakness is not None and not is_loopback(self.settings.host):
            raise RequestError(
                f"the key in {self.key.file} is not safe on {self.settings.host}, where others can try keys:"
                f" {self.key.weakness}. Use a random one of 32 characters or more, or listen on 127.0.0.1"
            )
        self._secure()
        await self._open_sockets()
        logger.info(
            "ready",
            extra={
                "fields": {
                    "url": f"{self.scheme}://{self.settings.host}:{self.port}",
                    "tcp_port": self.tcp_port,
                    "data": str(self.settings.data),
                    "key_file": str(self.key.file),
                    "ts": self.engine.published_ts,
                }
            },
        )

    async def failed(self) -> BaseException:
        """Wait until the storage fails; returns why. Never returns while it works."""
        assert self._engine_task is not None, "the daemon has been started"
        await asyncio.wait([self._engine_task])
        return self.failure or RuntimeError("the engine has ended")

    @property
    def failure(self) -> BaseException | None:
        """Why the storage failed, None while it works."""
        task = self._engine_task
        return task.exception() if task is not None and task.done() and not task.cancelled() else None

    def refuse_new(self) -> None:
        """Take no new connections and begin nothing that comes from now on."""
        self.admin_api.stopping = True
        self.calls.stopping = True
        self.route_api.stopping = True
        self.jobs.refuse_new()
        self.hub.refuse_new()
        self._listeners.refuse_new()

    @property
    def is_busy(self) -> bool:
        """Whether anything that was accepted is not answered yet."""
        return (
            self.mutations.unfinished > 0
            or self.calls.running > 0
            or self.actions.unfinished > 0
            or self.jobs.is_busy
            or self.admin_api.running > 0
            or not self.switchboard.core.is_settled
        )

    async def stop(self, *, clean: bool) -> None:
        """Stop in order: sockets and workers, engine. What is not decided is refused, or has no answer."""
        self.refuse_new()
        self.hub.drain()
        self.verifier.close()
        if self._certificate is not None:
            self._certificate.close()
        self.action_pool.close()
        self.call_log.close()
        await asyncio.gather(self.pool.close(), self._listeners.close())
        self.engine.stop()
        if self._engine_task is not None:
            # What is durable and not applied yet, the next start applies from the log.
            await asyncio.wait([self._engine_task], timeout=_ENGINE_STOP_S)
            clean = clean and self._engine_task.done() and self._engine_task.exception() is None
            self._engine_task.cancel()
            await asyncio.wait([self._engine_task])
        self.engine.close(clean=clean)
        told = [*self.call_destinations, *([] if self.trace_sender is None else [self.trace_sender])]
        await asyncio.gather(*(destination.close() for destination in told))

    @property
    def scheme(self) -> str:
        """What addresses of the daemon begin with, once it listens."""
        return "http" if self._certificate is None else "https"

    def _secure(self) -> None:
        """Speak TLS if there is a certificate; refuse to send in the clear what was not meant to be."""
        settings = self.settings
        self._certificate = served_certificate(
            settings.tls_certificate_file, settings.tls_key_file, settings.tls_reload_interval_s, self._wall_s
        )
        if self._certificate is not None:
            self._listeners.tls = self._certificate.context
            self.metrics.certificate_ends.set_function(self._certificate.ends)
        elif settings.tcp_port and not (settings.tcp_without_tls or is_loopback(settings.host)):
            raise RequestError(
                f"TCP on {settings.host} would send everything in the clear. Set tls_certificate_file; or tcp_port = 0,"
                " if no client uses TCP; or tcp_without_tls = true, if nobody else can reach and read that network"
            )

    async def _open_sockets(self) -> None:
        settings = self.settings
        middlewares = [cors_middleware, error_middleware, admission_middleware(self.admission, PREFIX + "/")]
        routes_handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]] = self.route_api.handle
        if self.trace_sender is not None:
            middlewares.insert(0, trace_middleware)
            routes_handler = with_calling_span(routes_handler)
        app = web.Application(client_max_size=settings.frame_limit_bytes, middlewares=middlewares)
        websockets = WebSocketShell(self.hub)
        for routes in (
            websockets,
            HttpApi(self.calls, self.keys, self.sign_ins, self._bodies, self.system, self.admission),
            self.admin_api,
            ConvexTools(self.call_log, self.variables, self.keys, self.admin_api.begun, self._bodies),
            KeyApi(self.access_keys, self.keys, self.admin_api.begun, self._bodies),
            DataApi(self.browser, self.keys),
            self.route_api,
            LogApi(self.call_log, self.call_text, self.keys),
            ExplainApi(
                self.explainer, self.calls, self.keys, self.sign_ins, self._bodies, self.admin_api.begun
            ),
            StartPage(),
            EnvironmentApi(self.variables, self.keys, self.admin_api.begun, self._bodies),
            IssuerApi(self.issuer, self.keys, self.admin_api.begun, self._bodies),
        ):
            routes.add_to(app)
        listeners, host = self._listeners, settings.host
        self.port = await listeners.open_app(app, host, settings.port, lambda: websockets.open)
        if settings.routes_port:
            own = settings.routes_host or host
            self.routes_port = await listeners.open_handler(routes_handler, own, settings.routes_port)
        if settings.tcp_port:
            self.tcp_port = await listeners.open_tcp(
                lambda arrival: TcpShell(self.hub, arrival), host, settings.tcp_port
            )

    # ------------------------------------------------------------------ small rules of the whole

    def _wall_s(self) -> float:
        return self._environment.clock.wall_us() / 1e6

    def _use_manifest(self, manifest: Manifest) -> None:
        """Serve these routes, and take the tokens of these providers, from now on; who has one of another loses their identity."""
        self.route_api.use(manifest.routes)
        self._use_providers(manifest)

    def _use_providers(self, manifest: Manifest | None) -> None:
        providers = () if manifest is None else manifest.providers
        self.issuer.enabled = any(provider.kind == "deployment" for provider in providers)
        self.verifier.use(providers)
        self.sign_ins.providers_changed()

    def _record_failure(self, request: Request, failure: Failure) -> Proposal | Answer:
        """Return what records that a call was ended by force: its request row alone; or its answer if it has one."""
        with self.engine.begin() as transaction:
            memory = RequestMemory(transaction, request)
            if memory.answer is not None:
                return memory.answer
            memory.keep(None, failure)
            return transaction.proposal()

    def _history_ends(self, last_ts: int) -> HeadwaterError | None:
        """A client has seen a ts that this database has not reached: an older copy was restored, under an earlier clock."""
        return TransientError(
            f"this client has seen commit {last_ts}, the database is at {self.engine.published_ts}: an older copy of it"
            " was restored, and the server's clock went back; reload the client, or start the server again with its"
            " clock set right"
        )


def open_engine(settings: Settings, environment: Environment) -> Engine:
    """Open the data directory; blocks while it recovers."""
    return Engine.open(settings.data, engine_options(settings), environment)


def _reactive_core(
    switchboard: Switchboard, engine: Engine, mono_s: Callable[[], float], settings: Settings
) -> ReactiveCore:
    options = ReactiveOptions(
        bundle_key=ACTIVE_BUNDLE_KEY,
        delta_ring_bytes=settings.delta_memory_bytes,
        body_memo_bytes=settings.delta_memory_bytes // 2,
        parked_bytes=settings.delta_memory_bytes // 2,
        causes_kept=settings.rerun_causes_kept,
    )
    return ReactiveCore(switchboard, engine.window, lambda: mono_s() * 1000, options, engine.published_ts)
