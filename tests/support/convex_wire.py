"""A client that speaks the messages of Convex's clients by hand, and finds what would break one of those."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import uuid
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from support.daemon import RunningDaemon

TIMEOUT_S = 20.0
START = {"querySet": 0, "identity": 0, "ts": "AAAAAAAAAAA="}


def ts_of(text: str) -> int:
    """Return a timestamp as a number."""
    return int.from_bytes(base64.b64decode(text), "little")


class Wire:
    """One connection, past its `Connect`.

    Attributes:
        messages: What the server has sent, in order.
        wrong: Rules that it broke.
        screen: What the client shows: a value or an error by query.
        place: Where the last transition ended.
        close: Close code and reason, once the server has ended it.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, session: str) -> None:
        self._socket = socket
        self.session = session
        self.messages: list[dict[str, Any]] = []
        self.wrong: list[str] = []
        self.screen: dict[int, Any] = {}
        self.place: dict[str, Any] = START
        self.close: tuple[int | None, str | None] | None = None
        self._uncovered: list[dict[str, Any]] = []
        self._modified = 0

    async def send(self, kind: str, **fields: Any) -> None:
        """Send a message."""
        await self._socket.send_str(json.dumps({"type": kind, **fields}))

    async def add(self, query: int, path: str, args: Any = None, **more: Any) -> None:
        """Subscribe to one query."""
        change = {"type": "Add", "queryId": query, "udfPath": path, "args": [args or {}], **more}
        await self.modify(change)

    async def modify(self, *modifications: Any) -> None:
        """Change the query set."""
        self._modified += 1
        await self.send(
            "ModifyQuerySet",
            baseVersion=self._modified - 1,
            newVersion=self._modified,
            modifications=modifications,
        )

    async def mutate(self, request: int, path: str, args: Any = None) -> None:
        """Send a mutation."""
        await self.send("Mutation", requestId=request, udfPath=path, args=[args or {}])

    async def until(self, holds: Callable[[], Any]) -> Any:
        """Read until something holds; fails when the connection ends before that."""
        async with asyncio.timeout(TIMEOUT_S):
            while not (found := holds()):
                assert self.close is None, f"the connection ended: {self.close}"
                await self._read()
            return found

    async def answer(self, request: int, kind: str = "MutationResponse") -> dict[str, Any]:
        """Return the answer of a request, with the transition behind it."""

        def found() -> Any:
            told = [m for m in self.messages if m["type"] == kind and m["requestId"] == request]
            return told and not self._uncovered and told[0]

        answer: dict[str, Any] = await self.until(found)
        return answer

    async def end(self) -> tuple[int | None, str | None]:
        """Read to the end of the connection."""
        async with asyncio.timeout(TIMEOUT_S):
            while self.close is None:
                await self._read()
            return self.close

    async def _read(self) -> None:
        received = await self._socket.receive()
        if received.type is not aiohttp.WSMsgType.TEXT:
            self.close = (self._socket.close_code, received.extra)
            return
        message = json.loads(received.data)
        self.messages.append(message)
        self._look(message)

    def _look(self, message: dict[str, Any]) -> None:
        """Note what would break a client."""
        match message["type"]:
            case "Transition":
                self._move(message)
            case "MutationResponse" | "ActionResponse":
                self._uncovered.append(message)
                if message["success"] and "ts" in message and ts_of(message["ts"]) <= ts_of(self.place["ts"]):
                    self.wrong.append(f"answer {message['requestId']} behind a transition that shows it")
                if not message["success"]:
                    self._look_at_error(message, message["result"])

    def _move(self, message: dict[str, Any]) -> None:
        if message["startVersion"] != self.place:
            self.wrong.append(f"a transition from {message['startVersion']} at {self.place}")
        self.place = message["endVersion"]
        if ts_of(self.place["ts"]) < ts_of(message["startVersion"]["ts"]):
            self.wrong.append("back in time")
        for change in message["modifications"]:
            match change["type"]:
                case "QueryUpdated":
                    self.screen[change["queryId"]] = change["value"]
                case "QueryFailed":
                    self.screen[change["queryId"]] = change
                    self._look_at_error(change, change["errorMessage"])
                case "QueryRemoved":
                    del self.screen[change["queryId"]]
        reached = ts_of(self.place["ts"])
        self._uncovered = [
            answer for answer in self._uncovered if answer.get("ts") and ts_of(answer["ts"]) > reached
        ]

    def _look_at_error(self, message: dict[str, Any], text: str) -> None:
        if ("errorData" in message) != ("ConvexError" in text):
            self.wrong.append("errorData of an ordinary error, or none of an application's")
        if not isinstance(message.get("logLines"), list):
            self.wrong.append("no logLines")


@contextlib.asynccontextmanager
async def wire(
    daemon: RunningDaemon, *, session: str = "", seen: str | None = None, path: str = "/api/1.48.0/sync"
) -> AsyncIterator[Wire]:
    """Connect and introduce the client."""
    async with (
        aiohttp.ClientSession() as web,
        web.ws_connect(f"http://127.0.0.1:{daemon.port}{path}", max_msg_size=1 << 28) as socket,
    ):
        client = Wire(socket, session or str(uuid.uuid4()))
        more = {} if seen is None else {"maxObservedTimestamp": seen}
        await client.send(
            "Connect",
            sessionId=client.session,
            connectionCount=0,
            lastCloseReason="x",
            clientTs=0,
            **more,
        )
        yield client
