"""Workers, and what one run may take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from headwater_config.declarations import MIB, About


@dataclass(frozen=True, kw_only=True)
class FunctionsSettings:
    """Workers, and what one run may take."""

    workers: Annotated[
        int,
        About(
            "Function worker processes of the active bundle",
            why="One for each core that queries and mutations may use; each takes 20 MiB and more.",
            group="Functions",
            ge=1,
            le=256,
        ),
    ] = 2
    deployed_bundles_kept: Annotated[
        int,
        About(
            "Bundles that `headwater rollback` can go back to, the active one included",
            why="Each is kept whole in the database, up to 15 MiB.",
            ge=2,
            le=100,
        ),
    ] = 5
    requirements_time_limit_s: Annotated[
        float,
        About(
            "Time to install what a bundle requires",
            why="Raise it for a slow index or very large packages; the deploy waits for it.",
            unit="s",
            ge=1,
            le=3600,
        ),
    ] = 300.0
    requirements_limit_bytes: Annotated[
        int,
        About(
            "Size of what is installed for one bundle",
            why="It is kept in the data directory for as many bundles as deployed_bundles_kept says.",
            unit="bytes",
            ge=MIB,
            le=1 << 40,
        ),
    ] = 1 << 30
    deploys_listed: Annotated[
        int,
        About(
            "Deploys that `headwater deploys` lists",
            why="Each takes some 100 bytes.",
            ge=1,
            le=10_000,
        ),
    ] = 1_000
    document_rewrite_delay_s: Annotated[
        float,
        About(
            "Time after a deploy before documents of an earlier shape are rewritten in the background",
            why="A roll back until then finds all documents as they were.",
            unit="s",
            ge=0,
            le=366 * 86_400,
        ),
    ] = 60.0
    document_rewrite_limit: Annotated[
        int,
        About(
            "Documents that one step of rewriting takes",
            why="A step keeps a worker for about 20 µs a document, and calls wait for it.",
            unit="documents",
            ge=1,
            le=10_000,
        ),
    ] = 200
    document_rewrite_share_percent: Annotated[
        float,
        About(
            "Share of its time that rewriting works; after each step it rests",
            why="Raise it to have many documents rewritten sooner, beside calls that take longer meanwhile.",
            unit="%",
            ge=0.1,
            le=100,
        ),
    ] = 20.0
    call_time_limit_s: Annotated[
        float,
        About(
            "Longest time of one query or mutation, from its start",
            why="Raise it for slow reports; what runs longer holds a worker that others wait for.",
            unit="s",
            ge=0.01,
            le=600,
        ),
    ] = 1.0
    call_memory_limit_bytes: Annotated[
        int,
        About(
            "Memory of one worker process",
            why="Raise it for calls that build large results; workers × this must fit into the machine.",
            unit="bytes",
            ge=64 * MIB,
            le=1024 * 1024 * MIB,
        ),
    ] = 512 * MIB
    call_read_limit_documents: Annotated[
        int,
        About(
            "Documents and index entries one call may read",
            why="A lower one finds queries without an index early.",
            unit="documents",
            ge=1,
            le=10_000_000,
        ),
    ] = 32_768
    call_read_limit_bytes: Annotated[
        int,
        About(
            "Stored bytes one call may read",
            why="Raise it for calls on many large documents.",
            unit="bytes",
            ge=1024,
            le=1024 * MIB,
        ),
    ] = 64 * MIB
    call_write_limit_documents: Annotated[
        int,
        About(
            "Documents one mutation may insert, change or delete",
            why="Lower it when large mutations hold up small ones; split imports into several calls.",
            unit="documents",
            ge=1,
            le=1_000_000,
        ),
    ] = 16_384
    call_write_limit_bytes: Annotated[
        int,
        About(
            "Bytes of the documents one mutation may write",
            why="As above. A mutation is one log record of at most 16 MiB, which bounds this too.",
            unit="bytes",
            ge=1024,
            le=15 * MIB,
        ),
    ] = 15 * MIB
    call_result_limit_bytes: Annotated[
        int,
        About(
            "Encoded result of one call",
            why="Raise it for exports; pages are the better way to much data.",
            unit="bytes",
            ge=1024,
            le=64 * MIB,
        ),
    ] = 8 * MIB
    call_log_limit_lines: Annotated[
        int,
        About(
            "Lines that one call may print into the log; the rest is left out",
            why="Raise it while looking for a fault.",
            unit="lines",
            ge=0,
            le=100_000,
        ),
    ] = 256
    call_log_limit_bytes: Annotated[
        int,
        About("Bytes that one call may print into the log", why="As above.", unit="bytes", ge=0, le=16 * MIB),
    ] = 64 * 1024
    call_attempts_limit: Annotated[
        int,
        About(
            "Runs of one mutation whose reads others keep changing, before it fails with `conflict`",
            why="Raise it for long mutations on contended documents.",
            unit="runs",
            ge=1,
            le=10_000,
        ),
    ] = 100
    call_limit_ranges: Annotated[
        int,
        About(
            "Ranges in the read set of one call; more are merged into wider ones",
            why="More ranges make fewer false reruns and cost memory for each live query.",
            unit="ranges",
            ge=16,
            le=65_536,
        ),
    ] = 4096
    document_limit_fields: Annotated[
        int,
        About(
            "Fields of one document, its id and creation time included, not counting those inside them",
            why="Lower it to find documents that are used as tables.",
            unit="fields",
            ge=8,
            le=1_000_000,
        ),
    ] = 1_024
    document_limit_depth: Annotated[
        int,
        About(
            "Lists and objects inside one another in one document, which is the first itself",
            why="Lower it to keep trees out of documents. A result holds 64, its own around documents included.",
            ge=1,
            le=64,
        ),
    ] = 32
    document_limit_bytes: Annotated[
        int,
        About(
            "Size of one document",
            why="Lower it to keep files and logs out of documents.",
            unit="bytes",
            ge=1024,
            le=8 * MIB,
        ),
    ] = MIB
