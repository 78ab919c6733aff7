"""Sessions of clients, what is sent to them and what they may send."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from headwater_config.declarations import MIB, About


@dataclass(frozen=True, kw_only=True)
class ClientsSettings:
    """Sessions of clients, what is sent to them and what they may send."""

    frame_limit_bytes: Annotated[
        int,
        About(
            "Size of one message from a client, also over HTTP",
            why="Lower it when no call needs large arguments. The default holds 16 MiB and its envelope.",
            unit="bytes",
            group="Clients",
            ge=64 * 1024,
            le=64 * MIB,
        ),
    ] = 16 * MIB + 64 * 1024
    session_send_buffer_bytes: Annotated[
        int,
        About(
            "Bytes that wait for one client's socket before its transitions pause",
            why="A slow client gets the newest state instead of every state; a lower one does so earlier.",
            unit="bytes",
            ge=16 * 1024,
            le=64 * MIB,
        ),
    ] = 256 * 1024
    session_unsent_limit_bytes: Annotated[
        int,
        About(
            "Bytes that the system may hold for one client beside, not yet sent",
            why="A higher one lets more become old there; raise it for single clients on very fast lines.",
            unit="bytes",
            ge=16 * 1024,
            le=64 * MIB,
        ),
    ] = 64 * 1024
    compress_from_bytes: Annotated[
        int,
        About(
            "Size from which messages are compressed for WebSocket clients that can inflate, as browsers can",
            why="0 compresses nothing, which spares the daemon's time where bytes cost nothing: 10 µs a kilobyte,"
            " and 40 kB of memory for each client that compresses what it sends.",
            unit="bytes",
            ge=0,
            le=64 * MIB,
        ),
    ] = 1024
    session_stall_limit_s: Annotated[
        float,
        About(
            "Time a client may take nothing at all before its connection is closed",
            why="Raise it for clients on bad networks.",
            unit="s",
            ge=1,
            le=3600,
        ),
    ] = 60.0
    heartbeat_s: Annotated[
        float,
        About(
            "Time between heartbeats on an idle connection",
            why="Three without a word end one: 1.5 brings clients on a dead line back within 5 s. For 1,000 idle clients 15 costs 1 % of a core,"
            " 5 costs 2 %, 1.5 costs 7 %, and radios of phones sleep less.",
            unit="s",
            ge=1,
            le=600,
        ),
    ] = 5.0
    max_sessions: Annotated[
        int,
        About(
            "Connections at one time",
            why="An idle one takes about 14 kB; the system's hard limit on open files must allow as many.",
            unit="sessions",
            ge=1,
            le=1_000_000,
        ),
    ] = 20_000
    turn_messages_limit: Annotated[
        int,
        About(
            "Messages of all clients that are taken in one turn of the event loop; others wait unread",
            why="A higher one takes floods faster, and answers others later meanwhile.",
            unit="messages",
            ge=1,
            le=100_000,
        ),
    ] = 64
    overload_share_percent: Annotated[
        int,
        About(
            "Part of the time for taking messages, most to be refused, while as many mutations wait as may",
            why="A lower one keeps more of the rate of mutations in an overload, a higher one refuses sooner.",
            unit="percent",
            ge=1,
            le=100,
        ),
    ] = 10
    max_http_connections: Annotated[
        int,
        About(
            "Connections over HTTP at one time, those of WebSockets left out; more are answered 503",
            why="Each may hold a request of `frame_limit_bytes`. Raise it where many callers keep theirs open.",
            unit="connections",
            ge=1,
            le=1_000_000,
        ),
    ] = 1_000
    http_idle_limit_s: Annotated[
        float,
        About(
            "Time a connection over HTTP may take until the head of its first request is there, and until the next one is",
            why="Short enough that clients which ask nothing cannot hold all of `max_http_connections`.",
            unit="s",
            ge=1,
            le=3600,
        ),
    ] = 30.0
    http_body_limit_s: Annotated[
        float,
        About(
            "Time the body of a request over HTTP may take, from the end of its head",
            why="As above, for bodies without end; raise it for large bundles over slow lines.",
            unit="s",
            ge=1,
            le=3600,
        ),
    ] = 60.0
    http_header_limit_bytes: Annotated[
        int,
        About(
            "Largest line in the head of a request over HTTP: its address, and each header",
            why="Raise it for clients with large tokens or cookies; there are at most 128 headers.",
            unit="bytes",
            ge=1024,
            le=MIB,
        ),
    ] = 8190
    http_head_limit_bytes: Annotated[
        int,
        About(
            "Largest head of a request over HTTP, all its lines together",
            why="Each of `max_http_connections` may hold one while it comes.",
            unit="bytes",
            ge=4096,
            le=16 * MIB,
        ),
    ] = 65_536
    session_mutations_limit: Annotated[
        int,
        About(
            "Undecided mutations of one session; more are refused as overloaded",
            why="They run one after another, so a long queue is a long wait.",
            unit="mutations",
            ge=1,
            le=1024,
        ),
    ] = 1024
    session_mutations_limit_bytes: Annotated[
        int,
        About(
            "Names and arguments of the mutations of one session that wait; more are refused as overloaded",
            why="A lower one spares memory, a higher one lets a client send more ahead.",
            unit="bytes",
            ge=64 * 1024,
            le=1024 * MIB,
        ),
    ] = 32 * MIB
    mutation_queue_limit: Annotated[
        int,
        About(
            "Undecided mutations of all sessions and over HTTP; more are refused as overloaded",
            why="A lower one refuses earlier, with a higher one more are still to be run after an overload.",
            unit="mutations",
            ge=1,
            le=1_000_000,
        ),
    ] = 5_000
    mutation_queue_limit_bytes: Annotated[
        int,
        About(
            "Names and arguments of those mutations; more are refused as overloaded",
            why="A lower one spares memory, a higher one takes more large mutations at a time.",
            unit="bytes",
            ge=64 * 1024,
            le=64 * 1024 * MIB,
        ),
    ] = 128 * MIB
    mutation_gate_limit_ms: Annotated[
        int,
        About(
            "Time that mutations wait at most for others that keep losing to conflicts",
            why="A lower one favours those on documents of their own, a higher one those on contended documents.",
            unit="ms",
            ge=0,
            le=10_000,
        ),
    ] = 50
    delta_memory_bytes: Annotated[
        int,
        About(
            "Memory for earlier results, against which deltas are made; half as much each for encoded changes and idle results",
            why="Raise it if many large results change often: one that is gone is sent whole.",
            unit="bytes",
            ge=MIB,
            le=16 * 1024 * MIB,
        ),
    ] = 32 * MIB

    request_retention_s: Annotated[
        float,
        About(
            "Time for which the outcome of a mutation is remembered for a client that does not say it has it",
            why="A client that was away for longer is told `outcome_unknown` for what it had in flight."
            " Each remembered outcome takes the size of the mutation's result and about 100 bytes.",
            unit="s",
            ge=1,
            le=366 * 86_400,
        ),
    ] = 14 * 86_400.0
    request_trim_interval_s: Annotated[
        float,
        About(
            "Pause between two passes that drop outcomes past their retention",
            why="A longer one spares the daemon's loop when very many are remembered.",
            unit="s",
            ge=0.1,
            le=86_400,
        ),
    ] = 600.0
    request_trim_limit_rows: Annotated[
        int,
        About(
            "Outcomes that such a pass looks at in one step; there are 50 steps a second",
            why="A step holds the daemon's loop for about 5 µs a row.",
            unit="rows",
            ge=1,
            le=100_000,
        ),
    ] = 256

    drain_limit_s: Annotated[
        float,
        About(
            "Time that a stopping daemon gives to what it had accepted: calls, updates, deploys",
            why="Keep it 3 s below the time after which your supervisor kills: the rest of the stop takes them.",
            unit="s",
            ge=0,
            le=60,
        ),
    ] = 7.0
