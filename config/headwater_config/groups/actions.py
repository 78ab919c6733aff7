"""Processes of actions, and what one may take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from headwater_config.declarations import MIB, About


@dataclass(frozen=True, kw_only=True)
class ActionsSettings:
    """Processes of actions, and what one may take."""

    action_workers: Annotated[
        int,
        About(
            "Processes that run actions, which wait side by side in each; none is started for a bundle without actions",
            why="Raise it if actions compute much: one that computes holds up the others of its process.",
            group="Actions",
            ge=1,
            le=64,
        ),
    ] = 2
    action_worker_limit: Annotated[
        int,
        About(
            "Actions that one of these processes runs at a time; more wait",
            why="Lower it if actions need much memory each; raise it if they only wait.",
            ge=1,
            le=100_000,
        ),
    ] = 512
    actions_running_limit: Annotated[
        int,
        About(
            "Actions that run at a time in all processes, with those of earlier bundles; more wait",
            why="Keep it near `action_workers` times `action_worker_limit`.",
            ge=1,
            le=1_000_000,
        ),
    ] = 1_024
    actions_waiting_limit: Annotated[
        int,
        About(
            "Actions that wait for a place before new ones are refused as `overloaded`",
            why="Raise it for bursts that may take long; lower it so that callers hear at once.",
            ge=0,
            le=1_000_000,
        ),
    ] = 2_000
    actions_limit_bytes: Annotated[
        int,
        About(
            "Bytes of the names and arguments of all actions that wait or run; more are refused as `overloaded`",
            why="Lower it where memory is short, raise it for actions with large arguments.",
            unit="bytes",
            ge=MIB,
            le=1024 * 1024 * MIB,
        ),
    ] = 128 * MIB
    action_time_limit_s: Annotated[
        float,
        About(
            "Longest time of one action, from when its process gets it; it is cancelled then",
            why="Raise it for long work outside; a deploy lets actions of the bundle before go on for as long.",
            unit="s",
            ge=0.1,
            le=24 * 3600,
        ),
    ] = 600.0
    action_block_limit_s: Annotated[
        float,
        About(
            "How long one action may keep the others of its process from going on; the process is ended then",
            why="Raise it if actions load large models or libraries; until then nothing else in that process moves.",
            unit="s",
            ge=0.5,
            le=600,
        ),
    ] = 5.0
    action_memory_limit_bytes: Annotated[
        int,
        About(
            "Private memory of one process that runs actions; it ends beyond it, with all its actions",
            why="Raise it for large answers of other services; all actions of a process share it.",
            unit="bytes",
            ge=64 * MIB,
            le=1024 * 1024 * MIB,
        ),
    ] = 1024 * MIB
    action_calls_limit: Annotated[
        int,
        About(
            "Queries and mutations that one action has running at a time; more wait",
            why="Lower it if single actions keep clients waiting for workers.",
            ge=1,
            le=10_000,
        ),
    ] = 64
    action_stream_window_bytes: Annotated[
        int,
        About(
            "Pieces of one action that may be on their way to its caller; the action waits until some were taken",
            why="Raise it for callers that are far away, lower it where very many streams are open.",
            unit="bytes",
            ge=1024,
            le=16 * MIB,
        ),
    ] = 64 * 1024
    action_depth_limit: Annotated[
        int,
        About(
            "How deep actions may run one another",
            why="It is there to stop actions that run themselves for ever.",
            ge=1,
            le=100,
        ),
    ] = 16
