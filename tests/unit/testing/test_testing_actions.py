"""Actions in the testing kit: their queries and mutations are calls of their own over the database in memory."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from headwater import HeadwaterError, Id
from headwater.testing import Deployment
from support import tested
from support.tested import doings, notes

if TYPE_CHECKING:
    from support.tested.schema import Notebook


@pytest.fixture
def deployment() -> Deployment:
    return Deployment(tested)


@pytest.fixture
def notebook(deployment: Deployment) -> Id[Notebook]:
    return deployment.run_mutation(notes.open_notebook, name="ideas")


def texts(deployment: Deployment, notebook: Id[Notebook]) -> list[str]:
    return [note.text for note in deployment.run_query(notes.list_, notebook)]


async def test_an_action_reads_and_writes_as_its_caller(
    deployment: Deployment, notebook: Id[Notebook]
) -> None:
    note = deployment.run_mutation(notes.write, notebook=notebook, text="a")
    screen = deployment.watch(notes.list_, notebook)
    made = await deployment.as_user("ada").run_action(doings.copy, note, notebook=notebook)
    assert (made.text, made.notebook) == ("a, by ada", notebook)
    assert [len(result) for result in screen.results] == [1, 2]
    assert await deployment.run_action(doings.who) == "nobody"
    await deployment.as_user("ada").run_action(doings.open_, name="hers")
    assert deployment.as_user("ada").run_query(notes.mine) == ["hers"]


async def test_the_pieces_of_a_stream_come_as_a_list(deployment: Deployment) -> None:
    assert await deployment.run_action(doings.words, text="one two") == ["one", "two"]


async def test_time_and_chance_of_an_action_are_the_tests(deployment: Deployment) -> None:
    first, second = await deployment.run_action(doings.times)
    assert first < second < first + 1
    deployment.advance(timedelta(days=1))
    assert (await deployment.run_action(doings.times))[0] == deployment.now.timestamp() * 1000
    drawn = [await Deployment(tested, seed=seed).run_action(doings.draw) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    ("how", "told"), [("zero", "internal_error"), ("application", "application_error {'code': 'failed'}")]
)
async def test_an_action_is_told_of_a_nested_failure_as_in_the_daemon(
    deployment: Deployment, notebook: Id[Notebook], how: str, told: str
) -> None:
    assert await deployment.run_action(doings.failing, notebook, how=how) == told
    assert texts(deployment, notebook) == ["kept"]


async def test_what_an_action_raises_arrives_as_it_is(deployment: Deployment) -> None:
    with pytest.raises(ZeroDivisionError):
        await deployment.run_action(doings.broken)
    with pytest.raises(HeadwaterError) as caught:
        await deployment.run_action(doings.words, text=5)  # type: ignore[arg-type]
    assert caught.value.code == "invalid_arguments"
    with pytest.raises(TypeError, match="doings:broken is no query; run it with run_action"):
        deployment.run_query(doings.broken)  # type: ignore[arg-type]


def test_claims_are_those_of_a_token(deployment: Deployment) -> None:
    ada = deployment.as_user("ada", email="ada@example.com", email_verified=True, role="admin")
    identity = ada.run_query(notes.me)
    assert identity is not None
    assert (identity.email, identity.email_verified, identity.claims["role"]) == (
        "ada@example.com",
        True,
        "admin",
    )
