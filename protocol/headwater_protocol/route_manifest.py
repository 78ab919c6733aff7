"""What a bundle declares of its HTTP routes, as part of its manifest. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headwater_protocol.errors import ProtocolError, RequestError
from headwater_protocol.manifest_fields import flag_at, object_at, text_at, texts_at
from headwater_protocol.route_patterns import METHODS, parse_pattern

CORS_AGE_MAX_S = 86_400
ANY_ORIGIN = "*"


@dataclass(frozen=True, slots=True)
class CorsManifest:
    """Pages of which origins may read a route's answers.

    Attributes:
        origins: As browsers name them, or `*` alone for all.
        headers: Of a request, which a page may set beyond the ones that any form may.
        exposed: Of an answer, which a page may read beyond the simple ones.
        credentials: Whether a page may send what the browser has for this address: cookies, certificates.
        max_age_s: How long a browser may remember this.
    """

    origins: tuple[str, ...]
    headers: tuple[str, ...] = ()
    exposed: tuple[str, ...] = ()
    credentials: bool = False
    max_age_s: int = 600

    def allows(self, origin: str) -> bool:
        """Tell whether pages of an origin may read answers."""
        return bool(origin) and (ANY_ORIGIN in self.origins or origin in self.origins)


@dataclass(frozen=True, slots=True)
class RouteManifest:
    """One route.

    Attributes:
        method: As in HTTP; GET stands for HEAD as well.
        path: Its address, with its parameters.
        name: The function that answers, `module:function`.
        parameters: JSON schema of its parameters, an object.
        cors: Which pages may read its answers, None: those of its own origin.
        doc: Its docstring, "" if there is none.
    """

    method: str
    path: str
    name: str
    parameters: dict[str, Any]
    cors: CorsManifest | None = None
    doc: str = ""

    @property
    def label(self) -> str:
        """What it is called for people."""
        return f"{self.method} {self.path}"


def route_out(route: RouteManifest) -> dict[str, Any]:
    """Return a route as JSON has it."""
    cors = route.cors
    told: dict[str, Any] = {
        "method": route.method,
        "path": route.path,
        "name": route.name,
        "parameters": route.parameters,
        "doc": route.doc,
    }
    if cors is not None:
        told["cors"] = {
            "origins": list(cors.origins),
            "headers": list(cors.headers),
            "exposed": list(cors.exposed),
            "credentials": cors.credentials,
            "max_age_s": cors.max_age_s,
        }
    return told


def route_in(value: Any, where: str) -> RouteManifest:
    """Return what `route_out` made.

    Raises:
        ProtocolError: It is no route; says where.
    """
    route = object_at(value, where)
    method = text_at(route, "method", where)
    if method not in METHODS:
        raise ProtocolError(f"{where}.method: expected one of {', '.join(METHODS)}, got {method!r:.100}")
    path = text_at(route, "path", where)
    try:
        parse_pattern(path)
    except RequestError as wrong:
        raise ProtocolError(f"{where}.path: {wrong.message}") from None
    return RouteManifest(
        method,
        path,
        text_at(route, "name", where),
        object_at(route.get("parameters"), f"{where}.parameters"),
        _cors_in(route["cors"], f"{where}.cors") if "cors" in route else None,
        text_at(route, "doc", where),
    )


def _cors_in(value: Any, where: str) -> CorsManifest:
    cors = object_at(value, where)
    age_s = cors.get("max_age_s")
    if not isinstance(age_s, int) or isinstance(age_s, bool) or not 0 <= age_s <= CORS_AGE_MAX_S:
        raise ProtocolError(f"{where}.max_age_s: expected seconds up to {CORS_AGE_MAX_S}, got {age_s!r:.100}")
    return CorsManifest(
        texts_at(cors, "origins", where),
        texts_at(cors, "headers", where),
        texts_at(cors, "exposed", where),
        flag_at(cors, "credentials", where),
        age_s,
    )
