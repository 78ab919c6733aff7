import asyncio
import contextlib
import os
import re
import threading
import time

from headwater import ActionCtx, QueryCtx, action, query


@action
async def endless(ctx: ActionCtx) -> None:
    while True:
        pass


@action
async def sleeps(ctx: ActionCtx) -> None:
    time.sleep(1000)


@action
async def regex(ctx: ActionCtx) -> None:
    """Holds the interpreter's lock, so that not even a thread can look."""
    re.match(r"(a|aa)+$", "a" * 60 + "b")


@action
async def leaves(ctx: ActionCtx) -> None:
    os._exit(3)


@action
async def forks(ctx: ActionCtx) -> int:
    """The child goes on with a copy of everything."""
    child = os.fork()
    if child == 0:
        await asyncio.sleep(0.1)
        return -1
    return child


@action
async def spawns(ctx: ActionCtx) -> int:
    """Leaves a process behind."""
    process = await asyncio.create_subprocess_exec("sleep", "1000")
    return process.pid


@action
async def hoards(ctx: ActionCtx) -> None:
    kept = []
    while True:
        kept.append(bytearray(4 << 20))
        await asyncio.sleep(0)


@action
async def floods(ctx: ActionCtx) -> int:
    for number in range(20_000):
        print("line", number)
    print("x" * 10_000_000)
    os.write(1, b"y" * 1_000_000)
    return 1


@action
async def leaves_a_thread(ctx: ActionCtx) -> int:
    threading.Thread(target=time.sleep, args=(1000,)).start()
    return os.getpid()


@action
async def leaves_a_task(ctx: ActionCtx) -> int:
    asyncio.get_running_loop().create_task(asyncio.sleep(1000))
    return len(asyncio.all_tasks())


@action
async def swallows(ctx: ActionCtx) -> None:
    """Does not let itself be cancelled."""
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(1000)


@action
async def huge(ctx: ActionCtx) -> str:
    return "x" * 20_000_000


@action
async def itself(ctx: ActionCtx) -> int:
    return await ctx.run_action(itself)


@query.internal
def one(ctx: QueryCtx) -> int:
    """A small result: 2,000 that grow with the test's own writes are more than a worker may hold."""
    return 1


@action
async def storms(ctx: ActionCtx) -> int:
    """Asks for far more at once than one action may."""
    found = await asyncio.gather(*(ctx.run_query("hostile:one") for _ in range(2_000)))
    return len(found)


@action
async def segfaults(ctx: ActionCtx) -> None:
    import ctypes

    ctypes.string_at(0)


@action
async def stops(ctx: ActionCtx) -> None:
    """The process does not turn, and nobody can say why."""
    os.kill(os.getpid(), 19)
