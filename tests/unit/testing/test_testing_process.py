"""Time, chance and the guard of the testing kit, and what they leave alone: the process is the tests' own."""

from __future__ import annotations

import random
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from headwater import HeadwaterError
from headwater.testing import Deployment
from headwater.testing.deployment import START
from support import tested
from support.tested import notes

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def deployment() -> Deployment:
    return Deployment(tested)


# -------------------------------------------------------------------------------------------------------- time


def test_every_clock_of_a_function_tells_the_time_of_the_test(deployment: Deployment) -> None:
    assert deployment.run_query(notes.moments) == [START.timestamp()] * 5


def test_time_stands_until_it_is_moved(deployment: Deployment) -> None:
    first, second = (deployment.run_query(notes.moments)[0] for _ in range(2))
    assert first < second < first + 0.0001
    deployment.advance(timedelta(days=1))
    assert deployment.run_query(notes.moments)[0] == (START + timedelta(days=1)).timestamp()
    deployment.now = moment = datetime(2030, 2, 3, tzinfo=UTC)
    assert deployment.run_query(notes.moments)[0] == moment.timestamp()
    assert deployment.now == moment


def test_time_does_not_go_back(deployment: Deployment) -> None:
    with pytest.raises(ValueError, match="forward only"):
        deployment.now = START - timedelta(seconds=1)
    with pytest.raises(ValueError, match="time zone"):
        Deployment(tested, now=datetime(2030, 1, 1))


def test_the_clocks_of_the_test_are_real(deployment: Deployment) -> None:
    deployment.run_query(notes.moments)
    before = time.time_ns()
    time.sleep(0.001)
    assert time.time_ns() > before


# ------------------------------------------------------------------------------------------------------ chance


def history(seed: int) -> list[object]:
    deployment = Deployment(tested, seed=seed)
    notebook = deployment.run_mutation(notes.open_notebook, name="ideas")
    return [notebook, *deployment.run_mutation(notes.draw), *deployment.run_mutation(notes.draw)]


def test_the_same_seed_gives_the_same_ids_and_chance() -> None:
    assert history(1) == history(1)
    assert not set(history(1)) & set(history(2))


def test_chance_in_a_query_follows_from_its_arguments(deployment: Deployment) -> None:
    assert deployment.run_query(notes.draw_in_query) == deployment.run_query(notes.draw_in_query)
    assert deployment.run_query(notes.draw_in_query) != deployment.run_query(notes.draw_in_query, salt=1)


def test_the_chance_of_the_test_is_left_alone(deployment: Deployment) -> None:
    random.seed(7)
    expected = [random.random() for _ in range(4)]
    random.seed(7)
    drawn = []
    for _ in range(4):
        drawn.append(random.random())
        deployment.run_mutation(notes.draw)
    assert drawn == expected


# ------------------------------------------------------------------------------------------------------- guard


def test_a_function_is_refused_what_the_daemon_refuses(deployment: Deployment, tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(HeadwaterError) as caught:
        deployment.run_query(notes.write_a_file, path=str(path))
    assert caught.value.code == "not_allowed_here"
    assert not path.exists()
    path.write_text("the test itself may")


def test_a_call_that_is_broken_off_leaves_the_guard_off(deployment: Deployment, tmp_path: Path) -> None:
    notebook = deployment.run_mutation(notes.open_notebook, name="ideas")
    with pytest.raises(KeyboardInterrupt):
        deployment.run_mutation(notes.fail_after_writing, notebook=notebook, how="interrupt")
    (tmp_path / "file").write_text("x")
    assert time.time() != time.time()  # not the call's, which stands
    assert not sys.dont_write_bytecode or sys.flags.dont_write_bytecode


def test_other_threads_may_go_on_during_a_call(deployment: Deployment, tmp_path: Path) -> None:
    """A debugger or a test runner has threads that write files and start others."""
    failures: list[BaseException] = []
    stop = threading.Event()

    def work() -> None:
        try:
            while not stop.is_set():
                (tmp_path / "log").write_text("x")
                threading.Thread(target=int).start()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        notebook = deployment.run_mutation(notes.open_notebook, name="ideas")
        note = deployment.run_mutation(notes.write, notebook=notebook, text="a")
        with pytest.raises(HeadwaterError):
            deployment.run_query(notes.too_much, note)
    finally:
        stop.set()
        thread.join()
    assert failures == []
