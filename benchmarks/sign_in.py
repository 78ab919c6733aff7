"""Whether the time of an answer tells who has an account: wrong passwords for nobody, and for somebody.

Ours: attempts a second with addresses that no account has, one after another, at a real daemon. The limit: the same with
addresses that have one, and a password. Both compare one argon2id hash; a ratio of 1 means that nobody can tell. With
`--against right`, the limit are right passwords: what a sign-in costs beside a refusal.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from benchmarks import slices
from benchmarks.daemon import running

if TYPE_CHECKING:
    from collections.abc import Callable

PEOPLE = 50
PASSWORD = "correct horse battery"
BUNDLE = """
from headwater.accounts import Accounts, SignInLimits

MANY = 1_000_000
accounts = Accounts(limits=SignInLimits(passwords=MANY, codes=MANY, addresses=MANY))
"""


class Visitor:
    """Somebody who tries passwords.

    Args:
        http: Keeps one connection.
        port: Of the daemon.
    """

    def __init__(self, http: aiohttp.ClientSession, port: int) -> None:
        self._http = http
        self._address = f"http://127.0.0.1:{port}/http/auth"

    async def post(self, what: str, expected: int, **fields: Any) -> None:
        """Ask a route; fails if it answers otherwise than expected."""
        async with self._http.post(f"{self._address}/{what}", json=fields) as answer:
            if answer.status != expected:
                raise RuntimeError(f"{what} answers {answer.status}: {await answer.text()}")

    async def rate(self, seconds: float, name: Callable[[], str], password: str, expected: int) -> float:
        """Return how many attempts a second are answered, one after another."""
        done, start = 0, time.perf_counter()
        while (spent_s := time.perf_counter() - start) < seconds:
            await self.post("password", expected, email=name(), password=password)
            done += 1
        return done / spent_s


async def measure(against: str, count: int) -> slices.Paired:
    """Measure both in turns."""
    result = slices.Paired([], [], more_is_better=True)
    numbers = itertools.count()
    right = against == "right"
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder:
        functions = Path(folder) / "functions"
        functions.mkdir()
        (functions / "__init__.py").touch()
        (functions / "auth.py").write_text(BUNDLE)
        async with running(functions) as daemon, aiohttp.ClientSession() as http:
            visitor = Visitor(http, daemon.port)
            for number in range(PEOPLE):
                await visitor.post("sign-up", 200, email=f"known{number}", password=PASSWORD)
            for _ in range(count + 1):
                result.ours.append(
                    await visitor.rate(
                        slices.SLICE_S, lambda: f"nobody{next(numbers) % PEOPLE}", PASSWORD, 401
                    )
                )
                result.limit.append(
                    await visitor.rate(
                        slices.SLICE_S,
                        lambda: f"known{next(numbers) % PEOPLE}",
                        PASSWORD if right else PASSWORD + "!",
                        200 if right else 401,
                    )
                )
    del result.ours[0], result.limit[0]
    return result


def main() -> int:
    """Run the benchmark."""
    parser = slices.arguments(__doc__)
    parser.add_argument(
        "--against", choices=["wrong", "right"], default="wrong", help="passwords; default wrong"
    )
    chosen = parser.parse_args()
    result = asyncio.run(measure(chosen.against, chosen.slices))
    report = slices.Report("sign_in", result.row("attempts/s"), {"against": chosen.against})
    report.further["machine"] = slices.machine()
    report.print(as_json=chosen.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
