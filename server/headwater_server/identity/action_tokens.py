"""Tokens for actions of a bundle's accounts: signed for them, and those of other providers looked at."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, assert_never

import msgspec
from headwater_protocol.errors import HeadwaterError, InternalError, RequestError, TransientError

from headwater_server.identity.refusal import RefusedTokenError
from headwater_server.worker.messages import Failure
from headwater_server.worker.token_messages import SignToken, VerifyLogin

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater_server.identity.own_issuer import OwnIssuer
    from headwater_server.identity.verifier import Verifier

logger = logging.getLogger("headwater.identity")


class ActionTokens:
    """Does what actions ask for of tokens; how many ask at a time is bounded where they run.

    Args:
        issuer: Signs.
        verifier: Looks at those of others.
    """

    def __init__(self, issuer: OwnIssuer, verifier: Verifier) -> None:
        self._issuer = issuer
        self._verifier = verifier
        self._running: set[asyncio.Task[None]] = set()

    def asked(
        self, message: SignToken | VerifyLogin, tell: Callable[[bytes | None, Failure | None], None]
    ) -> None:
        """Do it, and tell what came of it."""
        task = asyncio.get_running_loop().create_task(self._answer(message, tell))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _answer(
        self, message: SignToken | VerifyLogin, tell: Callable[[bytes | None, Failure | None], None]
    ) -> None:
        try:
            answer = await self._done(message)
        except HeadwaterError as error:
            tell(None, Failure(error.code, error.message))
        except Exception as error:
            logger.exception("token_fault")
            tell(None, Failure(InternalError.code, f"a fault with a token: {type(error).__name__}"))
        else:
            tell(msgspec.msgpack.encode(answer), None)

    async def _done(self, message: SignToken | VerifyLogin) -> str | dict[str, Any]:
        match message:
            case SignToken():
                claims = msgspec.msgpack.decode(message.claims, type=dict[str, Any])
                return await self._issuer.sign(claims, message.lifetime_s)
            case VerifyLogin():
                return await self._verified(message)
        assert_never(message)

    async def _verified(self, message: VerifyLogin) -> dict[str, Any]:
        try:
            return await self._verifier.verify_login(message.token, message.issuer, message.audience)
        except RefusedTokenError as refusal:
            fields = {"issuer": message.issuer, "reason": refusal.reason}
            logger.warning("login_refused", extra={"fields": fields})
            if refusal.may_pass_later:
                raise TransientError("the provider's keys cannot be had; try again in a moment") from None
            raise RequestError("the provider's token was refused", code="unauthenticated") from None
