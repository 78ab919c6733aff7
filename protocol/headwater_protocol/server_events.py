"""What a server session tells its shell: a closed union, each with what the server has to do.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headwater_protocol.messages import AddQuery, Connect


@dataclass(frozen=True, slots=True)
class Connected:
    """The first message is good; call `welcome` (or `fatal`) before anything else."""

    connect: Connect
    version: int


@dataclass(frozen=True, slots=True)
class QuerySetModified:
    """Subscribe to `add`, forget `remove`; a transition is due even if both are empty."""

    add: tuple[AddQuery, ...]
    remove: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MutationRequested:
    """Run a mutation after those before it, unless it is known how it ended.

    Attributes:
        request: Its number in the session.
        name: Function.
        arguments: Encoded map.
        forget_below: Outcomes of requests below this number are not asked for any more.
        sent_ts: Newest ts the session had seen when it was first sent; None if it was first
            sent on this connection.
        traceparent: The span in which it is called, as the client says; "": none.
    """

    request: int
    name: str
    arguments: bytes
    forget_below: int = 0
    sent_ts: int | None = None
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class ActionRequested:
    """Run an action.

    Attributes:
        request: Its number in the session.
        name: Function.
        arguments: Encoded map.
        window: Bytes of pieces that may be on their way to the client; 0: it takes one result.
        traceparent: As in `MutationRequested`.
    """

    request: int
    name: str
    arguments: bytes
    window: int = 0
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class ActionCredited:
    """The client has taken so many bytes of an action's pieces. The action may be over."""

    request: int
    size: int


@dataclass(frozen=True, slots=True)
class ActionCancelled:
    """The client does not wait for an action any more. It may be over; if not it is still to be answered."""

    request: int


@dataclass(frozen=True, slots=True)
class AuthenticateRequested:
    """Check a token (None: sign out), then call `authenticated` or `authentication_refused`."""

    base: int
    token: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyOffered:
    """Check a key of the deployment, then call `authenticated` or `authentication_refused`. No message of our own asks it.

    Attributes:
        base: As in `AuthenticateRequested`.
        key: The key.
        claims: What a token of the user would claim as whom its holder acts; None: as nobody.
    """

    base: int
    key: str = field(repr=False)
    claims: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class SendFrame:
    """Send this."""

    frame: bytes


@dataclass(frozen=True, slots=True)
class PongReceived:
    """The client answered a `ping`."""

    nonce: int


@dataclass(frozen=True, slots=True)
class PeerSilent:
    """The client has sent nothing for three heartbeats: cut the connection."""


ServerEvent = (
    Connected
    | QuerySetModified
    | MutationRequested
    | ActionRequested
    | ActionCredited
    | ActionCancelled
    | AuthenticateRequested
    | KeyOffered
    | SendFrame
    | PongReceived
    | PeerSilent
)
