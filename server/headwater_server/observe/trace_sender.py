"""Sends spans to an OpenTelemetry collector, over HTTP and in JSON: batches, sent again where the collector asks for it.

A task of its own on the event loop. A collector that is slow or away costs what waits for it, within a bound; what
there is no room for is dropped and counted, and no call waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
from headwater_protocol.backoff import backoff_s
from headwater_protocol.errors import RequestError
from yarl import URL

from headwater_server.observe.otlp import encode_spans
from headwater_server.observe.sending import SendingTask, is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from headwater_server.observe.traces import Attribute, Span

logger = logging.getLogger("headwater.traces")

HEADERS_VARIABLE = "HEADWATER_TRACES_HEADERS"

_PATH = "/v1/traces"
_COME_BACK = frozenset({429, 502, 503, 504})
_RETRY_FIRST_S = 1.0
_RETRY_LIMIT_S = 30.0
_ANSWER_BYTES_MAX = 64 << 10


@dataclass(frozen=True, slots=True)
class Collector:
    """Where spans are sent, and what goes with each request."""

    url: URL
    headers: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Collector({self.url.host})"


@dataclass(frozen=True, slots=True)
class TraceOptions:
    """How spans are sent.

    Attributes:
        collector: Where to.
        service: What the collector knows this server by.
        ratio: Share of calls that are followed, from 0 to 1.
        spans_max: Spans that may wait.
        batch_spans_max: Spans of one request.
        wait_s: How long spans wait for others to be sent together with.
        limit_s: Time for one request.
        attempts_max: So often a batch is sent before it is given up.
    """

    collector: Collector
    service: str = "headwater"
    ratio: float = 1.0
    spans_max: int = 10_000
    batch_spans_max: int = 512
    wait_s: float = 1.0
    limit_s: float = 10.0
    attempts_max: int = 5


class TraceSender(SendingTask):
    """Sends.

    Args:
        options: How.
        instance: Name of this life of the server.
        version: Of Headwater.
        random_bytes: Spreads attempts.

    Attributes:
        sent: How many spans the collector has taken.
        dropped: How many it was not given, or did not take.
    """

    def __init__(
        self,
        options: TraceOptions,
        instance: str,
        version: str,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        super().__init__("traces", options.wait_s, options.limit_s)
        self._options = options
        self._resource: dict[str, Attribute] = {
            "service.name": options.service,
            "service.version": version,
            "service.instance.id": instance,
        }
        self._version = version
        self._random_bytes = random_bytes
        self._waiting: deque[Span] = deque()
        self.sent = 0
        self.dropped = 0

    def offer(self, span: Span) -> None:
        """Let a span be sent, or count it as dropped."""
        if len(self._waiting) >= self._options.spans_max:
            self.dropped += 1
            return
        self._waiting.append(span)
        self.wake()

    async def send_waiting(self, session: aiohttp.ClientSession) -> None:
        """Send until nothing waits."""
        waiting = self._waiting
        while waiting:
            count = min(len(waiting), self._options.batch_spans_max)
            await self._deliver(session, [waiting.popleft() for _ in range(count)])

    async def _deliver(self, session: aiohttp.ClientSession, spans: Sequence[Span]) -> None:
        body = encode_spans(spans, self._resource, self._version)
        for attempt in range(self._options.attempts_max):
            refusal = await self._send(session, body, len(spans))
            if refusal is None:
                return
            if attempt == 0:
                fields = {"host": self._options.collector.url.host, "error": refusal.why}
                logger.warning("spans_not_sent", extra={"fields": fields})
            if self.closing or not refusal.may_pass_later:
                break
            chance = int.from_bytes(self._random_bytes(4)) / 2**32
            pause_s = backoff_s(attempt, chance, first_s=_RETRY_FIRST_S, limit_s=_RETRY_LIMIT_S)
            await asyncio.sleep(max(pause_s, min(refusal.pause_s, _RETRY_LIMIT_S)))
        self.dropped += len(spans)

    async def _send(self, session: aiohttp.ClientSession, body: bytes, count: int) -> _Refusal | None:
        """Send one batch once; return why it was not taken, None if it was."""
        collector = self._options.collector
        headers = {**collector.headers, "Content-Type": "application/json"}
        try:
            async with session.post(
                collector.url, data=body, headers=headers, allow_redirects=False
            ) as answer:
                if 200 <= answer.status < 300:
                    rejected = _rejected(await answer.content.read(_ANSWER_BYTES_MAX))
                    self.dropped += min(rejected, count)
                    self.sent += max(count - rejected, 0)
                    return None
                pause_s = _seconds(answer.headers.get("Retry-After", ""))
                why = f"it answers with status {answer.status}"
                return _Refusal(why, answer.status in _COME_BACK, pause_s)
        except TimeoutError:
            return _Refusal(f"no answer within {self._options.limit_s:g} s", may_pass_later=True)
        except (aiohttp.ClientError, OSError) as error:
            return _Refusal(type(error).__name__, may_pass_later=True)  # its text may hold the address


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why a batch was not taken, whether it may be another time, and for how long the collector asks to wait."""

    why: str
    may_pass_later: bool
    pause_s: float = 0.0


def collector_at(text: str, headers_file: Path | None, environ: Mapping[str, str]) -> Collector | None:
    """Return where to send spans, None if nowhere.

    Args:
        text: Address; without a path that of traces is taken.
        headers_file: A line `Name: value` for each header.
        environ: Has those lines, where there is no file.

    Raises:
        RequestError: It is no address, the headers are none, or others could read them on the way.
    """
    if not text:
        return None
    what = "the setting `traces_url`"
    try:
        url = URL(text)
        host = url.host
    except ValueError:
        raise RequestError(f"{what} is not an address: write http://127.0.0.1:4318") from None
    if host is None or url.scheme not in ("https", "http"):
        raise RequestError(f"{what} is not an address: write http://127.0.0.1:4318")
    if url.path in ("", "/"):
        url = url.with_path(_PATH)
    headers = _headers(headers_file, environ)
    if headers and url.scheme == "http" and not is_loopback(host):
        raise RequestError(
            f"{what} must begin with https://: the headers of `traces_headers_file` would cross the network in the clear"
        )
    return Collector(url, headers)


def _headers(file: Path | None, environ: Mapping[str, str]) -> dict[str, str]:
    origin, text = f"the environment variable {HEADERS_VARIABLE}", environ.get(HEADERS_VARIABLE, "")
    if file is not None:
        origin = f"{file} (`traces_headers_file`)"
        try:
            text = file.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not ASCII text"
            raise RequestError(f"cannot read {origin}: {reason}") from None
    headers = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        name, separator, value = line.partition(":")
        if not separator or not name.strip() or not (name + value).isprintable() or " " in name.strip():
            raise RequestError(f"line {number} of {origin} is not a header: write Name: value")
        headers[name.strip()] = value.strip()
    return headers


def _rejected(content: bytes) -> int:
    """Return how many spans a collector that took a batch has left out."""
    try:
        answer: Any = orjson.loads(content)
        return max(int(answer["partialSuccess"]["rejectedSpans"]), 0)
    except (ValueError, KeyError, TypeError):
        return 0


def _seconds(text: str) -> float:
    return float(text) if text.isascii() and text.isdecimal() and len(text) < 6 else 0.0
