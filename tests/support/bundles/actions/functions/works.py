import asyncio
import os
import socket
from collections.abc import AsyncIterator

from headwater import (
    ActionCtx,
    ApplicationError,
    Id,
    MutationCtx,
    QueryCtx,
    Table,
    action,
    mutation,
    query,
)


class Note(Table, name="notes"):
    text: str


@mutation
def add(ctx: MutationCtx, text: str) -> Id[Note]:
    if not text:
        raise ApplicationError({"code": "empty"})
    return ctx.db.insert(Note(text=text))


@query
def texts(ctx: QueryCtx) -> list[str]:
    return [note.text for note in ctx.db.scan(Note)]


@query.internal
def notes(ctx: QueryCtx) -> list[Note]:
    return ctx.db.scan(Note).collect()


@action
async def nap(ctx: ActionCtx, seconds: float) -> int:
    await asyncio.sleep(seconds)
    return os.getpid()


@action
async def write(ctx: ActionCtx, texts: list[str]) -> int:
    """Each text is a transaction of its own."""
    for text in texts:
        await ctx.run_mutation(add, text=text)
    return len(await ctx.run_query(notes))


@action
async def write_many(ctx: ActionCtx, count: int) -> int:
    await asyncio.gather(*(ctx.run_mutation(add, text=str(number)) for number in range(count)))
    return len(await ctx.run_query(texts))


@action
async def remember(ctx: ActionCtx, text: str, seconds: float) -> str:
    await asyncio.sleep(seconds)
    await ctx.run_mutation(add, text=text)
    return text


@action
async def remember_when(ctx: ActionCtx, path: str, text: str) -> str:
    """Remember once there is a file."""
    while not await asyncio.to_thread(os.path.exists, path):
        await asyncio.sleep(0.01)
    await ctx.run_mutation(add, text=text)
    return text


@action(cancel_with_caller=True)
async def remember_for(ctx: ActionCtx, text: str, seconds: float) -> str:
    """Remembers that it has begun, and the text unless its caller goes away; then it says so."""
    await ctx.run_mutation(add, text=f"{text} began")
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        await ctx.run_mutation(add, text=f"{text} was cancelled")
        raise
    await ctx.run_mutation(add, text=text)
    return text


@action
async def fetch(ctx: ActionCtx, port: int) -> str:
    """Ask a server on loopback for a line."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    line = await reader.readline()
    writer.close()
    return line.decode().strip()


@action
async def outside(ctx: ActionCtx, path: str) -> str:
    """What queries may not: files, processes, host names, threads."""
    with open(path, "w") as file:
        file.write(socket.gethostname())
    process = await asyncio.create_subprocess_exec("true")
    await process.wait()
    return await asyncio.to_thread(lambda: open(path).read())


@action
async def item(ctx: ActionCtx, note: Id[Note]) -> str:
    return note


@action
async def count(ctx: ActionCtx, upto: int, pause_s: float = 0.0) -> AsyncIterator[int]:
    for number in range(upto):
        if pause_s:
            await asyncio.sleep(pause_s)
        yield number


@action
async def pour(ctx: ActionCtx, pieces: int, size: int) -> AsyncIterator[str]:
    """Write down how far it has come each time it goes on."""
    for number in range(pieces):
        await ctx.run_mutation(add, text=f"piece {number}")
        yield "x" * size


@action
async def fails(ctx: ActionCtx, after: int) -> AsyncIterator[int]:
    for number in range(after):
        yield number
    raise ApplicationError({"after": after})
