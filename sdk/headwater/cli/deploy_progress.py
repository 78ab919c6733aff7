"""Shows how far a deploy is while it goes on: bars on a terminal, lines of JSON otherwise."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, TypeVar

from headwater_protocol.errors import HeadwaterError
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from headwater.cli.output import json_line, printable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from typing import Any

    from rich.progress import TaskID

    from headwater.cli.output import Output
    from headwater.http_client import DeployStep

_T = TypeVar("_T")
_LOOK_S = 0.25
_VERBS = {"documents": "checking documents of", "index": "building index"}


async def with_progress(
    output: Output, look: Callable[[], Awaitable[list[DeployStep]]], deploying: Coroutine[Any, Any, _T]
) -> _T:
    """Wait for a deploy and show its steps meanwhile.

    Args:
        output: Where to.
        look: Asks the server how far it is. That it cannot say is no reason to end.
        deploying: The deploy.
    """
    task = asyncio.ensure_future(deploying)
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=output.talk,
        transient=True,
    )
    shown: dict[str, TaskID] = {}
    told: dict[str, DeployStep] = {}
    on_terminal = output.talk.is_terminal and not output.as_json
    try:
        while not (await asyncio.wait([task], timeout=_LOOK_S))[0]:
            try:
                steps = await look()
            except HeadwaterError:
                continue
            for step in steps:
                label = f"{_VERBS.get(step.what, step.what)} {printable(step.name)}"
                if not on_terminal:
                    if told.get(label) != step:
                        output.say(json_line(asdict(step)))
                    told[label] = step
                    continue
                bars.start()
                if label not in shown:
                    shown[label] = bars.add_task(label, total=1.0)
                bars.update(shown[label], completed=step.share)
        return await task
    finally:
        if shown:
            bars.stop()
        task.cancel()
