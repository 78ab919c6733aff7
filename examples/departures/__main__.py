"""Start Headwater, load a year of departures and show them live: `python -m examples.departures`."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import headwater
from headwater_protocol.errors import HeadwaterError
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from examples.departures import board, dataset

FUNCTIONS = Path(__file__).parent / "functions"
REFERENCE_BATCH = 400
READY_TIMEOUT_S = 60.0


def options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m examples.departures", description=__doc__)
    parser.add_argument("--airport", choices=sorted(board.AIRPORTS), default="JFK")
    parser.add_argument(
        "--speed", type=float, default=300.0, help="seconds of 2013 in one second of today (default 300)"
    )
    parser.add_argument("--url", help="a running server; without it one is started in --home")
    parser.add_argument("--port", type=int, default=4510, help="port of the server that is started")
    parser.add_argument(
        "--home", type=Path, default=Path(".headwater/departures"), help="where data and log are kept"
    )
    parser.add_argument(
        "--cache", type=Path, default=Path(".cache"), help="where the downloaded data is kept"
    )
    parser.add_argument("--data", type=Path, help="a folder with the CSV files instead of the download")
    parser.add_argument("--flights", type=int, help="stop after so many flights")
    return parser.parse_args()


async def main() -> int:
    """Run the example; returns the exit code."""
    chosen = options()
    task = asyncio.current_task()
    assert task is not None, "main is a task"
    # Ended politely, the server is ended too; it has a session of its own.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    console = Console()
    try:
        folder = chosen.data or await asyncio.to_thread(_fetch, console, chosen.cache)
        async with server(chosen, console) as url, headwater.connect(url) as client:
            await import_reference(client, folder, console)
            await show(client, folder, chosen, console)
    except (dataset.DatasetError, HeadwaterError, ServerError) as error:
        console.print(f"[red]departures:[/] {error}")
        return 1
    return 0


def _fetch(console: Console, cache: Path) -> Path:
    with console.status("Downloading the 2013 departures (8 MB, once) …"):
        return dataset.fetch(cache)


class ServerError(Exception):
    """The server did not start."""


@asynccontextmanager
async def server(chosen: argparse.Namespace, console: Console) -> AsyncIterator[str]:
    """Run `headwater dev` on the example's functions until the block ends; yields its URL."""
    if chosen.url:
        yield chosen.url
        return
    home: Path = chosen.home.resolve()
    home.mkdir(parents=True, exist_ok=True)
    log = home / "server.log"
    command = [
        sys.executable,
        "-m",
        "headwater.cli",
        "dev",
        str(FUNCTIONS),
        "--port",
        str(chosen.port),
        "--tcp-port",
        "0",
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=home, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        with console.status("Starting the server …"):
            await _ready(process, log)
        console.print(f"Server ready at http://127.0.0.1:{chosen.port}, log in {os.path.relpath(log)}")
        yield f"ws://127.0.0.1:{chosen.port}"
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            await asyncio.to_thread(process.wait, 15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


async def _ready(process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the log tells that the functions are deployed."""
    for _ in range(int(READY_TIMEOUT_S / 0.1)):
        text = log.read_text(errors="replace")
        if "deployed" in text:
            return
        if process.poll() is not None:
            raise ServerError(f"the server did not start:\n{text.strip()}")
        await asyncio.sleep(0.1)
    raise ServerError(f"the server was not ready within {READY_TIMEOUT_S:.0f} s; see {log}")


async def import_reference(client: headwater.Client, folder: Path, console: Console) -> None:
    """Import airlines, airports, planes and weather, each with a progress bar; what is there stays."""
    progress = Progress(
        TextColumn("{task.description:<9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )
    sources: list[tuple[str, Callable[[Path], Iterator[dataset.Row]]]] = [
        ("airlines", dataset.airlines),
        ("airports", dataset.airports),
        ("planes", dataset.planes),
        ("weather", dataset.weather),
    ]
    marker = await client.query("reference:finished")
    if marker:
        console.print("Reference tables are already there.")
        return
    with progress:
        for name, read in sources:
            rows = list(read(folder))
            bar = progress.add_task(name, total=len(rows))
            for batch in dataset.batches(rows, REFERENCE_BATCH):
                await client.mutation(f"reference:add_{name}", rows=batch)
                progress.advance(bar, len(batch))
    await client.mutation("reference:finish")


async def show(client: headwater.Client, folder: Path, chosen: argparse.Namespace, console: Console) -> None:
    """Replay the flights in time order and show the board as it changes."""
    with console.status("Reading 336,776 flights …"):
        flights = await asyncio.to_thread(dataset.flights, folder)
    last = await client.query("flights:latest")
    if last is not None:
        flights = [row for row in flights if row["moment"] > last]
    if chosen.flights is not None:
        flights = flights[: chosen.flights]
    with Live(console=console, auto_refresh=False, screen=console.is_terminal, transient=False) as live:

        async def watch() -> None:
            async for departures in client.subscribe("flights:board", origin=chosen.airport):
                status = f"{chosen.speed:g} s of 2013 a second · Ctrl-C ends"
                live.update(board.table(chosen.airport, departures, status), refresh=True)

        watcher = asyncio.create_task(watch())
        try:
            await replay(client, flights, chosen.speed)
            await asyncio.sleep(0.5)
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)


async def replay(client: headwater.Client, flights: list[dict[str, Any]], speed: float) -> None:
    """Record each flight at its moment, `speed` times as fast as it was; what falls due together goes together."""
    if not flights:
        return
    loop = asyncio.get_running_loop()
    start_s, first = loop.time(), flights[0]["moment"]
    position = 0
    while position < len(flights):
        now = first + timedelta(seconds=(loop.time() - start_s) * speed)
        due = position
        while due < len(flights) and flights[due]["moment"] <= now and due - position < REFERENCE_BATCH:
            due += 1
        if due > position:
            await client.mutation("flights:record", rows=flights[position:due])
            position = due
        else:
            wait_s = (flights[position]["moment"] - now).total_seconds() / speed
            await asyncio.sleep(min(max(wait_s, 0.001), 1.0))


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main()))
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)
