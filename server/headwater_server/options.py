"""What parts of the daemon are given of the settings. A part of the composition root, as `app.py` is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from headwater_protocol.limits import ServerLimits
from headwater_storage.checkpoint import CheckpointOptions
from headwater_storage.committer import CommitterOptions
from headwater_storage.crons import CronRules
from headwater_storage.deployment import KeptDeploys
from headwater_storage.engine import EngineOptions
from headwater_storage.file_log import FileLogOptions
from headwater_storage.limits import CallLimits
from headwater_storage.recovery import StorageOptions

from headwater_server.functions.document_rewriter import RewriteOptions
from headwater_server.functions.limits import ActionOptions, PoolOptions, WorkerLimits
from headwater_server.functions.mutations import MutationLimits
from headwater_server.functions.request_trimmer import TrimOptions
from headwater_server.functions.requirements_installer import InstallOptions
from headwater_server.functions.table_browser import BrowseLimits
from headwater_server.functions.variables import VariableLimits
from headwater_server.identity.key_cache import CacheOptions
from headwater_server.identity.own_issuer import IssuerOptions, checked_issuer
from headwater_server.identity.sign_ins import SignInLimits
from headwater_server.identity.verifier import VerifierOptions
from headwater_server.jobs.crons import CronOptions
from headwater_server.jobs.job_retries import RetryPolicy
from headwater_server.jobs.scheduler import JobOptions
from headwater_server.net.admission import AdmissionLimits, Place
from headwater_server.net.client_address import TrustedProxies
from headwater_server.net.connection_limits import ConnectionLimits
from headwater_server.net.inlet import InletLimits
from headwater_server.net.listeners import DoorOptions
from headwater_server.net.route_api import RouteLimits
from headwater_server.net.token_bucket import Rate
from headwater_server.observe.call_destinations import (
    DestinationOptions,
    is_terminal,
    least_level,
    webhook_target,
)
from headwater_server.observe.call_log import LEVELS, CallLogOptions, WaitingRoom
from headwater_server.observe.trace_sender import TraceOptions, collector_at

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from headwater_config.settings import Settings

    from headwater_server.observe.call_destinations import WebhookTarget


def webhook_of(settings: Settings, environ: Mapping[str, str]) -> WebhookTarget | None:
    """Return where the log of calls is to be sent, None if nowhere; raises RequestError if it cannot be."""
    return webhook_target(settings.call_log_webhook_url, settings.call_log_webhook_secret_file, environ)


def trace_options(settings: Settings, environ: Mapping[str, str]) -> TraceOptions | None:
    """Return how spans are sent, None if they are not; raises RequestError if they cannot be."""
    collector = collector_at(settings.traces_url or "", settings.traces_headers_file, environ)
    if collector is None:
        return None
    return TraceOptions(
        collector=collector,
        service=settings.traces_service_name,
        ratio=settings.traces_sample_percent / 100,
        spans_max=settings.traces_waiting_spans,
        batch_spans_max=settings.traces_batch_spans,
        wait_s=settings.traces_wait_s,
        limit_s=settings.traces_time_limit_s,
        attempts_max=settings.traces_attempts_limit,
    )


def _waiting_room(settings: Settings) -> WaitingRoom:
    return WaitingRoom(settings.call_log_waiting_events, settings.call_log_waiting_bytes)


def call_log_options(settings: Settings) -> CallLogOptions:
    """Return the bounds of the log of calls."""
    return CallLogOptions(
        events_max=settings.call_log_kept_events,
        bytes_max=settings.call_log_kept_bytes,
        followers_max=settings.call_log_followers_limit,
        room=_waiting_room(settings),
    )


def destination_options(settings: Settings, webhook: WebhookTarget | None) -> DestinationOptions:
    """Return where the log of calls goes."""
    human = settings.log_format == "human" or (settings.log_format == "auto" and is_terminal())
    return DestinationOptions(
        identity_form=settings.call_log_identity,
        room=_waiting_room(settings),
        console_level=least_level(settings.call_log_console),
        human=human,
        file=settings.call_log_file,
        file_level=LEVELS[settings.call_log_file_level],
        file_bytes_max=settings.call_log_file_limit_bytes,
        files_kept=settings.call_log_files_kept,
        webhook=webhook,
        webhook_level=LEVELS[settings.call_log_webhook_level],
        batch_events_max=settings.call_log_webhook_batch_events,
        webhook_wait_s=settings.call_log_webhook_wait_s,
        webhook_limit_s=settings.call_log_webhook_time_limit_s,
        attempts_max=settings.call_log_webhook_attempts_limit,
    )


def verifier_options(settings: Settings) -> VerifierOptions:
    """Return how tokens are verified."""
    return VerifierOptions(
        token_bytes_max=settings.token_limit_bytes,
        leeway_s=settings.token_leeway_s,
        waiting_max=settings.provider_waiting_limit,
        reasons_per_minute=settings.token_refusals_logged,
        cache=CacheOptions(
            pause_s=settings.provider_keys_pause_s,
            age_s=settings.provider_keys_age_s,
            kept_s=settings.provider_keys_kept_s,
        ),
    )


def issuer_options(settings: Settings) -> IssuerOptions:
    """Return as whom the deployment signs tokens."""
    scheme = "http" if settings.tls_certificate_file is None else "https"
    return IssuerOptions(
        issuer=checked_issuer(settings.public_url or f"{scheme}://localhost:{settings.port}"),
        lifetime_max_s=settings.signed_token_limit_s,
        leeway_s=settings.token_leeway_s,
        token_bytes_max=settings.token_limit_bytes,
    )


def rewrite_options(settings: Settings) -> RewriteOptions:
    """Return how documents are rewritten."""
    return RewriteOptions(
        delay_s=settings.document_rewrite_delay_s,
        documents_max=settings.document_rewrite_limit,
        share=settings.document_rewrite_share_percent / 100,
    )


def sign_in_limits(settings: Settings) -> SignInLimits:
    """Return the bounds of sign-ins."""
    return SignInLimits(
        checks_max=settings.token_checks_limit,
        check_s=settings.token_check_limit_s,
        per_minute=settings.session_tokens_limit_per_minute,
    )


def job_options(settings: Settings) -> JobOptions:
    """Return how scheduled jobs run."""
    return JobOptions(
        mutations_max=settings.job_mutations_limit,
        actions_max=settings.job_actions_limit,
        retention_s=settings.job_retention_s,
        trim_interval_s=settings.job_trim_interval_s,
        retries=RetryPolicy(deaths_max=settings.job_deaths_limit),
    )


def cron_options(settings: Settings) -> CronOptions:
    """Return how crons run."""
    return CronOptions(CronRules(round(settings.cron_late_limit_s * 1e6), settings.cron_runs_kept))


def install_options(settings: Settings) -> InstallOptions:
    """Return how what bundles require is installed."""
    return InstallOptions(
        time_limit_s=settings.requirements_time_limit_s,
        bytes_max=settings.requirements_limit_bytes,
        kept=settings.deployed_bundles_kept,
    )


def door_options(settings: Settings) -> DoorOptions:
    """Return the bounds of connections over HTTP."""
    return DoorOptions(
        connections_max=settings.max_http_connections,
        idle_limit_s=settings.http_idle_limit_s,
        body_limit_s=settings.http_body_limit_s,
        header_limit_bytes=settings.http_header_limit_bytes,
        head_limit_bytes=settings.http_head_limit_bytes,
    )


def admission_limits(settings: Settings) -> AdmissionLimits:
    """Return the bounds of addresses and users."""

    def rate(per_second: int) -> Rate | None:
        return Rate(per_second, settings.limit_burst_s) if per_second else None

    most = {
        Place.SESSION: settings.address_sessions_limit,
        Place.HTTP: settings.address_http_connections_limit,
    }
    return AdmissionLimits(
        places={place: count for place, count in most.items() if count},
        connections=rate(settings.address_connections_limit_per_second),
        requests=rate(settings.address_requests_limit_per_second),
        user_requests=rate(settings.user_requests_limit_per_second),
        handshakes_max=settings.tls_handshakes_limit or None,
        private_counted=settings.private_address_limits,
        proxies=TrustedProxies.parse(settings.trusted_proxies or ""),
    )


def trim_options(settings: Settings) -> TrimOptions:
    """Return how request rows are trimmed."""
    return TrimOptions(
        retention_s=settings.request_retention_s,
        interval_s=settings.request_trim_interval_s,
        rows_max=settings.request_trim_limit_rows,
    )


def environment_key_file(settings: Settings) -> Path:
    """Return where the key of secret environment variables is: beside the data directory, unless it is said."""
    data = settings.data.absolute()
    return (settings.environment_key_file or data.with_name(data.name + ".key")).absolute()


def variable_limits(settings: Settings) -> VariableLimits:
    """Return the bounds of environment variables."""
    return VariableLimits(
        variables_max=settings.environment_limit_variables,
        name_characters_max=settings.environment_name_limit_characters,
        value_bytes_max=settings.environment_value_limit_bytes,
    )


def route_limits(settings: Settings) -> RouteLimits:
    """Return the bounds of routes."""
    return RouteLimits(
        running_max=settings.routes_running_limit,
        body_bytes_max=settings.route_body_limit_bytes,
        window_bytes=settings.action_stream_window_bytes,
        time_s=settings.route_time_limit_s,
        body_idle_s=settings.http_idle_limit_s,
        body_s=settings.http_body_limit_s,
        stall_s=settings.route_stall_limit_s,
    )


def mutation_limits(settings: Settings) -> MutationLimits:
    """Return the bounds of mutations' queues."""
    return MutationLimits(
        waiting_max=settings.session_mutations_limit,
        waiting_bytes_max=settings.session_mutations_limit_bytes,
        undecided_max=settings.mutation_queue_limit,
        undecided_bytes_max=settings.mutation_queue_limit_bytes,
        attempts_max=settings.call_attempts_limit,
        gate_s=settings.mutation_gate_limit_ms / 1000,
    )


def browse_limits(settings: Settings) -> BrowseLimits:
    """Return the bounds of looking through tables."""
    return BrowseLimits(settings.call_read_limit_documents, settings.call_result_limit_bytes)


def connection_limits(settings: Settings) -> ConnectionLimits:
    """Return the bounds of connections of clients."""
    return ConnectionLimits(
        wire=ServerLimits(
            frame_limit_bytes=settings.frame_limit_bytes,
            heartbeat_ms=round(settings.heartbeat_s * 1000),
            stream_window_bytes=settings.action_stream_window_bytes,
        ),
        connections_max=settings.max_sessions,
        send_buffer_bytes=settings.session_send_buffer_bytes,
        unsent_bytes=settings.session_unsent_limit_bytes,
        deflate_from_bytes=settings.compress_from_bytes,
        inlet=InletLimits(
            turn_max=settings.turn_messages_limit, full_share=settings.overload_share_percent / 100
        ),
        stall_limit_s=settings.session_stall_limit_s,
    )


def engine_options(settings: Settings) -> EngineOptions:
    """Return how the database is kept."""
    return EngineOptions(
        storage=StorageOptions(
            durability=settings.durability,
            log=FileLogOptions(
                segment_bytes=settings.log_segment_bytes,
                keep_bytes=settings.log_keep_bytes,
                keep_s=settings.log_keep_hours * 3600,
            ),
            checkpoint=CheckpointOptions(
                log_bytes=settings.checkpoint_log_bytes,
                growth_bytes=settings.checkpoint_growth_bytes,
                interval_s=settings.checkpoint_interval_s,
            ),
            map_size_bytes=settings.store_limit_bytes,
            check_bytes=settings.start_check_limit_bytes,
        ),
        committer=CommitterOptions(
            batch_bytes_max=settings.batch_limit_bytes,
            batch_count_max=settings.batch_limit_commits,
            waiting_max=settings.mutation_queue_limit,
            free_bytes_min=settings.disk_reserve_bytes,
            quick_append_s=settings.quick_append_ms / 1000,
        ),
        window_bytes_max=settings.window_limit_bytes,
        snapshot_limit_s=_snapshot_limit_s(settings),
        kept_deploys=KeptDeploys(settings.deployed_bundles_kept, settings.deploys_listed),
    )


def _snapshot_limit_s(settings: Settings) -> float:
    """Return how long a worker may keep a snapshot: a call within its own limit is never ended for it."""
    return max(settings.snapshot_limit_s, 2 * settings.call_time_limit_s)


def pool_options(settings: Settings) -> PoolOptions:
    """Return the bounds of function workers and of their calls."""
    calls = CallLimits(
        documents_read_max=settings.call_read_limit_documents,
        bytes_read_max=settings.call_read_limit_bytes,
        documents_written_max=settings.call_write_limit_documents,
        bytes_written_max=settings.call_write_limit_bytes,
        document_bytes_max=settings.document_limit_bytes,
        document_fields_max=settings.document_limit_fields,
        document_depth_max=settings.document_limit_depth,
        ranges_max=settings.call_limit_ranges,
        jobs_max=settings.call_limit_jobs,
        job_arguments_bytes_max=settings.job_arguments_limit_bytes,
    )
    return PoolOptions(
        workers=settings.workers,
        time_limit_s=settings.call_time_limit_s,
        silence_limit_s=_snapshot_limit_s(settings),
        waiting_max=settings.mutation_queue_limit,
        worker=WorkerLimits(
            memory_limit_bytes=settings.call_memory_limit_bytes,
            result_limit_bytes=settings.call_result_limit_bytes,
            log_lines_max=settings.call_log_limit_lines,
            log_bytes_max=settings.call_log_limit_bytes,
            map_size_bytes=settings.store_limit_bytes,
            calls=calls,
            environment_key_file=str(environment_key_file(settings)),
        ),
    )


def action_options(settings: Settings, transactions: WorkerLimits) -> ActionOptions:
    """Return the bounds of actions; what is not theirs is as for function workers."""
    return ActionOptions(
        workers=settings.action_workers,
        worker_actions_max=settings.action_worker_limit,
        running_max=settings.actions_running_limit,
        waiting_max=settings.actions_waiting_limit,
        held_bytes_max=settings.actions_limit_bytes,
        time_limit_s=settings.action_time_limit_s,
        worker=replace(
            transactions,
            memory_limit_bytes=settings.action_memory_limit_bytes,
            nested_calls_max=settings.action_calls_limit,
            action_depth_max=settings.action_depth_limit,
            action_block_limit_s=settings.action_block_limit_s,
        ),
    )
