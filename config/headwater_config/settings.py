"""Every setting, once: its type, default, unit, bounds, and why one would change it.

The order here is the order of the reference page and of `--help`. Code below the daemon's
composition root never sees `Settings`; it receives the small options object of its own part.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from headwater_config.declarations import About

ENVIRONMENT_PREFIX = "HEADWATER_"
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The daemon's settings. `load` makes one of checked values and knows where each came from."""

    data: Annotated[
        Path,
        About(
            "Folder of the database: log, store, bundles and the first admin key",
            why="Put it on a disk of its own; never on a network file system, never into two daemons.",
            group="Where",
        ),
    ] = Path(".headwater/data")
    host: Annotated[
        str,
        About(
            "Address to listen on",
            why="`0.0.0.0` opens the daemon to other machines. Set `tls_certificate_file` then, or put a proxy with TLS in front.",
        ),
    ] = "127.0.0.1"
    port: Annotated[
        int,
        About(
            "Port of HTTP and of the WebSocket `/sync`; 0 takes any free one",
            why="Another program has it, or a second deployment runs on this machine.",
            ge=0,
            le=65_535,
        ),
    ] = 4510
    tcp_port: Annotated[
        int,
        About(
            "Port of the same protocol over plain TCP with length prefixes; 0 turns it off",
            why="Clients without WebSocket use it; turn it off when there are none.",
            ge=0,
            le=65_535,
        ),
    ] = 4511
    tcp_without_tls: Annotated[
        bool,
        About(
            "Whether that protocol may be spoken beyond loopback without TLS",
            why="Where a network of its own, or the port mapping of a container, decides who can reach and read it.",
        ),
    ] = False
    tls_certificate_file: Annotated[
        Path | None,
        About(
            "Certificate in PEM, those of authorities in between behind it: HTTP, WebSocket and TCP speak TLS with it, on all ports",
            why="To be reached from other machines without a proxy.",
        ),
    ] = None
    tls_key_file: Annotated[
        Path | None,
        About(
            "Private key of that certificate, in PEM and not encrypted; without it, it stands in the file of the certificate",
            why="Readable by the daemon's user alone.",
        ),
    ] = None
    tls_reload_interval_s: Annotated[
        float,
        About(
            "Time between two looks at these files; a pair that has changed is served to new connections, if it can be",
            why="Nothing has to be restarted when a certificate is renewed.",
            unit="s",
            ge=0.1,
            le=86_400,
        ),
    ] = 10.0
    admin_key_file: Annotated[
        Path | None,
        About(
            "File that holds the deployment's admin key",
            why="To bring a key of your own. Without it the first start makes one and writes it to"
            " `admin-key` in the data folder, readable by its owner only.",
        ),
    ] = None
    access_keys_limit: Annotated[
        int,
        About(
            "Keys that there may be beside the admin key, for people and machines; see `headwater key create`",
            why="Each request with a key is compared with all of them.",
            ge=0,
            le=10_000,
        ),
    ] = 100
    production: Annotated[
        bool,
        About(
            "Whether clients see a request id in place of the text of unexpected errors",
            why="Set it where clients are strangers: error texts and traces tell how your code works.",
        ),
    ] = False

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

    call_limit_jobs: Annotated[
        int,
        About(
            "Jobs that one call may schedule",
            why="Each is a document of the call's commit. Who has more to schedule schedules a job that does it.",
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

    token_limit_bytes: Annotated[
        int,
        About(
            "Largest token that says who a client is",
            why="Raise it for a provider that puts much into its tokens, as all groups of a person.",
            unit="bytes",
            group="Sign-in",
            ge=1024,
            le=MIB,
        ),
    ] = 16 * 1024
    token_leeway_s: Annotated[
        float,
        About(
            "How far the clock of a provider may be from this machine's",
            why="Raise it if tokens are refused as made in the future. A token counts that much longer than it says.",
            unit="s",
            ge=0,
            le=300,
        ),
    ] = 3.0
    token_refusals_logged: Annotated[
        int,
        About(
            "Log lines in a minute that say why a token was refused; 0 logs none",
            why="Anybody may send bad tokens; what is not logged is counted, and told with the next line.",
            ge=0,
            le=100_000,
        ),
    ] = 30
    provider_keys_age_s: Annotated[
        float,
        About(
            "Age at which the keys of a provider are fetched again",
            why="Lower it for a provider whose keys may be taken back at any time.",
            unit="s",
            ge=1,
            le=86_400,
        ),
    ] = 3600.0
    provider_keys_pause_s: Annotated[
        float,
        About(
            "Least time between two fetches of a provider's keys, also when a token names a key that is not known",
            why="Anybody may send such tokens. Lower it for a provider that signs with a new key before it shows it.",
            unit="s",
            ge=1,
            le=3600,
        ),
    ] = 60.0
    provider_keys_kept_s: Annotated[
        float,
        About(
            "Age at which keys of a provider that cannot be reached count no more",
            why="Until then its tokens are verified with what was fetched last; after that nobody can sign in.",
            unit="s",
            ge=60,
            le=30 * 86_400,
        ),
    ] = 86_400.0
    provider_fetch_limit_s: Annotated[
        float,
        About(
            "Time for one answer of a provider",
            why="Raise it for a provider that is far away.",
            unit="s",
            ge=0.1,
            le=60,
        ),
    ] = 5.0
    provider_fetch_limit_bytes: Annotated[
        int,
        About(
            "Largest answer of a provider",
            why="Raise it for one that publishes very many keys.",
            unit="bytes",
            ge=1024,
            le=16 * MIB,
        ),
    ] = 256 * 1024
    provider_waiting_limit: Annotated[
        int,
        About(
            "Tokens that may wait for keys of providers; others are refused and may come again",
            why="Raise it for crowds that come back at once after a restart.",
            ge=1,
            le=1_000_000,
        ),
    ] = 10_000
    provider_private_addresses: Annotated[
        bool,
        About(
            "Whether keys may be fetched from private addresses, and from loopback without TLS",
            why="Set it in development, and for a provider in the same private network. A name that a stranger"
            " controls may then lead the daemon to machines that only it can reach.",
        ),
    ] = False
    token_checks_limit: Annotated[
        int,
        About(
            "Tokens that are verified at a time; others wait",
            why="Raise it if many clients come at once while a provider's keys take long to fetch.",
            unit="tokens",
            ge=1,
            le=100_000,
        ),
    ] = 256
    token_check_limit_s: Annotated[
        float,
        About(
            "Longest time of one verification",
            why="A client whose token cannot be verified in time is told to come back: raise it for a provider that answers slowly.",
            unit="s",
            ge=0.1,
            le=60,
        ),
    ] = 15.0
    session_tokens_limit_per_minute: Annotated[
        int,
        About(
            "Tokens of one connection that are verified in a minute; further ones wait, and what the client sent behind",
            why="A client brings one when it connects and one before each ends. Lower it against floods.",
            unit="tokens",
            ge=1,
            le=100_000,
        ),
    ] = 30

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

    routes_port: Annotated[
        int,
        About(
            "Port of its own for the bundle's HTTP routes, which begin at `/` there; 0: they are served below `/http` alone",
            why="For addresses that others prescribe, as `/.well-known/…`, and to open routes to strangers and nothing else.",
            group="Routes",
            ge=0,
            le=65_535,
        ),
    ] = 0
    routes_host: Annotated[
        str | None,
        About(
            "Address of that port; without it, `host`",
            why="Where routes are to be reached from other networks than clients are.",
        ),
    ] = None
    routes_running_limit: Annotated[
        int,
        About(
            "Requests to routes that are answered at a time; more are answered 503",
            why="Each takes a place among the actions, which strangers shall not take all of.",
            ge=1,
            le=100_000,
        ),
    ] = 512
    route_body_limit_bytes: Annotated[
        int,
        About(
            "Largest body of one request to a route",
            why="Raise it for uploads. A route that takes the body as a stream holds a window of it only.",
            unit="bytes",
            ge=1024,
            le=64 * 1024 * MIB,
        ),
    ] = 20 * MIB
    route_time_limit_s: Annotated[
        float,
        About(
            "Longest time from the head of a request to a route to the end of its answer; `action_time_limit_s` holds as well",
            why="Raise both for answers that are streamed for long, lower it where routes answer at once.",
            unit="s",
            ge=0.1,
            le=24 * 3600,
        ),
    ] = 300.0
    route_stall_limit_s: Annotated[
        float,
        About(
            "Time the client of a route may take nothing of its answer before the connection is cut",
            why="Raise it for clients on bad networks.",
            unit="s",
            ge=1,
            le=3600,
        ),
    ] = 30.0

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

    log_format: Annotated[
        Literal["json", "human", "auto"],
        About(
            "Form of the daemon's log lines; `auto` is `human` on a terminal and `json` elsewhere",
            why="Set `json` when a collector reads standard error of a terminal.",
            group="Logs",
        ),
    ] = "auto"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        About("Least level of a log line", why="`debug` while looking for a fault."),
    ] = "info"
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
    environment_key_file: Annotated[
        Path | None,
        About(
            "File with the key that secret environment variables are sealed with; outside the data directory",
            why="Without it the file is called like the data directory with `.key` behind it, and made for the first secret. Keep a"
            " copy where backups of the data are not.",
            group="Environment variables",
        ),
    ] = None
    environment_limit_variables: Annotated[
        int,
        About(
            "Environment variables that there may be",
            why="All are in the memory of each process that runs actions.",
            unit="variables",
            ge=0,
            le=10_000,
        ),
    ] = 512
    environment_name_limit_characters: Annotated[
        int,
        About("Length of a name", why="For names out of other systems.", unit="characters", ge=1, le=150),
    ] = 64
    environment_value_limit_bytes: Annotated[
        int,
        About("Size of a value", why="For certificates and the like.", unit="bytes", ge=1, le=MIB),
    ] = 16 * 1024
