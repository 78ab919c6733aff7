"""Jobs and crons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from headwater_config.declarations import MIB, About


@dataclass(frozen=True, kw_only=True)
class SchedulesSettings:
    """Jobs and crons."""

    call_limit_jobs: Annotated[
        int,
        About(
            "Jobs that one call may schedule",
            why="Each is a document of the call's commit. Who has more to schedule schedules a job that does it.",
            group="Schedules",
            unit="jobs",
            ge=1,
            le=10_000,
        ),
    ] = 1_000
    job_arguments_limit_bytes: Annotated[
        int,
        About(
            "Encoded arguments of one scheduled job",
            why="They are kept with the job, for as long as it is remembered. What is larger belongs into a document.",
            unit="bytes",
            ge=256,
            le=MIB,
        ),
    ] = 256 * 1024
    job_mutations_limit: Annotated[
        int,
        About(
            "Scheduled mutations that run at a time; others that are due wait",
            why="More share one fdatasync and get done faster, and clients' calls wait behind more of them.",
            unit="jobs",
            ge=1,
            le=1_000,
        ),
    ] = 32
    job_actions_limit: Annotated[
        int,
        About(
            "Scheduled actions that run at a time; others that are due wait",
            why="They take places of the actions that may run in all.",
            unit="jobs",
            ge=1,
            le=10_000,
        ),
    ] = 64
    job_deaths_limit: Annotated[
        int,
        About(
            "Workers that may end during a scheduled mutation before it has failed",
            why="One worker may end for any reason; a mutation that ends each may be the reason itself.",
            unit="workers",
            ge=1,
            le=100,
        ),
    ] = 3
    job_retention_s: Annotated[
        float,
        About(
            "Time for which a job that has ended is remembered",
            why="Functions can read for so long what became of it. Each takes the size of its arguments and about 400 bytes.",
            unit="s",
            ge=1,
            le=366 * 86_400,
        ),
    ] = 7 * 86_400.0
    job_trim_interval_s: Annotated[
        float,
        About(
            "Pause between two looks for jobs past their retention",
            why="A longer one spares the daemon's loop; they are forgotten so much later.",
            unit="s",
            ge=0.1,
            le=86_400,
        ),
    ] = 60.0

    cron_late_limit_s: Annotated[
        float,
        About(
            "Time after which a run of a cron that could not begin is skipped",
            why="What a cron does at night may be unwelcome in the morning. A daemon that was away for longer skips the run,"
            " and tells so in the cron's row.",
            unit="s",
            ge=1,
            le=31 * 86_400,
        ),
    ] = 300.0
    cron_runs_kept: Annotated[
        int,
        About(
            "Last runs of a cron that its row tells of",
            why="They are written anew with each run.",
            unit="runs",
            ge=1,
            le=100,
        ),
    ] = 10
