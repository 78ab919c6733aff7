"""Mutations and actions of a client that are in flight, and the frames they go out in.

Pure; a part of `client_session`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from headwater_protocol.client_events import PieceArrived
from headwater_protocol.codec import encode_message
from headwater_protocol.errors import OutcomeUnknown, ProtocolError, RequestError
from headwater_protocol.failures import error_from
from headwater_protocol.messages import Action, ActionAnswer, ActionPiece, Mutation, MutationAnswer
from headwater_protocol.values import unpack_value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headwater_protocol.client_screen import Update
    from headwater_protocol.errors import HeadwaterError


@dataclass(slots=True)
class Request:
    """A mutation or action in flight.

    Attributes:
        message: What is sent, but for what a mutation tells of the moment of its sending.
        sent_ts: Newest ts the server had told when a connection first carried it, None before.
        waits: Whether this connection has carried it and owes the answer.
        update: Shows a mutation's change before the server does, see `client_screen`.
        resent: Whether more than one connection has carried it.
        cared_for: Whether anybody waits for its end.
        success: `(ts, value)` of a mutation that succeeded, until a transition covers its ts.
        sign_in: Number of the sign-in under which it was made.
        signed_in: Whether that was with a token.
    """

    message: Mutation | Action
    sent_ts: int | None = None
    waits: bool = False
    update: Update | None = None
    resent: bool = False
    cared_for: bool = True
    success: tuple[int, Any] | None = None
    sign_in: int = 0
    signed_in: bool = False

    @property
    def outstanding(self) -> bool:
        """Whether it is to be sent on this connection, and was not yet."""
        return self.success is None and not self.waits

    @property
    def sent(self) -> bool:
        """Whether any connection has carried it."""
        return self.sent_ts is not None

    @property
    def undecided(self) -> bool:
        """Whether it is a mutation without an answer: it will be sent again if the connection ends."""
        return self.success is None and isinstance(self.message, Mutation)

    def decided_by(self, ts: int) -> bool:
        """Whether it succeeded and results that hold at `ts` show its effect."""
        return self.success is not None and self.success[0] <= ts


def request_frame(request: Request, in_flight: Mapping[int, Request], told_ts: int) -> bytes:
    """Return the frame of a request as it is sent now.

    Args:
        request: May or may not be among those in flight.
        in_flight: All that are, by number, rising.
        told_ts: Newest ts the server has told.
    """
    message = request.message
    if isinstance(message, Mutation):
        undecided = (number for number, other in in_flight.items() if other.undecided)
        below = min(next(undecided, message.request), message.request)
        sent_ts = told_ts if request.sent_ts is None else request.sent_ts
        message = replace(message, forget_below=below, sent_ts=sent_ts)
    return encode_message(message)


def in_span(message: Mutation | Action, traceparent: str) -> Mutation | Action:
    """Return a request that says in which span it is called; "": in none."""
    return replace(message, traceparent=traceparent) if traceparent else message


def stranded(in_flight: Mapping[int, Request], sign_in: int) -> dict[int, Request]:
    """Return what must not be sent any more: calls of a user who is not the client's any more.

    Args:
        in_flight: All requests, by number.
        sign_in: Number of the present sign-in.
    """
    return {
        number: request
        for number, request in in_flight.items()
        if request.signed_in and request.sign_in != sign_in and request.outstanding
    }


def end_of_stranded(request: Request) -> HeadwaterError:
    """Return how a call ends whose user has signed out before the server answered."""
    if request.sent:
        return OutcomeUnknown("its user signed out, and the connection ended before the answer came")
    return RequestError("its user signed out before it was sent: it was not run", code="unauthenticated")


def arrived(piece: ActionPiece, request: Request | None) -> PieceArrived:
    """Return what there is to tell of a piece.

    Args:
        piece: As it came.
        request: What has its number, None if nothing has.

    Raises:
        ProtocolError: No action that streams waits for it, or it is no value.
    """
    action = request.message if request is not None and request.waits else None
    if not isinstance(action, Action) or not action.window:
        raise ProtocolError(f"ActionPiece: request {piece.request} does not wait for one")
    return PieceArrived(piece.request, unpack_value(piece.content), len(piece.content))


def outcome_of(answer: MutationAnswer | ActionAnswer) -> tuple[Any, HeadwaterError | None]:
    """Return the value or the error that an answer carries.

    Raises:
        ProtocolError: It has both or neither.
    """
    if (answer.value is None) == (answer.error is None):
        raise ProtocolError(f"{type(answer).__name__}: expected either a value or an error")
    if answer.error is not None:
        return None, error_from(answer.error)
    return unpack_value(answer.value or b""), None
