"""How many bytes a change costs on the wire: a list of 50 documents, one appended, or one field of one changed.

Ours: bytes of the WebSocket frames that one subscriber is sent for each change, frame headers included. The
limit: 3 % of the bytes with which the whole list came, the welcome of some 50 bytes included (for a field: 1 %). No times are measured.
"""

from __future__ import annotations

import asyncio
import os
import select
import statistics
import sys
import time
from typing import TYPE_CHECKING

import headwater
from headwater_protocol.codec import encode_message
from headwater_protocol.messages import AddQuery, Connect, ModifyQuerySet
from headwater_protocol.values import pack_value
from headwater_protocol.versions import SUPPORTED_VERSIONS

from benchmarks import slices
from benchmarks.daemon import running
from benchmarks.websockets import connect

if TYPE_CHECKING:
    import socket

ITEMS = 50
BODY = "x" * 250
TOPIC = "bytes"
APPENDED_SHARE, FIELD_SHARE = 0.03, 0.01
QUIET_S = 0.3
FIRST_TIMEOUT_S = 10.0


def received(connection: socket.socket, *, at_least: int) -> int:
    """Return how many bytes come until nothing has come for a while."""
    count = 0
    deadline = time.monotonic() + FIRST_TIMEOUT_S
    while True:
        readable, _, _ = select.select([connection], [], [], QUIET_S)
        if readable:
            data = connection.recv(1 << 18)
            if not data:
                raise ConnectionError("the server closed the connection")
            count += len(data)
        elif count >= at_least:
            return count
        elif time.monotonic() > deadline:
            raise TimeoutError("nothing came")


async def measure(count: int) -> tuple[slices.Paired, slices.Paired, int]:
    """Return bytes of appended documents, of changed fields, and of the whole list."""
    appended, changed = (slices.Paired([], [], more_is_better=False) for _ in range(2))
    async with running() as daemon, headwater.connect(daemon.url) as client:
        items = [await client.mutation("feed:add", topic=TOPIC, body=BODY) for _ in range(ITEMS)]
        hello = Connect(SUPPORTED_VERSIONS, os.urandom(16), 0, None, "benchmark")
        add = ModifyQuerySet(0, 1, (AddQuery(1, "feed:newest", pack_value({"topic": TOPIC})),), ())
        connection, rest = await asyncio.to_thread(
            connect, "127.0.0.1", daemon.port, "/sync", [encode_message(hello), encode_message(add)]
        )
        whole = len(rest) + await asyncio.to_thread(received, connection, at_least=ITEMS * len(BODY))
        for number in range(count):
            items.append(await client.mutation("feed:add", topic=TOPIC, body=BODY))
            appended.ours.append(await asyncio.to_thread(received, connection, at_least=1))
            appended.limit.append(whole * APPENDED_SHARE)
            await client.mutation("feed:like", item=items[-1 - number % ITEMS], likes=number + 1)
            changed.ours.append(await asyncio.to_thread(received, connection, at_least=1))
            changed.limit.append(whole * FIELD_SHARE)
        connection.close()
    return appended, changed, whole


def main() -> int:
    """Run the benchmark."""
    chosen = slices.arguments(__doc__).parse_args()
    appended, changed, whole = asyncio.run(measure(chosen.slices))
    report = slices.Report("bytes", appended.row("bytes, one of 50 appended"))
    report.further["field_changed"] = changed.row("bytes, one field of one changed")
    report.further["whole_list_bytes"] = whole
    report.further["appended_share"] = round(statistics.median(appended.ours) / whole, 4)
    report.further["field_share"] = round(statistics.median(changed.ours) / whole, 4)
    report.further["machine"] = slices.machine()
    report.print(as_json=chosen.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
