"""The limit of `fanout`: a plain aiohttp server, WebSockets, and `send_bytes` to each of them.

`python -m benchmarks.plain_fanout PORT`; each line on standard input is a number of bytes to
send to every socket, answered by the number of sockets.
"""

from __future__ import annotations

import asyncio
import sys

import msgspec
import uvloop
from aiohttp import web


async def serve(port: int) -> None:
    """Serve until standard input ends."""
    sockets: set[web.WebSocketResponse] = set()

    async def handle(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        sockets.add(socket)
        try:
            async for _ in socket:
                pass
        finally:
            sockets.discard(socket)
        return socket

    app = web.Application()
    app.router.add_get("/", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=2048).start()
    commands: asyncio.StreamReader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    print("ready", flush=True)
    while line := await commands.readline():
        # A msgpack array of one bin, so that the receivers' check of a frame holds here too.
        message = msgspec.msgpack.encode([bytes(max(int(line) - 6, 0))])
        for socket in list(sockets):
            await socket.send_bytes(message)
        print(len(sockets), flush=True)
    await runner.cleanup()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
