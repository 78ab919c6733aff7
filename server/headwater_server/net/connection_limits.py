"""How much one client, and all of them, may have."""

from __future__ import annotations

from dataclasses import dataclass, field

from headwater_protocol.limits import ServerLimits

from headwater_server.net.inlet import InletLimits


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Bounds of connections.

    Attributes:
        wire: What the protocol session enforces.
        connections_max: Connections at one time.
        send_buffer_bytes: Bytes that wait for the socket after which a client gets no transitions. Twice as many
            of other messages on top end the connection.
        unsent_bytes: What the system may hold beside, not yet sent.
        deflate_from_bytes: Messages from that size on are compressed for clients that can inflate; 0: none.
        stall_limit_s: Time without reading after which a client is closed.
        kept_answers_bytes: Results of mutations kept for a client that does not read; they are
            stored, so that one whose connection is ended gets them again.
        inlet: How much of what clients send is taken at a time.
        subscribed_bytes: Names, arguments and journals of the queries of one session.
    """

    wire: ServerLimits = field(default_factory=ServerLimits)
    connections_max: int = 20_000
    send_buffer_bytes: int = 256 << 10
    unsent_bytes: int = 64 << 10
    deflate_from_bytes: int = 1024
    stall_limit_s: float = 60.0
    kept_answers_bytes: int = 4 << 20
    inlet: InletLimits = field(default_factory=InletLimits)
    subscribed_bytes: int = 32 << 20
