"""What is told of calls beside the logs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from headwater_config.declarations import About


@dataclass(frozen=True, kw_only=True)
class ObservingSettings:
    """What is told of calls beside the logs."""

    rerun_causes_kept: Annotated[
        int,
        About(
            "Causes for which live queries were run again that `headwater explain` can tell, of all queries together",
            why="Raise it where the queries that one looks into are rerun seldom among many others; each takes about 300 bytes.",
            unit="causes",
            ge=0,
            le=1_000_000,
            group="Observing",
        ),
    ] = 4_096
    traces_url: Annotated[
        str | None,
        About(
            "Address of an OpenTelemetry collector that gets spans of calls, by OTLP over HTTP in JSON",
            why="As in `http://127.0.0.1:4318`; without a path, `/v1/traces` is taken. Without it no call is followed, and nothing of it is paid for.",
        ),
    ] = None
    traces_headers_file: Annotated[
        Path | None,
        About(
            "File with headers for the collector, a line `Name: value` each; then the address must be https, or on this machine",
            why="For collectors that ask for a key. Without it the environment variable HEADWATER_TRACES_HEADERS holds those lines.",
        ),
    ] = None
    traces_service_name: Annotated[
        str,
        About(
            "What the collector knows this server by (`service.name`)",
            why="To tell several deployments apart.",
        ),
    ] = "headwater"
    traces_sample_percent: Annotated[
        float,
        About(
            "Part of the calls that are followed, where their callers do not say so in `traceparent`",
            why="Lower where calls are many: one that is followed costs about 50 µs.",
            unit="percent",
            ge=0,
            le=100,
        ),
    ] = 100.0
    traces_waiting_spans: Annotated[
        int,
        About(
            "Spans that may wait for the collector; further ones are dropped and counted",
            why="Raise it where the collector is away for longer; each takes about 1 kB.",
            unit="spans",
            ge=1,
            le=1_000_000,
        ),
    ] = 10_000
    traces_batch_spans: Annotated[
        int,
        About(
            "Spans in one request", why="Fewer for collectors that take less.", unit="spans", ge=1, le=10_000
        ),
    ] = 512
    traces_wait_s: Annotated[
        float,
        About(
            "How long spans wait for others",
            why="Shorter for fewer in a batch, sooner.",
            unit="s",
            ge=0,
            le=60,
        ),
    ] = 1.0
    traces_time_limit_s: Annotated[
        float,
        About("Time for one batch to be taken", why="Longer for slow collectors.", unit="s", ge=0.1, le=300),
    ] = 10.0
    traces_attempts_limit: Annotated[
        int,
        About(
            "How often a batch is sent before it is given up",
            why="More where the collector is restarted often and no span may be missed.",
            unit="attempts",
            ge=1,
            le=100,
        ),
    ] = 5
