"""How long a deploy takes: from the call to the answer, when the next call runs in the new bundle.

Ours: two bundles that differ in a line, in turns, by an HTTP client beside the daemon. The limit: a new Python process
that imports the bundle and ends, which is the least that whoever runs user code in processes of its own has to do.
Further: a deploy that changes the documents of a table and builds an index over them.
"""

from __future__ import annotations

import asyncio
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import headwater
from headwater.http_client import HttpClient
from headwater.packing import pack

from benchmarks import slices
from benchmarks.daemon import FUNCTIONS, running

DOCUMENTS = 20_000
IN_FLIGHT = 100
IMPORT = "import sys; sys.path.insert(0, sys.argv[1]); import functions.bank, functions.feed"


def variant(folder: Path, name: str, *, indexed: bool = False) -> Path:
    """Return a copy of the bundle with a line of its own, and if asked for with a field and an index more."""
    functions = folder / name / "functions"
    shutil.copytree(FUNCTIONS, functions, ignore=shutil.ignore_patterns("__pycache__"))
    bank = functions / "bank.py"
    bank.write_text(f"{bank.read_text()}\nNAME = {name!r}\n")
    if indexed:
        schema = functions / "schema.py"
        by_topic = '    by_topic = Index("topic")\n'
        text = schema.read_text().replace(
            by_topic, f'{by_topic}    kind: str = "a"\n    by_kind = Index("kind")\n'
        )
        schema.write_text(text)
    return functions


def imported(functions: Path) -> float:
    """Return the ms of a new process that imports a bundle."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", IMPORT, str(functions.parent)], check=True)
    return (time.perf_counter() - start) * 1000


async def deployed(http: HttpClient, archive: bytes) -> float:
    """Return the ms of a deploy."""
    start = time.perf_counter()
    assert (await http.deploy(archive)).changed
    return (time.perf_counter() - start) * 1000


async def fill(client: headwater.Client) -> None:
    """Insert the documents for the larger deploy."""
    gate = asyncio.Semaphore(IN_FLIGHT)

    async def add(number: int) -> None:
        async with gate:
            await client.mutation("feed:add", topic=f"topic {number % 100}", body="x" * 250)

    await asyncio.gather(*(add(number) for number in range(DOCUMENTS)))


async def measure(folder: Path, slice_count: int) -> tuple[slices.Paired, dict[str, object]]:
    """Measure deploys and imports in turns, then the larger deploy."""
    result = slices.Paired([], [], more_is_better=False)
    folders = [variant(folder, "one"), variant(folder, "two")]
    archives = [pack(functions) for functions in folders]
    async with running() as daemon, headwater.connect(daemon.url) as client:
        key = (daemon.data / "admin-key").read_text().strip()
        async with HttpClient(f"http://127.0.0.1:{daemon.port}", key=key) as http:
            for number in range(slice_count + 1):
                result.ours.append(await deployed(http, archives[number % 2]))
                result.limit.append(imported(folders[number % 2]))
            del result.ours[0], result.limit[0]
            await fill(client)
            large_ms = await deployed(http, pack(variant(folder, "three", indexed=True)))
    rest_s = max(large_ms - statistics.median(result.ours), 1) / 1000
    return result, {
        "checked_and_indexed_documents": DOCUMENTS,
        "checked_and_indexed_ms": round(large_ms),
        "documents_a_second": round(DOCUMENTS / rest_s),
    }


def main() -> int:
    """Run the benchmark."""
    chosen = slices.arguments(__doc__).parse_args()
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder:
        result, further = asyncio.run(measure(Path(folder), chosen.slices))
    report = slices.Report("deploy_time", result.row("ms, call to answer"), further)
    report.further["machine"] = slices.machine()
    report.print(as_json=chosen.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
