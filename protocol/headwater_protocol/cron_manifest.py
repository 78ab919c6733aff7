"""What a bundle declares of its crons, as part of its manifest. Pure."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any, Literal

from headwater_protocol.errors import ProtocolError, RequestError
from headwater_protocol.manifest_fields import object_at, text_at
from headwater_protocol.values import check_value, scan_value, unpack_value


@dataclass(frozen=True, slots=True)
class CronManifest:
    """One cron: a function that runs again and again.

    Attributes:
        name: Tells it from others.
        schedule: When: `every 600s`, or a cron expression of five fields.
        time_zone: In which that is meant.
        function: What runs.
        kind: What that is.
        arguments: What it is called with, an encoded map.
    """

    name: str
    schedule: str
    time_zone: str
    function: str
    kind: Literal["mutation", "action"]
    arguments: bytes


def cron_out(cron: CronManifest) -> dict[str, Any]:
    """Return a cron as it stands in a manifest's JSON."""
    return {
        "name": cron.name,
        "schedule": cron.schedule,
        "time_zone": cron.time_zone,
        "function": cron.function,
        "kind": cron.kind,
        "arguments": base64.b64encode(cron.arguments).decode(),
    }


def cron_in(value: Any, where: str) -> CronManifest:
    """Read what `cron_out` wrote.

    Raises:
        ProtocolError: It is no cron; says where.
    """
    cron = object_at(value, where)
    kind: Any = cron.get("kind")
    if kind not in ("mutation", "action"):
        raise ProtocolError(f"{where}.kind: expected mutation or action, got {kind!r}")
    try:
        arguments = base64.b64decode(text_at(cron, "arguments", where), validate=True)
        scan_value(arguments)
        check_value(unpack_value(arguments))
    except (ValueError, binascii.Error, ProtocolError, RequestError):
        raise ProtocolError(f"{where}.arguments: expected an encoded value in base64") from None
    return CronManifest(
        text_at(cron, "name", where),
        text_at(cron, "schedule", where),
        text_at(cron, "time_zone", where),
        text_at(cron, "function", where),
        kind,
        arguments,
    )
