"""Log, store, and what is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from headwater_config.declarations import MIB, About


@dataclass(frozen=True, kw_only=True)
class StorageSettings:
    """Log, store, and what is kept."""

    durability: Annotated[
        Literal["log", "lmdb"],
        About(
            "`log`: a commit is durable by the log's sync, the store is synced at checkpoints;"
            " `lmdb`: the store is synced at each batch as well",
            why="`lmdb` is about half as fast and a second way to the same promise, for comparison.",
            group="Storage",
        ),
    ] = "log"
    batch_limit_bytes: Annotated[
        int,
        About(
            "Bytes of one batch of commits, which share a sync of the log; a larger mutation is a batch alone",
            why="Larger batches raise the rate and the wait of each commit in them.",
            unit="bytes",
            ge=64 * 1024,
            le=16 * MIB,
        ),
    ] = MIB
    batch_limit_commits: Annotated[
        int,
        About("Commits of one batch", why="As above.", unit="commits", ge=1, le=4096),
    ] = 256
    quick_append_ms: Annotated[
        float,
        About(
            "While appends to the log take less than this, those of few commits run on the event loop, not in a thread; 0: never",
            why="A thread costs more than a quick disk's sync. A disk that suddenly stands still then holds up the whole"
            " daemon for that one append.",
            unit="ms",
            ge=0,
            le=1_000,
        ),
    ] = 1.0
    log_segment_bytes: Annotated[
        int,
        About(
            "Size of a log segment file",
            why="Segments are written with zeros ahead of use; small ones suit small disks.",
            unit="bytes",
            ge=MIB,
            le=1024 * MIB,
        ),
    ] = 16 * MIB
    log_keep_bytes: Annotated[
        int,
        About(
            "Log that is kept beyond what a start needs; the oldest segments go first",
            why="With more, `doctor` can check and repair more from it. What is deleted stays in it until it goes.",
            unit="bytes",
            ge=0,
            le=1024 * 1024 * MIB,
        ),
    ] = 64 * MIB
    log_keep_hours: Annotated[
        float,
        About(
            "Time after which such log goes even if there is room for it; 0 for no limit",
            why="Set it where deleted documents must be gone from the disk after some time.",
            unit="hours",
            ge=0,
            le=100_000,
        ),
    ] = 0.0
    checkpoint_log_bytes: Annotated[
        int,
        About(
            "Log written since the last checkpoint that makes the next one due; at twice as much commits wait for it",
            why="Less log is less to replay at a start, and more writing in the long run.",
            unit="bytes",
            ge=MIB,
            le=4096 * MIB,
        ),
    ] = 64 * MIB
    checkpoint_growth_bytes: Annotated[
        int,
        About(
            "Growth of the store's file since the last checkpoint that makes one due; at twice as much commits wait",
            why="Pages are reused only after a checkpoint: this bounds the file's size.",
            unit="bytes",
            ge=16 * MIB,
            le=16 * 1024 * MIB,
        ),
    ] = 256 * MIB
    checkpoint_interval_s: Annotated[
        float,
        About(
            "Time after which a checkpoint is due if anything was written",
            why="A longer one spares slow disks, a shorter one shortens the start after a power cut.",
            unit="s",
            ge=0.1,
            le=3600,
        ),
    ] = 5.0
    disk_reserve_bytes: Annotated[
        int,
        About(
            "Space that stays free on the disk of the data directory: writes that would take it are refused",
            why="The store needs some of it to apply what is in the log. Lower it on a small volume.",
            unit="bytes",
            ge=0,
            le=1024 * 1024 * MIB,
        ),
    ] = 64 * MIB
    store_limit_bytes: Annotated[
        int,
        About(
            "Largest size of the store's file: the address space that is reserved for it, not memory",
            why="The default is beyond most disks, so that a disk that grows needs no restart. Lower it for less"
            " than the disk, or where address space is short; at it, writes are refused until it is raised.",
            unit="bytes",
            ge=16 * MIB,
            le=64 * 1024 * 1024 * MIB,
        ),
    ] = 16 * 1024 * 1024 * MIB
    snapshot_limit_s: Annotated[
        float,
        About(
            "Time that a worker may keep a snapshot which commits have left behind, or a call which it does not begin,"
            " before it is ended; at least twice `call_time_limit_s`",
            why="While it is kept, the store's file grows by all that is written. Raise it for sessions whose live"
            " queries take long together.",
            unit="s",
            ge=0.1,
            le=3600,
        ),
    ] = 10.0
    start_check_limit_bytes: Annotated[
        int,
        About(
            "How much of the store's pages is checked at a start, upper pages first; 0 checks none",
            why="100 MiB take about a second. Damage beyond it is left to `headwater doctor` and may end a"
            " process that reads it; damaged documents are refused by their checksums whatever this is.",
            unit="bytes",
            ge=0,
            le=1024 * 1024 * MIB,
        ),
    ] = 64 * MIB
    window_limit_bytes: Annotated[
        int,
        About(
            "Memory for what recent commits touched",
            why="A call that began before the window runs again: raise it if long calls meet many writes.",
            unit="bytes",
            ge=MIB,
            le=4096 * MIB,
        ),
    ] = 64 * MIB
