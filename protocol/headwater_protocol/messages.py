"""The messages between a client and the server: one frozen dataclass each, a closed union per direction.

Pure. On the wire each is a msgpack array `[TAG, field, field, …]` in the order of the
fields here; a receiver ignores elements behind those it knows. Arguments, results and
change bodies are encoded msgpack of their own inside a bin, so that the server routes
them unread.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple


class Version(NamedTuple):
    """Where a session stands: every change of one of the three is announced by a transition.

    Attributes:
        query_set: Number of the last query-set modification that is reflected.
        identity: Number of the last authentication that is reflected.
        ts: Commit ts that all results of the session hold at.
    """

    query_set: int
    identity: int
    ts: int


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """An error as it crosses the wire: `[code, message, data or nil]` (data only for application errors)."""

    code: str
    message: str
    data: bytes | None = None


# ---------------------------------------------------------------------------------- client to server


@dataclass(frozen=True, slots=True)
class Connect:
    """First message of a connection.

    Attributes:
        versions: Protocol versions the client speaks.
        session: 16 random bytes that name the client across its reconnects.
        last_ts: Newest ts this session has seen, 0 at first.
        incarnation: Incarnation of the log that `last_ts` comes from, None at first.
        client: Name and version of the client, for logs.
    """

    TAG: ClassVar[int] = 1
    versions: tuple[int, ...]
    session: bytes
    last_ts: int
    incarnation: bytes | None
    client: str


@dataclass(frozen=True, slots=True)
class AddQuery:
    """One query to subscribe to.

    Attributes:
        query: Client's number for it, unique in the session.
        name: Function, `module:function`.
        arguments: Encoded map of arguments.
        journal: What the last result's journal was, when resuming; else None.
        digest: Digest of the value the client still holds, when resuming; else None.
    """

    query: int
    name: str
    arguments: bytes
    journal: bytes | None = None
    digest: bytes | None = None


@dataclass(frozen=True, slots=True)
class ModifyQuerySet:
    """Add and remove queries. `base` must be the last `new` of this connection (0 at its start)."""

    TAG: ClassVar[int] = 2
    base: int
    new: int
    add: tuple[AddQuery, ...]
    remove: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Mutation:
    """Run a mutation, once however often it is sent.

    Attributes:
        request: Rises within a session; a resend has the same number.
        name: Function, `module:function`.
        arguments: Encoded map of arguments.
        forget_below: The client has the answers of all its mutations below this number, or
            will never ask for them again; at most `request`.
        sent_ts: Newest ts that a Welcome or Transition had told the session when the mutation
            was first sent; a resend has the same.
        traceparent: The span in which it is called, as in W3C Trace Context; empty: none.
    """

    TAG: ClassVar[int] = 3
    SPARSE: ClassVar[int] = 1
    request: int
    name: str
    arguments: bytes
    forget_below: int = 0
    sent_ts: int = 0
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Action:
    """Run an action. Never resent.

    Attributes:
        request: As in `Mutation`.
        name: Function.
        arguments: Encoded map of arguments.
        window: Bytes of pieces that may be on their way to the client; 0: it takes one result.
        traceparent: As in `Mutation`.
    """

    TAG: ClassVar[int] = 4
    SPARSE: ClassVar[int] = 2
    request: int
    name: str
    arguments: bytes
    window: int = 0
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Authenticate:
    """Change the identity of the session. `token` None signs out."""

    TAG: ClassVar[int] = 5
    base: int
    token: str | None = field(repr=False)  # a secret: no trace or log may show it


@dataclass(frozen=True, slots=True)
class Ping:
    """Ask for a `Pong` with the same nonce. Either side may send it."""

    TAG: ClassVar[int] = 6
    nonce: int


@dataclass(frozen=True, slots=True)
class Pong:
    """Answer to a `Ping`. Either side may send it."""

    TAG: ClassVar[int] = 7
    nonce: int


@dataclass(frozen=True, slots=True)
class ActionCredit:
    """The client has taken so many bytes of an action's pieces: as many more may come. To servers with a `stream_window`."""

    TAG: ClassVar[int] = 8
    request: int
    size: int


@dataclass(frozen=True, slots=True)
class CancelAction:
    """Nobody waits for an action any more; its answer still comes. To servers with a `stream_window`."""

    TAG: ClassVar[int] = 9
    request: int


ClientMessage = (
    Connect | ModifyQuerySet | Mutation | Action | Authenticate | Ping | Pong | ActionCredit | CancelAction
)

# ---------------------------------------------------------------------------------- server to client


@dataclass(frozen=True, slots=True)
class Welcome:
    """Answer to `Connect`.

    Attributes:
        version: Protocol version that both sides speak from here on.
        incarnation: 16 bytes that name this opening of the log.
        ts: Published ts of the server.
        frame_limit_bytes: Largest frame the server takes from now on.
        heartbeat_ms: Each side sends something at least this often and gives the other up
            after three times that.
        stream_window: Largest window of an action that streams; 0: the server knows no streams, and takes
            neither `ActionCredit` nor `CancelAction`.
    """

    TAG: ClassVar[int] = 33
    SPARSE: ClassVar[int] = 1
    version: int
    incarnation: bytes
    ts: int
    frame_limit_bytes: int
    heartbeat_ms: int
    stream_window: int = 0


@dataclass(frozen=True, slots=True)
class Value:
    """A whole result: `[0, content, digest, journal]`."""

    KIND: ClassVar[int] = 0
    content: bytes
    digest: bytes
    journal: bytes | None = None


@dataclass(frozen=True, slots=True)
class Delta:
    """How the result the client holds becomes the new one: `[1, operations, digest, journal]` (see SPEC.md)."""

    KIND: ClassVar[int] = 1
    operations: bytes
    digest: bytes
    journal: bytes | None = None


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The value whose digest the client gave when resuming is still right: `[2, digest, journal]`."""

    KIND: ClassVar[int] = 2
    digest: bytes
    journal: bytes | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The query failed: `[3, [code, message, data]]`. It stays subscribed; a later change may bring a value."""

    KIND: ClassVar[int] = 3
    error: ErrorBody


@dataclass(frozen=True, slots=True)
class Removed:
    """The query is no longer part of the query set: `[4]`."""

    KIND: ClassVar[int] = 4


ChangeBody = Value | Delta | Unchanged | Failed | Removed


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one query: `[query, body]`. The server encodes a body once and sends it to many."""

    query: int
    body: ChangeBody


@dataclass(frozen=True, slots=True)
class Transition:
    """Move the session from `start` (equal to the last `end`) to `end`, all its queries together."""

    TAG: ClassVar[int] = 34
    start: Version
    end: Version
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class MutationAnswer:
    """Outcome of a mutation; comes before any transition at or after `ts`, and one that covers it follows.

    Attributes:
        request: Number of the mutation.
        ts: Commit ts, or the snapshot that a read-only success or a failure saw.
        value: Encoded result; None when it failed.
        error: What failed; None on success.
    """

    TAG: ClassVar[int] = 35
    request: int
    ts: int
    value: bytes | None
    error: ErrorBody | None


@dataclass(frozen=True, slots=True)
class ActionAnswer:
    """Outcome of an action."""

    TAG: ClassVar[int] = 36
    request: int
    value: bytes | None
    error: ErrorBody | None


@dataclass(frozen=True, slots=True)
class AuthError:
    """An `Authenticate` was refused; the identity stays what it was."""

    TAG: ClassVar[int] = 37
    base: int
    message: str


@dataclass(frozen=True, slots=True)
class FatalError:
    """Last message of a connection that the server ends, with an error code."""

    TAG: ClassVar[int] = 38
    error: ErrorBody


@dataclass(frozen=True, slots=True)
class ActionPiece:
    """A piece of an action that streams, only for one that was asked for with a window; `ActionAnswer` follows the last one.

    Attributes:
        request: Number of the action.
        content: Encoded value. Its bytes count against the window.
    """

    TAG: ClassVar[int] = 39
    request: int
    content: bytes


ServerMessage = (
    Welcome | Transition | MutationAnswer | ActionAnswer | AuthError | FatalError | Ping | Pong | ActionPiece
)
