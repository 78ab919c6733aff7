"""Convex's client of Python, driven over standard input and output as `peer.mjs` is. Runs with that client's own Python.

A call of it that waits holds up the process, which is its way; what is subscribed to is followed on an event loop.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from convex import ConvexClient, ConvexError
from convex.values import convex_to_json, json_to_convex


def told(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def failure(error: Exception) -> dict[str, Any]:
    data = {"data": convex_to_json(error.data)} if isinstance(error, ConvexError) else {}
    return {"name": type(error).__name__, "message": str(error), **data}


class Peer:
    def __init__(self) -> None:
        self.client: Any = None
        self.watches: dict[int, Any] = {}
        self.following: set[asyncio.Task[None]] = set()

    def open(self, url: str, options: Any) -> None:
        self.client = ConvexClient(url)

    def watch(self, name: str, args: Any) -> int:
        number = len(self.watches) + 1
        subscription = self.watches[number] = self.client.subscribe(name, json_to_convex(args))
        self.following.add(asyncio.ensure_future(self._follow(number, subscription)))
        return number

    async def _follow(self, number: int, subscription: Any) -> None:
        while True:
            try:
                told({"watch": number, "value": convex_to_json(await anext(subscription))})
            except StopAsyncIteration:
                return
            except Exception as error:
                if subscription.invalidated:
                    return
                told({"watch": number, "failure": failure(error)})

    def unwatch(self, watch: int) -> None:
        self.watches[int(watch)].unsubscribe()

    def mutate(self, name: str, args: Any) -> Any:
        return convex_to_json(self.client.mutation(name, json_to_convex(args)))

    def act(self, name: str, args: Any) -> Any:
        return convex_to_json(self.client.action(name, json_to_convex(args)))

    def query(self, name: str, args: Any) -> Any:
        return convex_to_json(self.client.query(name, json_to_convex(args)))

    def auth(self, tokens: list[str]) -> None:
        self.client.set_auth(tokens[0])

    def sign_out(self) -> None:
        self.client.clear_auth()

    def admin(self, key: str) -> None:
        self.client.set_admin_auth(key)


def run(peer: Peer, number: int, op: str, fields: dict[str, Any]) -> None:
    try:
        result = getattr(peer, op)(**fields)
    except Exception as error:
        told({"id": number, "failure": failure(error)})
    else:
        told({"id": number, "result": result})


async def main() -> None:
    """Take commands until there are no more."""
    peer, reader = Peer(), asyncio.StreamReader(limit=1 << 28)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        command = json.loads(line, parse_int=float)  # numbers of its values are all doubles
        number, op = int(command.pop("id")), command.pop("op")
        run(peer, number, op, command)
    os._exit(0)  # what waits in the client would hold up an exit


asyncio.run(main())
