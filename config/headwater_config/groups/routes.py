"""HTTP routes of the bundle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from headwater_config.declarations import MIB, About


@dataclass(frozen=True, kw_only=True)
class RoutesSettings:
    """HTTP routes of the bundle."""

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
