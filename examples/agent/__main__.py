"""Ask the agent, or follow a thread: `python -m examples.agent ask "How are you?"`."""

import argparse
import asyncio
import sys

import headwater
from headwater import ApplicationError
from headwater_protocol.errors import HeadwaterError


def options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m examples.agent", description=__doc__)
    parser.add_argument("--url", default="ws://127.0.0.1:4510", help="of the server (default %(default)s)")
    commands = parser.add_subparsers(dest="command", required=True)
    ask = commands.add_parser("ask", help="ask, and print the answer as it comes")
    ask.add_argument("question")
    ask.add_argument("--thread", help="a thread to go on with; a new one unless it is given")
    follow = commands.add_parser("follow", help="print what is said in a thread, by whomever")
    follow.add_argument("thread")
    return parser.parse_args()


async def main() -> int:
    """Run one command; returns the exit code."""
    chosen = options()
    try:
        async with headwater.connect(chosen.url, connect_timeout_s=10) as client:
            if chosen.command == "ask":
                await ask(client, chosen.question, chosen.thread)
            else:
                await follow(client, chosen.thread)
    except ApplicationError as error:
        print(f"\nagent: {error.data}", file=sys.stderr)
        return 1
    except HeadwaterError as error:
        print(f"\nagent: {error.code}: {error.message}", file=sys.stderr)
        return 1
    return 0


async def ask(client: headwater.Client, question: str, thread: str | None) -> None:
    if thread is None:
        thread = await client.mutation("threads:start", title=question)
        print(f"thread {thread}", file=sys.stderr)
    async for token in client.stream("agent:ask", thread=thread, question=question):
        print(token, end="", flush=True)
    print()


async def follow(client: headwater.Client, thread: str) -> None:
    """Each message once it is there, and again when its status changes."""
    told: dict[str, str] = {}
    async for messages in client.subscribe("threads:messages", thread=thread):
        for message in messages:
            if told.get(message["_id"]) != message["status"]:
                told[message["_id"]] = message["status"]
                print(f"{message['role']} ({message['status']}): {message['text']}", flush=True)


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main()))
    except KeyboardInterrupt:
        sys.exit(130)
