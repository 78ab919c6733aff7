"""Bounds of the protocol: what both sides may rely on, and what a peer can be told.

Pure. Constants are part of the protocol (SPEC.md names them); `ServerLimits` are the
server's settings, handed over by its composition root.
"""

from __future__ import annotations

from dataclasses import dataclass

INTEGER_MAX = 2**53 - 1  # every integer of a message; a JavaScript number holds it
CONNECT_FRAME_BYTES = 64 * 1024  # largest frame before the server's `Welcome`
SESSION_BYTES = 16
INCARNATION_BYTES = 16
LIST_ITEMS_MAX = 16_384  # items of one list of a message
UNKNOWN_VALUES_MAX = 1_024  # values, nested ones counted, that a receiver skips in one message
QUERIES_MAX = 4_096  # queries of one session at a time
REQUESTS_IN_FLIGHT_MAX = 1_024  # mutations and actions of one connection without an answer
VALUE_DEPTH_MAX = 64  # lists and dicts inside one another
SILENCE_FACTOR = 3  # heartbeats without a message after which a peer is given up


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What the server allows one connection.

    Attributes:
        frame_limit_bytes: Largest frame once the connection is accepted.
        heartbeat_ms: Each side sends something at least this often.
        held_messages_max: Messages that may wait behind an `Authenticate`.
        held_bytes_max: The same in bytes of their frames.
        stream_window_bytes: Pieces of one action that may be on their way to the client.
    """

    frame_limit_bytes: int = 16 * 1024 * 1024
    heartbeat_ms: int = 15_000
    held_messages_max: int = 1_024
    held_bytes_max: int = 16 * 1024 * 1024
    stream_window_bytes: int = 64 * 1024
