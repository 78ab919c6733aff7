"""A destination of call events that is an HTTP server: batches, signed, sent again until they are taken.

A task of its own on the event loop. A server that is slow or gone costs what waits for it, within bounds, and
calls nothing.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp
from headwater_protocol.backoff import backoff_s
from headwater_protocol.errors import RequestError
from yarl import URL

from headwater_server.observe.call_log import WaitingEvents
from headwater_server.observe.sending import SendingTask, is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headwater_server.observe.call_log import CallEvent, Dropped, EventFilter, WaitingRoom

logger = logging.getLogger("headwater.calls")

_RETRY_FIRST_S = 1.0
_RETRY_LIMIT_S = 60.0
_SECRET_LENGTH_MIN = 24


@dataclass(frozen=True, slots=True)
class WebhookOptions:
    """How it is sent.

    Attributes:
        url: Where to.
        secret: Signs each batch.
        batch_events_max: Events of one batch.
        wait_s: How long events wait for others to be sent together with.
        limit_s: Time for one batch to be taken.
        attempts_max: So often a batch is sent before it is given up.
        room: How much may wait.
    """

    url: URL
    secret: bytes
    batch_events_max: int
    wait_s: float
    limit_s: float
    attempts_max: int
    room: WaitingRoom


class Webhook(SendingTask):
    """Sends; implements `Destination`.

    Args:
        options: How.
        wanted: Which events.
        line: Makes an event a line of JSON.
        wall_s: Wall clock.
        random_bytes: Names batches and spreads attempts.
    """

    name = "webhook"

    def __init__(
        self,
        options: WebhookOptions,
        wanted: EventFilter,
        line: Callable[[CallEvent | Dropped], bytes],
        wall_s: Callable[[], float],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        super().__init__("call log webhook", options.wait_s, options.limit_s)
        self._options = options
        self._line = line
        self._wall_s = wall_s
        self._random_bytes = random_bytes
        self._events = WaitingEvents(wanted, options.room)

    @property
    def dropped(self) -> int:
        """How many events it was not given."""
        return self._events.dropped

    def offer(self, event: CallEvent) -> None:
        """Let an event be sent, or count it."""
        if self._events.add(event):
            self.wake()

    async def send_waiting(self, session: aiohttp.ClientSession) -> None:
        """Send until nothing waits."""
        while taken := self._events.take(self._options.batch_events_max):
            await self._deliver(session, taken)

    async def _deliver(self, session: aiohttp.ClientSession, taken: Sequence[CallEvent | Dropped]) -> None:
        body = b'{"events":[' + b",".join(self._line(item).rstrip(b"\n") for item in taken) + b"]}"
        delivery = self._random_bytes(12).hex()
        for attempt in range(self._options.attempts_max):
            why = await self._send(session, body, delivery)
            if why is None:
                return
            if attempt == 0:
                fields = {"destination": self.name, "host": self._options.url.host, "error": why}
                logger.warning("call_log_not_sent", extra={"fields": fields})
            if self.closing:
                break
            chance = int.from_bytes(self._random_bytes(4)) / 2**32
            await asyncio.sleep(backoff_s(attempt, chance, first_s=_RETRY_FIRST_S, limit_s=_RETRY_LIMIT_S))
        self._events.lose(taken)

    async def _send(self, session: aiohttp.ClientSession, body: bytes, delivery: str) -> str | None:
        """Send one batch once; return why it was not taken, None if it was."""
        timestamp = str(int(self._wall_s()))
        headers = {
            "Content-Type": "application/json",
            "Headwater-Delivery": delivery,
            "Headwater-Timestamp": timestamp,
            "Headwater-Signature": signature(self._options.secret, timestamp, body),
        }
        try:
            async with session.post(
                self._options.url, data=body, headers=headers, allow_redirects=False
            ) as answer:
                return None if 200 <= answer.status < 300 else f"it answers with status {answer.status}"
        except TimeoutError:
            return f"no answer within {self._options.limit_s:g} s"
        except (aiohttp.ClientError, OSError) as error:
            return type(error).__name__  # the text may hold the address, and so what is secret in it


def signature(secret: bytes, timestamp: str, body: bytes) -> str:
    """Return what shows that a batch is ours: over its time as well, so that an old one cannot be sent again later."""
    return hmac.new(secret, timestamp.encode() + b"." + body, "sha256").hexdigest()


def checked_url(text: str) -> URL:
    """Return the address of a webhook.

    Raises:
        RequestError: It is none, or others could read on the way.
    """
    what = "the setting `call_log_webhook_url`"
    try:
        url = URL(text)
        host = url.host
    except ValueError:
        raise RequestError(f"{what} is not an address: write https://host/path") from None
    if host is None or url.scheme not in ("https", "http"):
        raise RequestError(f"{what} is not an address: write https://host/path")
    if url.scheme == "http" and not is_loopback(host):
        raise RequestError(
            f"{what} must begin with https://: what calls print would cross the network in the clear"
        )
    return url


def checked_secret(text: str | None) -> bytes:
    """Return what batches are signed with.

    Raises:
        RequestError: There is none, or it could be guessed.
    """
    if text is None:
        raise RequestError(
            "a webhook needs a secret to sign with: name a file that holds it in `call_log_webhook_secret_file`,"
            " or set HEADWATER_CALL_LOG_WEBHOOK_SECRET in the environment"
        )
    if len(text) < _SECRET_LENGTH_MIN:
        raise RequestError(f"the secret of the webhook is shorter than {_SECRET_LENGTH_MIN} characters")
    return text.encode()
