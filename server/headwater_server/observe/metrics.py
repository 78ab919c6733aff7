"""Every metric, declared once with the question it answers."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prometheus_client import Metric

    from headwater_server.observe.call_log import CallLog

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Traffic(Collector):
    """Counts what goes to clients: plain integers, since a push to a thousand clients counts a thousand times.

    Attributes:
        transitions: Transitions sent.
        bytes: Bytes of all messages sent.
    """

    def __init__(self) -> None:
        self.transitions = 0
        self.bytes = 0

    def collect(self) -> Iterator[Metric]:
        """Return the counters when they are asked for."""
        question = "How many transitions were sent to clients?"
        yield CounterMetricFamily("headwater_transitions", question, value=self.transitions)
        question = "How many bytes went to clients over /sync and TCP?"
        yield CounterMetricFamily("headwater_sent_bytes", question, value=self.bytes)


class CallDestination(Protocol):
    """Where the events of calls go.

    Attributes:
        name: `console`, `file` or `webhook`.
    """

    name: str

    @property
    def dropped(self) -> int:
        """How many events it was not given."""


class DroppedEvents(Collector):
    """Counts the events of calls that destinations were not given."""

    def __init__(self, destinations: Sequence[CallDestination]) -> None:
        self._destinations = destinations

    def collect(self) -> Iterator[Metric]:
        """Return the counters when they are asked for."""
        question = "How many events of calls was a destination not given, since it was slow or away?"
        family = CounterMetricFamily("headwater_call_log_dropped", question, labels=["destination"])
        for destination in self._destinations:
            family.add_metric([destination.name], destination.dropped)
        yield family


class SpanSender(Protocol):
    """Sends spans to a collector.

    Attributes:
        sent: How many it has taken.
        dropped: How many it was not given, or did not take.
    """

    sent: int
    dropped: int


class SpanMetrics(Collector):
    """Counts the spans of traces.

    Attributes:
        sender: What sends them; None: nothing does.
    """

    sender: SpanSender | None = None

    def __init__(self, registry: CollectorRegistry) -> None:
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Return the counters when they are asked for."""
        question = "How many spans has the collector of traces taken, and how many were dropped, since it is slow or away?"
        family = CounterMetricFamily("headwater_trace_spans", question, labels=["outcome"])
        sender = self.sender
        family.add_metric(["sent"], sender.sent if sender is not None else 0)
        family.add_metric(["dropped"], sender.dropped if sender is not None else 0)
        yield family


class IdentityMetrics:
    """What became of tokens, and of the keys that they are verified with."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.tokens = Counter(
            "headwater_tokens",
            "How many tokens were looked at, and what came of it? Undecided: the provider's keys could not be had.",
            ["outcome"],
            registry=registry,
        )
        self.key_fetches = Counter(
            "headwater_provider_key_fetches",
            "How often were keys of providers fetched, and did it work?",
            ["outcome"],
            registry=registry,
        )
        self.lost = _counted(
            registry,
            "identities_lost",
            "How many connections lost their identity, since their token ended or its provider was removed?",
        )


class LaneMetrics:
    """What became of mutations on documents that many write."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.chains = Counter(
            "headwater_lane_chains",
            "How many chains did the lane begin? Members per chain shows how well hot documents get on.",
            registry=registry,
        )
        self.members = Counter(
            "headwater_lane_members",
            "How many calls ran in the lane, over the uncommitted writes of those before them?",
            registry=registry,
        )
        self.reruns = Counter(
            "headwater_lane_reruns",
            "How many calls of the lane had to run again, since somebody outside came first or a worker ended?",
            registry=registry,
        )
        self.gate_wait_seconds = Histogram(
            "headwater_gate_wait_seconds",
            "How many proposals waited for calls of the lane that kept losing, and for how long?",
            buckets=_SECONDS,
            registry=registry,
        )


class ActionMetrics:
    """How actions get on."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.running = Gauge(
            "headwater_actions_running",
            "How many actions do workers have? Near `actions_running_limit`, others wait.",
            registry=registry,
        )
        self.waiting = Gauge(
            "headwater_actions_waiting", "How many actions wait for a place?", registry=registry
        )
        self.seconds = Histogram(
            "headwater_action_duration_seconds",
            "How long from an action's request to its end?",
            buckets=(*_SECONDS, 10.0, 30.0, 60.0, 300.0, 600.0),
            registry=registry,
        )


class LimitMetrics:
    """What the limits of addresses and users do."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.refusals = Counter(
            "headwater_limit_refusals",
            "How many connections and requests were refused by a limit of one address or user, or of TLS handshakes, by its setting?",
            ("limit",),
            registry=registry,
        )
        self.handshakes = Gauge(
            "headwater_tls_handshakes", "How many TLS handshakes are under way?", registry=registry
        )
        self.accounts = Gauge(
            "headwater_limit_accounts",
            "Of how many addresses and users is counted what they ask for?",
            registry=registry,
        )


class RouteMetrics:
    """How requests to routes get on."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.running = Gauge(
            "headwater_route_requests_running",
            "How many requests to routes are being answered? At `routes_running_limit`, others are refused.",
            registry=registry,
        )
        self.answers = Counter(
            "headwater_route_answers",
            "How many requests to routes were answered, by class of status (2xx, 4xx ...)?",
            ("status",),
            registry=registry,
        )


class DeployMetrics:
    """Deploys, and what becomes of documents for them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.ended = Counter(
            "headwater_deploys", "How many deploys, by outcome?", ("outcome",), registry=registry
        )
        self.documents_checked = Counter(
            "headwater_documents_checked", "How many documents have deploys checked?", registry=registry
        )
        self.documents_rewritten = Counter(
            "headwater_documents_rewritten",
            "How many documents were brought to the current shape of their table?",
            registry=registry,
        )


class JobMetrics:
    """Scheduled jobs."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.running = Gauge(
            "headwater_jobs_running", "How many scheduled jobs have a place and run?", registry=registry
        )
        self.ended = Counter(
            "headwater_jobs",
            "How many scheduled jobs have ended, by outcome?",
            ("outcome",),
            registry=registry,
        )
        self.retries = _counted(
            registry,
            "job_retries",
            "How often was a scheduled job put off by the system, to be tried again?",
        )
        self.delay_seconds = Histogram(
            "headwater_job_delay_seconds",
            "How long after it was due did a scheduled job get a place?",
            buckets=(*_SECONDS, 10.0, 60.0, 600.0, 3600.0),
            registry=registry,
        )


def _function_conflicts(registry: CollectorRegistry) -> Counter:
    return Counter(
        "headwater_function_conflicts",
        "Which mutations have to be rerun since others came first, and over which table?",
        ("function", "table"),
        registry=registry,
    )


def _certificate_ends(registry: CollectorRegistry) -> Gauge:
    return Gauge(
        "headwater_certificate_ends_timestamp_seconds",
        "When does the served certificate end, in seconds since 1970? 0 without TLS.",
        registry=registry,
    )


def _counted(registry: CollectorRegistry, name: str, question: str) -> Counter:
    return Counter(f"headwater_{name}", question, registry=registry)


class Metrics:
    """The daemon's metrics in a registry of their own, so that several daemons may share a test process."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.traffic = Traffic()
        registry.register(self.traffic)
        self.spans = SpanMetrics(registry)
        self.published_ts = Gauge(
            "headwater_published_ts",
            "How far is the database? The newest published commit ts.",
            registry=registry,
        )
        self.commits = _counted(registry, "commits", "How many transactions were committed?")
        self.batches = _counted(
            registry, "batches", "How many log records were written? Commits per batch shows group commit."
        )
        self.conflicts = _counted(
            registry, "conflicts", "How many proposals had to be rerun because others came first?"
        )
        self.function_conflicts = _function_conflicts(registry)
        self.lane = LaneMetrics(registry)
        self.identity = IdentityMetrics(registry)
        self.actions = ActionMetrics(registry)
        self.routes = RouteMetrics(registry)
        self.limits = LimitMetrics(registry)
        self.mutation_seconds = Histogram(
            "headwater_mutation_duration_seconds",
            "How long from a mutation's request to its answer?",
            buckets=_SECONDS,
            registry=registry,
        )
        self.calls = Counter(
            "headwater_calls", "How many calls, by kind and outcome?", ("kind", "outcome"), registry=registry
        )
        self.calls_running = Gauge(
            "headwater_calls_running", "How many calls over HTTP are unanswered?", registry=registry
        )
        self.sessions = Gauge("headwater_sessions", "How many clients are connected?", registry=registry)
        self.sessions_blocked = Gauge(
            "headwater_sessions_blocked",
            "How many clients do not read as fast as they are sent to?",
            registry=registry,
        )
        self.sessions_refused = Counter(
            "headwater_connections_closed",
            "How many connections did the server end, by error code?",
            ("code",),
            registry=registry,
        )
        self.allocated_blocks = Gauge(
            "headwater_allocated_blocks",
            "Does the daemon keep more and more? Its Python objects in memory; what the system lends for them grows in steps, and stays.",
            registry=registry,
        )
        self.allocated_blocks.set_function(sys.getallocatedblocks)
        self.workers = Gauge("headwater_workers", "How many function workers are ready?", registry=registry)
        self.worker_deaths = _counted(
            registry, "worker_deaths", "How many function workers, of actions too, died or were killed?"
        )
        self.request_rows = Gauge(
            "headwater_request_rows",
            "Of how many requests was the outcome remembered at the end of the last trimming pass?",
            registry=registry,
        )
        self.request_rows_dropped = Counter(
            "headwater_request_rows_dropped",
            "Of how many requests was the outcome dropped after its retention?",
            registry=registry,
        )
        self.deploys = DeployMetrics(registry)
        self.jobs = JobMetrics(registry)
        self.certificate_ends = _certificate_ends(registry)

    def follow_call_log(self, log: CallLog, destinations: Sequence[CallDestination]) -> None:
        """Tell of the log of calls, too."""
        followers = Gauge(
            "headwater_call_log_followers", "How many follow the log of calls?", registry=self.registry
        )
        followers.set_function(lambda: log.followers)
        self.registry.register(DroppedEvents(destinations))

    def text(self) -> bytes:
        """Return the exposition in Prometheus' text format."""
        return generate_latest(self.registry)
