"""Messages of Convex's clients, as they stand in JSON text, and those to them.

Pure. Unknown fields are ignored; a number that counts something is not negative.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import orjson
from headwater_protocol.errors import ProtocolError
from headwater_protocol.limits import INTEGER_MAX, LIST_ITEMS_MAX

from headwater_server.json_bounds import JSON_VALUES_MAX, has_too_many_values

_TIME_BYTES = 8
_Number = Annotated[int, msgspec.Meta(ge=0, le=INTEGER_MAX)]


class Connect(msgspec.Struct, tag_field="type", tag=True, frozen=True):
    """First message of a connection.

    Attributes:
        session_id: A UUID that names the client across its reconnects.
        max_observed: Newest ts that it has seen, in a transition or an answer; None: none.
    """

    session_id: str = msgspec.field(name="sessionId")
    max_observed: str | None = msgspec.field(default=None, name="maxObservedTimestamp")


class Authenticate(msgspec.Struct, tag_field="type", tag=True, frozen=True):
    """Change who the client is.

    Attributes:
        token_type: A token of a user, a key of the deployment, or nobody.
        base_version: Number of the authentication before.
        value: Token or key.
        impersonating: What a token of the user would claim as whom the holder of a key acts.
    """

    token_type: Literal["User", "Admin", "None"] = msgspec.field(name="tokenType")
    base_version: _Number = msgspec.field(name="baseVersion")
    value: str | None = None
    impersonating: dict[str, Any] | None = None


class Add(msgspec.Struct, tag_field="type", tag=True, frozen=True):
    """Subscribe to a query."""

    query_id: _Number = msgspec.field(name="queryId")
    path: str = msgspec.field(name="udfPath")
    args: Any = None
    journal: str | None = None
    component: str | None = msgspec.field(default=None, name="componentPath")


class Remove(msgspec.Struct, tag_field="type", tag=True, frozen=True):
    """Forget a query."""

    query_id: _Number = msgspec.field(name="queryId")


class ModifyQuerySet(msgspec.Struct, tag_field="type", tag=True, frozen=True):
    """Change what the client looks at."""

    base_version: _Number = msgspec.field(name="baseVersion")
    new_version: _Number = msgspec.field(name="newVersion")
    modifications: Annotated[list[Add | Remove], msgspec.Meta(max_length=LIST_ITEMS_MAX)]


class Mutation(msgspec.Struct, tag_field="type", tag=True, frozen=True):
    """Run a mutation, once however often it is sent."""

    request_id: _Number = msgspec.field(name="requestId")
    path: str = msgspec.field(name="udfPath")
    args: Any = None
    component: str | None = msgspec.field(default=None, name="componentPath")


class Action(msgspec.Struct, tag_field="type", tag=True, frozen=True):
    """Run an action."""

    request_id: _Number = msgspec.field(name="requestId")
    path: str = msgspec.field(name="udfPath")
    args: Any = None
    component: str | None = msgspec.field(default=None, name="componentPath")


class Event(msgspec.Struct, tag_field="type", tag=True, frozen=True):
    """What a client has measured."""


ClientMessage = Connect | Authenticate | ModifyQuerySet | Mutation | Action | Event

_decode = msgspec.json.Decoder(ClientMessage).decode


def decode_message(text: bytes) -> ClientMessage:
    """Return a client's message.

    Raises:
        ProtocolError: It is none, or has too many values.
    """
    if has_too_many_values(text):
        raise ProtocolError(
            f"a message with more than {JSON_VALUES_MAX} values; send them in several", code="frame_too_large"
        )
    try:
        message: ClientMessage = _decode(text)
        return message
    except RecursionError:
        raise ProtocolError("a message with too many lists and objects inside one another") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProtocolError(f"no message of the protocol: {error}") from None


def canonical_name(path: str, component: str | None) -> str:
    """Return the name of a function as bundles have it: `dir/module:function`.

    A path without a function is that of `default`, and `.js` behind the module's name says nothing.
    """
    module, colon, function = path.rpartition(":")
    if not colon:
        module, function = path, "default"
    name = f"{module.removesuffix('.js')}:{function}"
    return (
        f"{component}/{name}" if component else name
    )  # there are no components, so there is no such function


def only_argument(args: Any) -> Any:
    """Return what stands for a function's arguments in the list that a message has."""
    if args is None or args == []:
        return {}
    return args[0] if isinstance(args, list) and len(args) == 1 else args


def time_text(ts: int) -> str:
    """Return a commit ts as these clients have it."""
    return base64.b64encode(ts.to_bytes(_TIME_BYTES, "little")).decode()


def time_of(text: str) -> int:
    """Return the commit ts that a text says.

    Raises:
        ProtocolError: None.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if len(data) != _TIME_BYTES:
        raise ProtocolError(f"expected a timestamp, base64 of {_TIME_BYTES} bytes, got {text[:40]!r}")
    return int.from_bytes(data, "little")


def journal_text(journal: bytes | None) -> str | None:
    """Return a journal for the client to keep."""
    return None if journal is None else base64.b64encode(journal).decode()


def journal_of(text: str | None) -> bytes | None:
    """Return the journal that a client has kept; one that is none of ours only makes a fresh page."""
    if text is None:
        return None
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


class Place(NamedTuple):
    """Where a client stands: what `startVersion` and `endVersion` say."""

    query_set: int
    identity: int
    ts: int

    @property
    def fields(self) -> dict[str, Any]:
        """As it stands in a transition."""
        return {"querySet": self.query_set, "identity": self.identity, "ts": time_text(self.ts)}


START = Place(0, 0, 0)


def transition_text(start: Place, end: Place, modifications: list[bytes]) -> bytes:
    """Return a transition; what became of the queries is JSON already."""
    head = orjson.dumps({"type": "Transition", "startVersion": start.fields, "endVersion": end.fields})
    return b'%b,"modifications":[%b]}' % (head[:-1], b",".join(modifications))


def modification_text(query: int, body: bytes) -> bytes:
    """Return what became of a query; `body` is an object of JSON with all but its number."""
    return b'{"queryId":%d,%b' % (query, body[1:])


def updated_text(value: bytes, journal: bytes | None) -> bytes:
    """Return the body that brings a value, which is JSON already."""
    rest = orjson.dumps({"logLines": [], "journal": journal_text(journal)})
    return b'{"type":"QueryUpdated","value":%b,%b' % (value, rest[1:])


REMOVED = b'{"type":"QueryRemoved"}'
PING = b'{"type":"Ping"}'


def response_text(fields: dict[str, Any], *, result: bytes | None = None, data: bytes | None = None) -> bytes:
    """Return a message of fields, with a result or an error's data that are JSON already."""
    text = orjson.dumps(fields)[:-1]
    if result is not None:
        text += b',"result":' + result
    if data is not None:
        text += b',"errorData":' + data
    return text + b"}"
