"""The testing kit and the daemon give the same answers to the same calls."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import headwater
import pytest
from headwater.testing import Deployment
from headwater.values import decode_any, encode
from headwater_protocol.errors import HeadwaterError
from support import tested
from support.daemon import running
from support.tested import notes

if TYPE_CHECKING:
    from collections.abc import Callable

CALLS = 250
BUNDLE = Path(tested.__file__).parent
NAMES = ("ideas", "plans", "lists")


class Compared:
    """One random history of calls, made to both.

    Attributes:
        ids: The daemon's id of each id of the kit.
    """

    def __init__(self, client: headwater.Client, seed: int) -> None:
        self.client = client
        self.deployment = Deployment(tested)
        self.random = Random(seed)
        self.ids: dict[str, str] = {}
        self.codes: set[str] = set()

    def translated(self, value: Any) -> Any:
        """The kit's value with the daemon's ids, and without times."""
        if isinstance(value, dict):
            return {key: self.translated(item) for key, item in value.items() if key != "_creationTime"}
        if isinstance(value, list):
            return [self.translated(item) for item in value]
        return self.ids.get(value, value) if isinstance(value, str) else value

    async def call(self, kind: str, function: Any, **arguments: Any) -> Any:
        ours = ended(lambda: getattr(self.deployment, f"run_{kind}")(function, **arguments))
        method = getattr(self.client, kind)
        try:
            theirs = await method(function.name, **self.translated(arguments))
        except HeadwaterError as error:
            theirs = ("failed", error.code, error.data)
            self.codes.add(error.code)
        if function in (notes.open_notebook, notes.write) and isinstance(ours, str):
            self.ids[ours] = theirs
        assert self.translated(ours) == without_times(theirs), (function, arguments)
        return ours

    async def step(self, books: list[str], written: list[str]) -> None:
        random = self.random
        book, note = (random.choice([*known, written[0]]) for known in (books, written))
        stars = random.choice((0, 1, 2, 3, "3"))
        match random.randrange(9):
            case 0:
                await self.call("mutation", notes.open_notebook, name=random.choice(NAMES))
            case 1 | 2:
                text = random.choice("abc") * random.choice((1, 1, 1, 201))
                made = await self.call("mutation", notes.write, notebook=book, text=text, stars=stars)
                if isinstance(made, str):
                    written.append(made)
            case 3:
                await self.call("mutation", notes.star, note=note)
            case 4:
                await self.call("mutation", notes.erase, note=note)
            case 5:
                await self.call("mutation", notes.rename, notebook=book, name=random.choice(NAMES))
            case 6:
                await self.call("query", notes.list_, notebook=book)
            case 7:
                await self.call("query", notes.best, notebook=book, at_least=stars)
            case 8:
                await self.call("query", notes.text_of, note=note)


def ended(call: Callable[[], Any]) -> Any:
    try:
        return decode_any(encode(call()))
    except HeadwaterError as error:
        return ("failed", error.code, error.data)


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key != "_creationTime"}
    return [without_times(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("seed", [1, 2])
async def test_random_calls_end_alike(seed: int, tmp_path: Path) -> None:
    with running(tmp_path, deploy=BUNDLE) as daemon:
        async with headwater.connect(daemon.url) as client:
            compared = Compared(client, seed)
            books = [await compared.call("mutation", notes.open_notebook, name=name) for name in NAMES[:2]]
            written = [await compared.call("mutation", notes.write, notebook=books[0], text="a")]
            for _ in range(CALLS):
                await compared.step(books, written)
    wanted = {
        "unique_violation",
        "invalid_arguments",
        "invalid_document",
        "application_error",
        "document_not_found",
    }
    assert compared.codes == wanted


async def test_a_watch_shows_what_a_subscription_shows(tmp_path: Path) -> None:
    with running(tmp_path, deploy=BUNDLE) as daemon:
        async with headwater.connect(daemon.url) as client:
            compared = Compared(client, 3)
            book = await compared.call("mutation", notes.open_notebook, name="ideas")
            watch = compared.deployment.watch(notes.best, notebook=book)
            seen: list[Any] = []
            actions: list[tuple[Any, dict[str, Any]]] = [
                (notes.write, {"notebook": book, "text": "a", "stars": 2}),
                (notes.write, {"notebook": book, "text": "b", "stars": 0}),
                (notes.write, {"notebook": book, "text": "c", "stars": 3}),
            ]
            async for result in client.subscribe("notes:best", notebook=compared.ids[book]):
                seen.append(result)
                while actions:
                    function, arguments = actions.pop(0)
                    await compared.call("mutation", function, **arguments)
                    if arguments["stars"]:
                        break
                else:
                    break
            assert seen == watch.results == [[], ["a"], ["c", "a"]]
