"""Logs of calls and their destinations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from headwater_config.declarations import MIB, About


@dataclass(frozen=True, kw_only=True)
class CallLogsSettings:
    """Logs of calls and their destinations."""

    call_log_kept_events: Annotated[
        int,
        About(
            "Calls that `headwater logs` can look back on, and lines of actions that go on",
            why="Raise it to look further back; they are kept in memory and gone with a restart.",
            group="Logs of calls",
            unit="events",
            ge=0,
            le=1_000_000,
        ),
    ] = 5_000
    call_log_kept_bytes: Annotated[
        int,
        About(
            "Memory for them, about",
            why="Raise it where calls print much.",
            unit="bytes",
            ge=64 * 1024,
            le=4096 * MIB,
        ),
    ] = 16 * MIB
    call_log_followers_limit: Annotated[
        int,
        About(
            "Who may follow the log at the same time", why="Each costs every call about 1 µs.", ge=0, le=1_000
        ),
    ] = 16
    call_log_waiting_events: Annotated[
        int,
        About(
            "Events that may wait for one who follows, for the file and for the webhook; further ones are dropped, and that is told",
            why="Raise it where a webhook is away for longer than it may miss events.",
            unit="events",
            ge=1,
            le=1_000_000,
        ),
    ] = 10_000
    call_log_waiting_bytes: Annotated[
        int,
        About("Memory for them, about", why="As above.", unit="bytes", ge=64 * 1024, le=1024 * MIB),
    ] = 8 * MIB
    call_log_identity: Annotated[
        Literal["hashed", "plain", "off"],
        About(
            "How users are named: by a hash that is another one after each start, by issuer and subject, or not at all",
            why="`plain` finds the calls of one user, and puts personal data into the logs.",
        ),
    ] = "hashed"
    call_log_console: Annotated[
        Literal["debug", "info", "warning", "error", "critical", "off"],
        About(
            "Least level of calls on standard error: `info` is all, `warning` all that failed or warned, `error` faults",
            why="`info` where a collector reads standard error. It costs about as much as a short query.",
        ),
    ] = "error"
    call_log_file: Annotated[
        Path | None,
        About("File for the log of calls, a line of JSON each", why="To keep it over restarts."),
    ] = None
    call_log_file_level: Annotated[
        Literal["debug", "info", "warning", "error", "critical"],
        About("Least level of calls in the file", why="`warning` where only failures are looked into."),
    ] = "info"
    call_log_file_limit_bytes: Annotated[
        int,
        About(
            "Size at which the file is renamed to `….1` and another begun",
            why="As your collector likes it.",
            unit="bytes",
            ge=4096,
            le=1024 * 1024 * MIB,
        ),
    ] = 64 * MIB
    call_log_files_kept: Annotated[
        int,
        About(
            "Renamed files that are kept", why="All together take so many times the size.", ge=0, le=10_000
        ),
    ] = 5
    call_log_webhook_url: Annotated[
        str | None,
        About(
            "Address that gets the log of calls in signed batches; https, or http on this machine",
            why="To bring it to a service that collects logs.",
        ),
    ] = None
    call_log_webhook_secret_file: Annotated[
        Path | None,
        About(
            "File that holds what batches are signed with, 24 characters or more",
            why="Without it the environment variable HEADWATER_CALL_LOG_WEBHOOK_SECRET holds it. There is no flag:"
            " other users of the machine see command lines.",
        ),
    ] = None
    call_log_webhook_level: Annotated[
        Literal["debug", "info", "warning", "error", "critical"],
        About("Least level of calls that are sent", why="`warning` where only failures are looked into."),
    ] = "info"
    call_log_webhook_batch_events: Annotated[
        int,
        About(
            "Events of one batch",
            why="Lower it where large requests are refused.",
            unit="events",
            ge=1,
            le=10_000,
        ),
    ] = 200
    call_log_webhook_wait_s: Annotated[
        float,
        About(
            "How long events wait for others",
            why="Shorter for fewer in a batch, sooner.",
            unit="s",
            ge=0,
            le=60,
        ),
    ] = 1.0
    call_log_webhook_time_limit_s: Annotated[
        float,
        About("Time for one batch to be taken", why="Longer for slow servers.", unit="s", ge=0.1, le=300),
    ] = 10.0
    call_log_webhook_attempts_limit: Annotated[
        int,
        About(
            "How often a batch is sent before it is dropped; pauses double from 1 s to 60 s",
            why="Raise it where the server is away for longer.",
            ge=1,
            le=10_000,
        ),
    ] = 10
