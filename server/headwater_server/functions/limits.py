"""What calls and their processes may use, as frozen options; the composition root fills them from settings."""

from __future__ import annotations

from dataclasses import dataclass, field

from headwater_storage.limits import CallLimits
from headwater_storage.lmdb_store import MAP_SIZE_BYTES

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """Bounds that a worker enforces on itself; sent to it when it starts.

    Attributes:
        memory_limit_bytes: Private memory of one worker; an allocation beyond it fails and ends the worker.
        result_limit_bytes: Largest encoded result of one call.
        log_lines_max: Lines that one call may print.
        log_bytes_max: Bytes that one call may print.
        calls: Documents and bytes that one call may read and write.
        map_size_bytes: Address space for the store: not less than what the daemon reserves.
        nested_calls_max: Queries and mutations that one action may have running; others wait.
        action_depth_max: How deep actions may run one another.
        action_block_limit_s: How long one action may keep the others of its worker from going on.
        environment_key_file: What secret environment variables are sealed with.
    """

    memory_limit_bytes: int = 512 * MIB
    result_limit_bytes: int = 8 * MIB
    log_lines_max: int = 256
    log_bytes_max: int = 64 * 1024
    calls: CallLimits = field(default_factory=CallLimits)
    map_size_bytes: int = MAP_SIZE_BYTES
    nested_calls_max: int = 64
    action_depth_max: int = 16
    action_block_limit_s: float = 5.0
    environment_key_file: str = ""


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """How many workers there are and how they are used.

    Attributes:
        workers: Processes that serve the active bundle.
        time_limit_s: Wall time of one query or mutation, from its start in the worker.
        silence_limit_s: Time that a worker may take to begin a call while it runs none.
        start_limit_s: Time that a worker may take to import its bundle.
        prefetch_ms: Estimated work that is sent to a worker ahead of time; more would wait
            behind a slow call while another worker is idle.
        prefetch_calls_max: Calls that are sent ahead at most, however short they are.
        waiting_max: Calls that may wait for a worker before new ones are refused as `overloaded`.
        reruns_max: How often a call may be sent again because the worker it waited in has died.
        restart_pause_s: First pause before a worker that did not come up is started again; doubles.
        restart_pause_max_s: Longest such pause.
        memory_watch_s: Time between two looks at the memory of the workers.
        stop_grace_s: Time that processes get to end when the pool closes.
        worker: Bounds inside a worker.
    """

    workers: int = 2
    time_limit_s: float = 1.0
    silence_limit_s: float = 10.0
    start_limit_s: float = 20.0
    prefetch_ms: float = 3.0
    prefetch_calls_max: int = 256
    waiting_max: int = 20_000
    reruns_max: int = 5
    restart_pause_s: float = 0.1
    restart_pause_max_s: float = 5.0
    memory_watch_s: float = 0.5
    stop_grace_s: float = 0.5
    worker: WorkerLimits = field(default_factory=WorkerLimits)


@dataclass(frozen=True, slots=True)
class ActionOptions:
    """How many workers of actions there are and how they are used.

    Attributes:
        workers: Processes that run the actions of the active bundle.
        worker_actions_max: Actions that one process runs at a time.
        running_max: Actions of all processes at a time, with those of earlier bundles.
        waiting_max: Actions that may wait for a place before new ones are refused as `overloaded`.
        held_bytes_max: Bytes of names and arguments of all that wait or run; more are refused likewise.
        time_limit_s: Wall time of one action, from when its worker gets it.
        end_limit_s: Time that a cancelled action may take to end; its worker gets no more actions then.
        start_limit_s: Time that a worker may take to import its bundle.
        memory_watch_s: Time between two looks at the memory of the workers.
        earlier_bundles_max: Bundles whose actions may go on after others were deployed; of older ones
            they are ended.
        reruns_max: How often an action that was not begun may be sent to another worker since its own has ended.
        worker: Bounds inside a worker.
    """

    workers: int = 2
    worker_actions_max: int = 512
    running_max: int = 1_024
    waiting_max: int = 2_000
    held_bytes_max: int = 128 * MIB
    time_limit_s: float = 600.0
    end_limit_s: float = 5.0
    start_limit_s: float = 20.0
    memory_watch_s: float = 0.5
    earlier_bundles_max: int = 4
    reruns_max: int = 5
    worker: WorkerLimits = field(default_factory=lambda: WorkerLimits(memory_limit_bytes=1024 * MIB))
