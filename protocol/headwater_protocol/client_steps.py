"""Whether what the server says fits where a client stands. Pure; a part of `client_session`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from headwater_protocol.client_events import Fatal
from headwater_protocol.errors import LocalProtocolError, ProtocolError
from headwater_protocol.failures import error_from
from headwater_protocol.limits import CONNECT_FRAME_BYTES, SESSION_BYTES
from headwater_protocol.versions import SUPPORTED_VERSIONS

if TYPE_CHECKING:
    from headwater_protocol.messages import ErrorBody, Version, Welcome

_FINAL_CODES = frozenset({"unsupported_version", "protocol_error", "frame_too_large", "unauthenticated"})


class Sent(NamedTuple):
    """What the client has sent on this connection.

    Attributes:
        query_set: Number of the last modification.
        identity: How many authentications.
    """

    query_set: int
    identity: int


def check_session(session: bytes) -> None:
    """Refuse a session id of another length.

    Raises:
        LocalProtocolError: It is one.
    """
    if len(session) != SESSION_BYTES:
        raise LocalProtocolError(f"a session id has {SESSION_BYTES} bytes, not {len(session)}")


def check_welcome(message: Welcome) -> None:
    """Refuse a Welcome that nothing can be begun with.

    Raises:
        ProtocolError: It is one.
    """
    if message.version not in SUPPORTED_VERSIONS:
        raise ProtocolError(
            f"Welcome.version: expected one of {SUPPORTED_VERSIONS}, got {message.version}",
            code="unsupported_version",
        )
    if message.frame_limit_bytes < CONNECT_FRAME_BYTES or not message.heartbeat_ms:
        raise ProtocolError(
            f"Welcome: expected frame_limit_bytes of {CONNECT_FRAME_BYTES} or more and a heartbeat"
        )


def check_step(start: Version, end: Version, version: Version, last_ts: int, sent: Sent) -> None:
    """Refuse a transition that does not go on from where the client stands.

    Args:
        start: Where it starts.
        end: Where it ends.
        version: Where the last one of this connection left the client.
        last_ts: Newest ts that the client's values have held at.
        sent: What it may reflect.

    Raises:
        ProtocolError: It does not.
    """
    if start != version:
        raise ProtocolError(f"Transition.start: expected {tuple(version)}, got {tuple(start)}")
    if end.ts < max(start.ts, last_ts):
        raise ProtocolError(f"Transition.end: expected ts {last_ts} or later, got {end.ts}")
    if not start.query_set <= end.query_set <= sent.query_set:
        raise ProtocolError(f"Transition.end: query set {end.query_set} was never sent")
    if not start.identity <= end.identity <= sent.identity:
        raise ProtocolError(f"Transition.end: identity {end.identity} was never sent")


def fatal_event(body: ErrorBody) -> Fatal:
    """Return what the last message of a connection means: whether another connection is of use."""
    return Fatal(error_from(body), body.code not in _FINAL_CODES)
