"""Where the daemon stands: data, addresses, TLS, the admin key."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from headwater_config.declarations import About


@dataclass(frozen=True, kw_only=True)
class WhereSettings:
    """Where the daemon stands: data, addresses, TLS, the admin key."""

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
            "Whether clients see a request id in place of the text of unexpected errors, and Convex's clients nothing of what"
            " calls print",
            why="Set it where clients are strangers: error texts and traces tell how your code works.",
        ),
    ] = False
