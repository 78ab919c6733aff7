"""What a connection needs of the protocol that its client speaks, and in what the protocols differ beside their messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from headwater_protocol.server_session import ServerSession

from headwater_server.convex.log_entries import with_lines
from headwater_server.convex.session import ConvexSession

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from headwater_protocol.errors import HeadwaterError
    from headwater_protocol.limits import ServerLimits
    from headwater_protocol.messages import ErrorBody
    from headwater_protocol.server_events import ServerEvent
    from headwater_protocol.server_session import SameTransitions

    from headwater_server.convex.bodies import JsonBodies


class WireSession(Protocol):
    """The pure session of one connection: `ServerSession`, which describes the methods, or `ConvexSession`."""

    frame_limit_bytes: int

    @property
    def in_flight(self) -> int:
        """How many requests have no answer."""

    def receive(self, frame: bytes, *, stopping: bool = False) -> list[ServerEvent]:
        """Take one frame apart."""

    def welcome(self, incarnation: bytes, ts: int) -> bytes | None:
        """Accept the connection; None: its client is not told."""

    def transition(
        self, ts: int, changes: Sequence[tuple[int, bytes]], same: SameTransitions | None = None
    ) -> bytes:
        """Move the client to `ts`."""

    def mutation_answer(
        self, request: int, ts: int, value: bytes | None, error: ErrorBody | None = None, *, committed: bool = False
    ) -> bytes:  # fmt: skip
        """Answer a mutation."""

    def action_answer(self, request: int, value: bytes | None, error: ErrorBody | None = None) -> bytes:
        """Answer an action."""

    def action_piece(self, request: int, content: bytes) -> bytes:
        """Send a piece of an action that streams."""

    def awaits(self, request: int) -> bool:
        """Tell whether a request has no answer yet."""

    def authenticated(self) -> Iterator[ServerEvent]:
        """Accept the pending authentication."""

    def authentication_refused(self, message: str) -> tuple[bytes, Iterator[ServerEvent]]:
        """Refuse the pending authentication."""

    def identity_lost(self, message: str) -> bytes:
        """Take back the last authentication."""

    def tick(self, now_mono: float) -> list[ServerEvent]:
        """Return what is due."""

    def fatal(self, error: HeadwaterError) -> bytes | None:
        """End the connection; None: the close code says enough."""

    def closing(self, error: HeadwaterError) -> tuple[int, str]:
        """Return the close code and reason for an error that ends the connection."""


AddLines: TypeAlias = "Callable[[bytes, Sequence[tuple[str, str]]], bytes]"


@dataclass(frozen=True, slots=True)
class Dialect:
    """A protocol that clients may speak.

    Attributes:
        session: Makes the session of a new connection.
        whole_results: Its clients take no deltas.
        covers_actions: A transition must follow the answer of an action as well.
        ends_unidentified: A connection whose token is refused, or ends, must end: its client comes back with another.
        ends_on_faults: So must one whose mutation met a fault of the system: its client sends it again. No answer would
            be taken for anything but final.
        asks_system: Its clients may ask functions of the system, if they have a key.
        with_lines: Adds to an answer what its call printed; None: its clients are not told.
        in_flight_max: Requests without an answer beyond which no more is read of a client; 0: it keeps to a limit itself.
    """

    session: Callable[[], WireSession]
    whole_results: bool = False
    covers_actions: bool = False
    ends_unidentified: bool = False
    ends_on_faults: bool = False
    asks_system: bool = False
    with_lines: AddLines | None = None
    in_flight_max: int = 0


_CONVEX_IN_FLIGHT_MAX = 256


def our_own(limits: ServerLimits) -> Dialect:
    """Return the protocol that SPEC.md describes."""
    return Dialect(lambda: ServerSession(limits))


def of_convex(limits: ServerLimits, bodies: JsonBodies) -> Dialect:
    """Return the protocol of Convex's clients."""
    return Dialect(
        lambda: ConvexSession(limits, bodies),
        whole_results=True,
        covers_actions=True,
        ends_unidentified=True,
        ends_on_faults=True,
        asks_system=True,
        with_lines=with_lines,
        in_flight_max=_CONVEX_IN_FLIGHT_MAX,
    )
