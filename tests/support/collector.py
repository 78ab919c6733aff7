"""A service that collects logs: takes the batches of the daemon's webhook, refuses them or stands still."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET = "a secret of more than 24 characters"


class Collector(ThreadingHTTPServer):
    """A real server that takes batches.

    Attributes:
        batches: Headers and body of each that came, refused ones too.
        refusals: So many are refused first.
        paths: Where they came.
        goes_on: While it is not set, nothing is answered.
        answer: Body of the answer to what is taken.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), CollectorHandler)
        self.batches: list[tuple[dict[str, str], bytes]] = []
        self.paths: list[str] = []
        self.answer = b""
        self.refusals = 0
        self.refusal = 503
        self.redirects = False
        self.goes_on = threading.Event()
        self.goes_on.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hooks?token=hush"

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events of all batches that were taken, without repetitions."""
        taken = {headers["headwater-delivery"]: body for headers, body in list(self.batches)}
        return [event for body in taken.values() for event in json.loads(body)["events"]]


class CollectorHandler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.goes_on.wait()
        self.server.paths.append(self.path)
        self.server.batches.append(({name.lower(): value for name, value in self.headers.items()}, body))
        if self.server.redirects:
            self.send_response(307)
            self.send_header("Location", self.path + "/elsewhere")
        else:
            taken = 200 if self.server.answer else 204
            self.send_response(taken if self.server.refusals <= 0 else self.server.refusal)
        answer = self.server.answer if self.server.refusals <= 0 else b""
        self.server.refusals -= 1
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run one, for the length of the block."""
    server = Collector()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.goes_on.set()
        server.shutdown()
        thread.join()
        server.server_close()


def webhook_options(collector: Collector, folder: Path, *more: str) -> tuple[str, ...]:
    file = folder / "secret"
    file.write_text(SECRET + "\n")
    options = ("--call-log-webhook-url", collector.url, "--call-log-webhook-secret-file", str(file))
    return (*options, "--call-log-webhook-wait-s", "0.05", *more)
