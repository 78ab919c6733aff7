"""What a client session tells its shell: a closed union, each with what the caller needs to know.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headwater_protocol.errors import HeadwaterError


@dataclass(frozen=True, slots=True)
class Opened:
    """The server accepted the connection; everything outstanding is on its way."""

    incarnation: bytes
    ts: int


@dataclass(frozen=True, slots=True)
class ValueChanged:
    """A query has a new value. Parts of it may be shared with the last one: do not change it."""

    query: int
    value: Any


@dataclass(frozen=True, slots=True)
class QueryFailed:
    """A query failed. It stays subscribed; a later change may bring a value."""

    query: int
    error: HeadwaterError


@dataclass(frozen=True, slots=True)
class UpdateFailed:
    """The optimistic update of a mutation raised on new results and shows nothing now. The mutation goes on."""

    request: int
    error: Exception


@dataclass(frozen=True, slots=True)
class MutationResolved:
    """A mutation is decided and, if it succeeded, visible. Comes exactly once for each."""

    request: int
    value: Any
    error: HeadwaterError | None


@dataclass(frozen=True, slots=True)
class PieceArrived:
    """A piece of an action that streams. Call `take` with its size once the caller has it.

    Attributes:
        request: Number of the action.
        value: The piece.
        size: Bytes that it counts as.
    """

    request: int
    value: Any
    size: int


@dataclass(frozen=True, slots=True)
class ActionResolved:
    """An action is over. Comes exactly once for each."""

    request: int
    value: Any
    error: HeadwaterError | None


@dataclass(frozen=True, slots=True)
class IdentityChanged:
    """All values now hold under the last accepted token."""


@dataclass(frozen=True, slots=True)
class AuthenticationFailed:
    """The token was refused; the identity stays what it was."""

    message: str


@dataclass(frozen=True, slots=True)
class IdentityLost:
    """The token that held does so no more: values follow as nobody sees them, and calls wait for another token."""

    message: str


@dataclass(frozen=True, slots=True)
class Moved:
    """A transition was applied as a whole: all values now hold at `ts`."""

    ts: int


@dataclass(frozen=True, slots=True)
class Fatal:
    """The server ends the connection.

    Attributes:
        error: Why.
        reconnect: Whether connecting again may help. With code `session_in_use` call `renew`
            before it.
    """

    error: HeadwaterError
    reconnect: bool


@dataclass(frozen=True, slots=True)
class PeerSilent:
    """The server has sent nothing for three heartbeats: cut the connection and connect again."""


ClientEvent = (
    Opened
    | ValueChanged
    | QueryFailed
    | UpdateFailed
    | MutationResolved
    | ActionResolved
    | PieceArrived
    | IdentityChanged
    | AuthenticationFailed
    | IdentityLost
    | Moved
    | Fatal
    | PeerSilent
)
