"""Where the events of calls go besides those who follow them: console, file, webhook; each as the settings say."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from headwater.call_text import call_text
from headwater_protocol.errors import RequestError

from headwater_server.observe.call_log import LEVELS, Dropped, EventFilter, EventText, dropped_fields
from headwater_server.observe.call_webhook import Webhook, WebhookOptions, checked_secret, checked_url
from headwater_server.observe.call_writers import Descriptor, RotatingFile, WriterThread

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from yarl import URL

    from headwater_server.observe.call_log import CallEvent, IdentityForm, WaitingRoom

SECRET_VARIABLE = "HEADWATER_CALL_LOG_WEBHOOK_SECRET"

_CONSOLE = 2
_LOGGER = "headwater.calls"


class WebhookTarget(NamedTuple):
    """Where batches are sent, and what signs them."""

    url: URL
    secret: bytes

    def __repr__(self) -> str:
        return f"WebhookTarget({self.url.host})"


@dataclass(frozen=True, slots=True)
class DestinationOptions:
    """What there is.

    Attributes:
        identity_form: How users are named.
        room: What may wait for each.
        console_level: Least level of the console, None: nothing.
        human: Whether the console is read by a person.
        file: The newest of the files, None: there are none.
        file_level: Least level of the files.
        file_bytes_max: Size of each.
        files_kept: So many older ones.
        webhook: Where batches are sent, None: nowhere.
        webhook_level: Least level of what is sent.
        batch_events_max: Events of one batch.
        webhook_wait_s: How long events wait for others.
        webhook_limit_s: Time for one batch.
        attempts_max: So often it is sent.
    """

    identity_form: IdentityForm
    room: WaitingRoom
    console_level: int | None
    human: bool
    file: Path | None
    file_level: int
    file_bytes_max: int
    files_kept: int
    webhook: WebhookTarget | None
    webhook_level: int
    batch_events_max: int
    webhook_wait_s: float
    webhook_limit_s: float
    attempts_max: int


def make_destinations(
    options: DestinationOptions,
    secret: Callable[[], bytes],
    wall_s: Callable[[], float],
    random_bytes: Callable[[int], bytes],
) -> list[WriterThread | Webhook]:
    """Return the destinations that there are.

    Args:
        options: Which.
        secret: Returns what keys the hashes of users and sessions.
        wall_s: Wall clock.
        random_bytes: Names batches.
    """
    made: list[WriterThread | Webhook] = []

    def text() -> EventText:  # each has its own: they run in threads
        return EventText(options.identity_form, secret)

    if options.console_level is not None:
        line = _human_line(text()) if options.human else _console_line(text())
        wanted = EventFilter(level=options.console_level)
        made.append(WriterThread("console", wanted, options.room, line, Descriptor(_CONSOLE)))
    if options.file is not None:
        file = RotatingFile(options.file, options.file_bytes_max, options.files_kept)
        wanted = EventFilter(level=options.file_level)
        made.append(WriterThread("file", wanted, options.room, text().line, file))
    if options.webhook is not None:
        made.append(
            Webhook(
                WebhookOptions(
                    url=options.webhook.url,
                    secret=options.webhook.secret,
                    batch_events_max=options.batch_events_max,
                    wait_s=options.webhook_wait_s,
                    limit_s=options.webhook_limit_s,
                    attempts_max=options.attempts_max,
                    room=options.room,
                ),
                EventFilter(level=options.webhook_level),
                text().line,
                wall_s,
                random_bytes,
            )
        )
    return made


def webhook_target(
    url: str | None, secret_file: Path | None, environ: Mapping[str, str]
) -> WebhookTarget | None:
    """Return where to send batches, None if nowhere.

    Raises:
        RequestError: The address is not good, or there is no secret.
    """
    if not url:
        return None
    secret = environ.get(SECRET_VARIABLE)
    if secret_file is not None:
        secret = _read(secret_file)
    return WebhookTarget(checked_url(url), checked_secret(secret))


def least_level(name: str) -> int | None:
    """Return the number of a level, None for `off`."""
    return LEVELS.get(name)


def is_terminal() -> bool:
    """Tell whether the console is one."""
    return sys.stderr.isatty()


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise RequestError(f"cannot read {file} (`call_log_webhook_secret_file`): {reason}") from None


def _console_line(text: EventText) -> Callable[[CallEvent | Dropped], bytes]:
    """Return what writes events as the daemon's other lines of JSON are written."""
    encode = msgspec.json.Encoder().encode

    def line(event: CallEvent | Dropped) -> bytes:
        if isinstance(event, Dropped):
            return encode({"logger": _LOGGER, "event": "calls_dropped", "count": event.count}) + b"\n"
        fields = text.fields(event)
        name = "call_failed" if event.failure is not None else "call" if event.outcome else "call_printed"
        head = {"time": event.time_us / 1e6, "level": fields["level"], "logger": _LOGGER, "event": name}
        return encode(head | fields) + b"\n"

    return line


def _human_line(text: EventText) -> Callable[[CallEvent | Dropped], bytes]:
    def line(event: CallEvent | Dropped) -> bytes:
        fields = dropped_fields(event) if isinstance(event, Dropped) else text.fields(event)
        return (call_text(fields) + "\n").encode()

    return line
