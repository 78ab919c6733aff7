"""A client session in the hands of a test, which is its shell and its server."""

from __future__ import annotations

from typing import Any

from headwater_protocol.client_session import ClientSession
from headwater_protocol.codec import decode_client_message, encode_message
from headwater_protocol.messages import (
    Change,
    ChangeBody,
    ClientMessage,
    ServerMessage,
    Transition,
    Value,
    Version,
    Welcome,
)
from headwater_protocol.values import pack_value

SESSION, LOG = b"s" * 16, b"i" * 16
ARGUMENTS = pack_value({"a": 1})


def sent(client: ClientSession) -> list[ClientMessage]:
    """Return what it sends now."""
    return [decode_client_message(frame) for frame in client.take_frames()]


def tell(client: ClientSession, *messages: ServerMessage) -> list[Any]:
    """Hand it messages of the server; return the events."""
    return [event for message in messages for event in client.receive(encode_message(message))]


def open_it(client: ClientSession, frame_limit_bytes: int = 1 << 20, ts: int = 100) -> list[Any]:
    """Begin a connection that the server accepts; return the events."""
    client.connect()
    sent(client)
    return tell(client, Welcome(1, LOG, ts, frame_limit_bytes, 4_000))


def opened() -> ClientSession:
    """Return a session with a connection, what resumes it taken."""
    client = ClientSession(SESSION, "test")
    open_it(client)
    sent(client)
    return client


def move(client: ClientSession, ts: int, *, query_set: int | None = None, **bodies: ChangeBody) -> list[Any]:
    """Send a transition; bodies are given as `q1=…`. It reflects the whole query set unless told."""
    end = client._query_set.number if query_set is None else query_set
    changes = tuple(Change(int(name[1:]), body) for name, body in bodies.items())
    message = Transition(client.version, Version(end, client.version.identity, ts), changes)
    return tell(client, message)


def value(content: Any, digest: bytes = b"d") -> Value:
    """Return a change to a whole value."""
    return Value(pack_value(content), digest)
