"""Stands in for a language model's server: `python -m examples.agent.stand_in`.

It is no model. It answers what it is asked with the same words, one at a time, in the form of a chat completion that streams. A
question can ask for what a real server does now and then: `!cut` breaks off in the middle, `!fail` answers 500, `!busy` 429, and
`!hang` says one word and nothing more.
"""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Iterator

from aiohttp import web


class StandIn:
    """The server. `counts` says how many answers were begun, ended, and left by who asked."""

    def __init__(self, key: str, pause_s: float) -> None:
        self._key = key
        self._pause_s = pause_s
        self.counts = {"begun": 0, "ended": 0, "left": 0}

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_get("/counts", self._tell)
        return app

    async def _tell(self, _: web.Request) -> web.Response:
        return web.json_response(self.counts)

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {self._key}":
            return web.json_response({"error": {"message": "wrong key"}}, status=401)
        asked = await request.json()
        question: str = asked["messages"][-1]["content"]
        for word, status in (("!fail", 500), ("!busy", 429)):
            if word in question:
                return web.json_response({"error": {"message": word}}, status=status)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        self.counts["begun"] += 1
        try:
            for number, token in enumerate(answer_to(question, len(asked["messages"]))):
                await response.write(chunk(asked["model"], {"content": token}))
                if number == 2 and "!cut" in question and request.transport is not None:
                    request.transport.abort()
                    return response
                await asyncio.sleep(3600 if "!hang" in question else self._pause_s)
            await response.write(chunk(asked["model"], {}, "stop") + b"data: [DONE]\n\n")
            self.counts["ended"] += 1
        except (ConnectionError, asyncio.CancelledError):
            self.counts["left"] += 1
            raise
        return response


def answer_to(question: str, messages: int) -> Iterator[str]:
    """Yield an answer's tokens."""
    yield from ("You", " said")
    for word in question.split():
        yield " " + word
    yield f". That was message {messages}."


def chunk(model: str, delta: dict[str, str], reason: str | None = None) -> bytes:
    """Return one event of a completion that streams."""
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return (
        b"data: %s\n\n"
        % json.dumps(
            {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": model, "choices": [choice]}
        ).encode()
    )


async def main() -> None:
    """Serve until it is ended."""
    parser = argparse.ArgumentParser(prog="python -m examples.agent.stand_in", description=__doc__)
    parser.add_argument("--port", type=int, default=8300)
    parser.add_argument("--pause-s", type=float, default=0.05, help="between two words (default 0.05)")
    chosen = parser.parse_args()
    runner = web.AppRunner(
        StandIn(os.environ.get("MODEL_KEY", "stand-in"), chosen.pause_s).app(),
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=0.5,
    )
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", chosen.port).start()
    print(f"stand-in for a language model on http://127.0.0.1:{chosen.port}/v1", file=sys.stderr)
    await asyncio.Event().wait()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        sys.exit(0)
