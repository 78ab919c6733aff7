"""What one address and one user may have open and ask for."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network
from typing import Annotated

from headwater_config.declarations import About


def _require_networks(text: str) -> None:
    for part in text.split(","):
        try:
            ip_network(part.strip())
        except ValueError as error:
            raise ValueError(
                f"{error}; must be addresses and networks, as in 127.0.0.1, 10.0.0.0/8"
            ) from None


@dataclass(frozen=True, kw_only=True)
class AddressesSettings:
    """Limits of addresses and users."""

    trusted_proxies: Annotated[
        str | None,
        About(
            "Addresses and networks of the proxies in front, separated by commas, whose `X-Forwarded-For` says who a client is",
            why="Behind a proxy all clients have its address: name it, as in `127.0.0.1, 10.0.0.0/8`, for limits that tell them apart."
            " What it forwards must end with the address that it was connected from. Nobody else's word counts.",
            group="Addresses and users",
            check=_require_networks,
        ),
    ] = None
    private_address_limits: Annotated[
        bool,
        About(
            "Whether what follows holds for addresses of this machine and of private networks as well",
            why="Behind such an address there may be a proxy with everybody. Turn it on where strangers are in the network itself.",
        ),
    ] = False
    address_sessions_limit: Annotated[
        int,
        About(
            "Connections of clients, over WebSocket and TCP, from one address at one time; of IPv6 from one /64; 0: any number",
            why="So that one address cannot take all of `max_sessions`. Offices and phone networks have one address for very many.",
            unit="sessions",
            ge=0,
            le=1_000_000,
        ),
    ] = 5_000
    address_http_connections_limit: Annotated[
        int,
        About(
            "Connections over HTTP from one address at one time, those of WebSockets left out; 0: any number",
            why="So that one address cannot take all of `max_http_connections`.",
            unit="connections",
            ge=0,
            le=1_000_000,
        ),
    ] = 250
    address_connections_limit_per_second: Annotated[
        int,
        About(
            "New connections of all kinds from one address; 0: any number",
            why="After a restart all clients behind one address come back at once: `limit_burst_s` is for them.",
            unit="connections",
            ge=0,
            le=1_000_000,
        ),
    ] = 100
    address_requests_limit_per_second: Annotated[
        int,
        About(
            "Requests from one address: mutations, actions, queries that are subscribed to, and requests over HTTP; 0: any number",
            why="Lower it to about what your busiest office does, raise it for servers that call in the name of many users.",
            unit="requests",
            ge=0,
            le=1_000_000,
        ),
    ] = 2_000
    user_requests_limit_per_second: Annotated[
        int,
        About(
            "Requests of one user who has signed in, from all addresses together; 0: any number",
            why="As above, for one person and all their devices. Holders of a key of the deployment have no such limit.",
            unit="requests",
            ge=0,
            le=1_000_000,
        ),
    ] = 500
    limit_burst_s: Annotated[
        float,
        About(
            "What may come at once after a pause, in these limits a second: as much as in so many seconds",
            why="Raise it where many come back together, lower it where bursts do harm.",
            unit="s",
            ge=1,
            le=3600,
        ),
    ] = 10.0
    tls_handshakes_limit: Annotated[
        int,
        About(
            "TLS handshakes under way at one time, a quarter of them from one address; more are cut off, and clients try again; 0: any number",
            why="Each holds about 60 kB and costs a millisecond or two. Raise it where very many clients with slow lines come at once.",
            unit="handshakes",
            ge=0,
            le=1_000_000,
        ),
    ] = 500
