"""The testing kit: functions run as they run in the daemon, and tests see what they came to."""

from __future__ import annotations

import traceback
from datetime import timedelta

import headwater
import pytest
from headwater import ApplicationError, HeadwaterError, Id, PageOptions, QueryCtx, query
from headwater.testing import Caller, Deployment
from headwater_protocol.errors import InternalError
from support import tested
from support.tested import notes
from support.tested.schema import Note, Notebook


@pytest.fixture
def deployment() -> Deployment:
    return Deployment(tested)


@pytest.fixture
def notebook(deployment: Deployment) -> Id[Notebook]:
    return deployment.run_mutation(notes.open_notebook, name="ideas")


def code_of(caught: pytest.ExceptionInfo[HeadwaterError]) -> str:
    return caught.value.code


# ----------------------------------------------------------------------------------------- reading and writing


def test_results_have_their_declared_types(deployment: Deployment, notebook: Id[Notebook]) -> None:
    written = deployment.run_mutation(notes.write, notebook=notebook, text="a", stars=2)
    (note,) = deployment.run_query(notes.list_, notebook)
    assert isinstance(note, Note)
    assert (note.id, note.notebook, note.text, note.stars) == (written, notebook, "a", 2)
    assert deployment.run_query(notes.counts) == [notes.Count(notebook="ideas", notes=1)]
    page = deployment.run_query(notes.paged, notebook=notebook, options=PageOptions(num_items=5))
    assert (page.page, page.is_done) == ([note], True)


def test_two_deployments_share_nothing(deployment: Deployment, notebook: Id[Notebook]) -> None:
    assert Deployment(tested).run_query(notes.counts) == []
    assert len(deployment.run_query(notes.counts)) == 1


def test_indexes_find_what_was_written_changed_and_deleted(
    deployment: Deployment, notebook: Id[Notebook]
) -> None:
    low, high = (
        deployment.run_mutation(notes.write, notebook=notebook, text=text, stars=stars)
        for text, stars in (("low", 1), ("high", 5))
    )
    assert deployment.run_query(notes.best, notebook) == ["high", "low"]
    assert deployment.run_mutation(notes.star, low, more=9) == 10
    assert deployment.run_query(notes.best, notebook, at_least=6) == ["low"]
    deployment.run_mutation(notes.erase, high)
    assert deployment.run_query(notes.best, notebook) == ["low"]


def test_a_unique_index_is_checked(deployment: Deployment, notebook: Id[Notebook]) -> None:
    with pytest.raises(HeadwaterError) as caught:
        deployment.run_mutation(notes.open_notebook, name="ideas")
    assert code_of(caught) == "unique_violation"
    assert len(deployment.run_query(notes.counts)) == 1


def test_arguments_documents_and_results_are_checked(deployment: Deployment, notebook: Id[Notebook]) -> None:
    with pytest.raises(HeadwaterError) as caught:
        deployment.run_mutation(notes.write, notebook=notebook, text="a", stars="many")  # type: ignore[arg-type]
    assert code_of(caught) == "invalid_arguments"
    note = deployment.run_mutation(notes.write, notebook=notebook, text="a")
    with pytest.raises(HeadwaterError) as caught:
        deployment.run_query(notes.list_, note)  # type: ignore[arg-type]
    assert code_of(caught) == "invalid_arguments"
    with pytest.raises(HeadwaterError) as caught:
        deployment.run_mutation(notes.write, notebook=notebook, text="a" * 201)
    assert code_of(caught) == "invalid_document"
    with pytest.raises(HeadwaterError) as caught:
        deployment.run_query(notes.wrong_result)
    assert code_of(caught) == "invalid_result"


def test_limits_are_those_of_the_daemon(deployment: Deployment, notebook: Id[Notebook]) -> None:
    note = deployment.run_mutation(notes.write, notebook=notebook, text="a")
    with pytest.raises(HeadwaterError) as caught:
        deployment.run_query(notes.too_much, note)
    assert code_of(caught) == "too_many_documents"


def test_only_functions_of_the_package_and_kind_are_run(deployment: Deployment) -> None:
    @query
    def elsewhere(ctx: QueryCtx) -> None:
        return None

    with pytest.raises(TypeError, match="of the deployment's package"):
        deployment.run_query(elsewhere)
    with pytest.raises(TypeError, match="notes:draw is no query; run it with run_mutation"):
        deployment.run_query(notes.draw)  # type: ignore[arg-type]


def test_a_module_is_no_package() -> None:
    with pytest.raises(HeadwaterError) as caught:
        Deployment(notes)
    assert code_of(caught) == "invalid_bundle"


# ------------------------------------------------------------------------------------------------------ errors


def test_the_data_of_an_application_error_arrives_and_nothing_is_written(
    deployment: Deployment, notebook: Id[Notebook]
) -> None:
    with pytest.raises(ApplicationError) as caught:
        deployment.run_mutation(notes.fail_after_writing, notebook=notebook, how="application")
    assert caught.value.data == {"code": "failed"}
    assert deployment.run_query(notes.list_, notebook) == []


def test_any_other_exception_arrives_with_the_line_that_raised_it(
    deployment: Deployment, notebook: Id[Notebook]
) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        deployment.run_mutation(notes.fail_after_writing, notebook=notebook, how="zero")
    assert traceback.extract_tb(caught.value.__traceback__)[-1].line == "1 / 0  # noqa: B018"
    assert deployment.run_query(notes.list_, notebook) == []


@pytest.mark.parametrize("how", ["unencodable", "exit"])
def test_what_clients_would_see_otherwise_tests_see_otherwise(
    deployment: Deployment, notebook: Id[Notebook], how: str
) -> None:
    with pytest.raises(InternalError) as caught:
        deployment.run_mutation(notes.fail_after_writing, notebook=notebook, how=how)
    assert isinstance(caught.value.__cause__, ApplicationError | SystemExit)


def test_a_caught_error_rolls_back_the_nested_writes_alone(
    deployment: Deployment, notebook: Id[Notebook]
) -> None:
    assert deployment.run_mutation(notes.caught, notebook) == "caught"
    assert [note.text for note in deployment.run_query(notes.list_, notebook)] == ["after all"]


def test_a_call_that_is_broken_off_leaves_the_deployment_usable(
    deployment: Deployment, notebook: Id[Notebook]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        deployment.run_mutation(notes.fail_after_writing, notebook=notebook, how="interrupt")
    with deployment.transaction() as ctx:
        ctx.db.insert(Note(notebook=notebook, text="a"))
    assert [note.text for note in deployment.run_query(notes.list_, notebook)] == ["a"]


# ----------------------------------------------------------------------------------------------------- conflicts


def test_a_mutation_that_lost_runs_again(deployment: Deployment, notebook: Id[Notebook]) -> None:
    note = deployment.run_mutation(notes.write, notebook=notebook, text="a")
    slow = deployment.begin_mutation(notes.star, note)
    assert deployment.run_mutation(notes.star, note) == 1
    assert slow.commit() == 2
    assert slow.attempts == 2


def test_a_mutation_that_met_nobody_runs_once(deployment: Deployment, notebook: Id[Notebook]) -> None:
    one, other = (deployment.run_mutation(notes.write, notebook=notebook, text=text) for text in "ab")
    slow = deployment.begin_mutation(notes.star, one)
    deployment.run_mutation(notes.star, other)
    assert (slow.commit(), slow.attempts) == (1, 1)


def test_nothing_of_a_pending_mutation_is_visible(deployment: Deployment) -> None:
    pending = deployment.begin_mutation(notes.open_notebook, name="ideas")
    assert deployment.run_query(notes.counts) == []
    pending.commit()
    assert len(deployment.run_query(notes.counts)) == 1


def test_a_rerun_sees_what_beat_it(deployment: Deployment) -> None:
    slow = deployment.begin_mutation(notes.open_notebook, name="ideas")
    deployment.run_mutation(notes.open_notebook, name="ideas")
    with pytest.raises(HeadwaterError) as caught:
        slow.commit()
    assert code_of(caught) == "unique_violation"


# ------------------------------------------------------------------------------------------------------ watching


def texts(results: list[list[Note]]) -> list[list[str]]:
    return [[note.text for note in result] for result in results]


def test_a_watch_shows_each_change_and_nothing_else(deployment: Deployment, notebook: Id[Notebook]) -> None:
    other = deployment.run_mutation(notes.open_notebook, name="other")
    watch = deployment.watch(notes.list_, notebook)
    first = deployment.run_mutation(notes.write, notebook=notebook, text="a")
    deployment.run_mutation(notes.write, notebook=other, text="elsewhere")
    deployment.run_mutation(notes.write, notebook=notebook, text="b")
    deployment.run_mutation(notes.erase, first)
    assert texts(watch.results) == [[], ["a"], ["a", "b"], ["b"]]
    assert watch.result == watch.results[-1]
    watch.close()
    watch.close()
    deployment.run_mutation(notes.write, notebook=notebook, text="c")
    assert len(watch.results) == 4


def test_a_rerun_that_gives_the_same_is_not_shown(deployment: Deployment, notebook: Id[Notebook]) -> None:
    watch = deployment.watch(notes.counts)
    note = deployment.run_mutation(notes.write, notebook=notebook, text="a")
    deployment.run_mutation(notes.star, note)
    assert [result[0].notes for result in watch.results] == [0, 1]


def test_a_watch_runs_again_only_for_what_it_has_read(deployment: Deployment) -> None:
    """A query whose result depends on the time is not run again because time has passed, nor by the daemon."""
    watch = deployment.watch(notes.moments)
    deployment.advance(timedelta(hours=1))
    deployment.run_mutation(notes.open_notebook, name="ideas")
    assert len(watch.results) == 1


def test_a_watch_tells_the_error_of_its_newest_run_and_recovers(
    deployment: Deployment, notebook: Id[Notebook]
) -> None:
    note = deployment.run_mutation(notes.write, notebook=notebook, text="a")
    watch = deployment.watch(notes.text_of, note)
    deployment.run_mutation(notes.set_text, note, None)
    with pytest.raises(ApplicationError):
        watch.result  # noqa: B018
    deployment.run_mutation(notes.set_text, note, "b")
    assert (watch.result, watch.results) == ("b", ["a", "b"])


def test_pages_of_a_watch_keep_their_ends(deployment: Deployment, notebook: Id[Notebook]) -> None:
    for text in "abcd":
        deployment.run_mutation(notes.write, notebook=notebook, text=text)
    watch = deployment.watch(notes.paged, notebook=notebook, options=PageOptions(num_items=2))
    deployment.run_mutation(notes.erase, watch.result.page[0].id)
    assert texts([page.page for page in watch.results]) == [["a", "b"], ["b"]]


# ------------------------------------------------------------------------------------------ clients, transactions


def test_callers_have_the_identity_they_were_given(deployment: Deployment) -> None:
    ada, bob = deployment.as_user("ada", name="Ada"), deployment.as_user("bob")
    for caller, name in ((ada, "hers"), (bob, "his"), (deployment, "nobody's")):
        caller.run_mutation(notes.open_notebook, name=name)
    assert [ada.run_query(notes.mine), bob.run_query(notes.mine)] == [["hers"], ["his"]]
    assert deployment.run_query(notes.mine) == ["nobody's"]
    assert deployment.run_query(notes.me) is None
    found = ada.run_query(notes.me)
    assert found is not None
    assert (found.subject, found.name, found.email) == ("ada", "Ada", None)
    identity = headwater.Identity("x|y", "y", "x")
    assert deployment.with_identity(identity).run_query(notes.me) == identity


def test_each_watch_is_its_callers(deployment: Deployment) -> None:
    callers: list[Caller] = [deployment.as_user("ada"), deployment.as_user("bob")]
    watches = [caller.watch(notes.mine) for caller in callers]
    callers[0].run_mutation(notes.open_notebook, name="hers")
    assert [watch.results for watch in watches] == [[[], ["hers"]], [[]]]


def test_a_transaction_puts_documents_there_and_watches_see_it(deployment: Deployment) -> None:
    watch = deployment.watch(notes.counts)
    with deployment.as_user("ada").transaction() as ctx:
        notebook = ctx.db.insert(Notebook(name="seeded"))
        ctx.run_mutation(notes.write, notebook=notebook, text="a")
        assert ctx.auth.identity() is not None
    assert watch.results == [[], [notes.Count(notebook="seeded", notes=1)]]


def test_the_ctx_of_a_transaction_ends_with_its_block(deployment: Deployment) -> None:
    with deployment.transaction() as ctx:
        query = ctx.db.scan(Notebook)
        kept = ctx.db.insert(Notebook(name="seeded"))
    for late in (
        lambda: ctx.db.insert(Notebook(name="late")),
        lambda: ctx.db.get(kept),
        lambda: query.collect(),
        lambda: ctx.now_ms,
    ):
        with pytest.raises(TypeError, match="a call of a test that has ended"):
            late()


def test_nothing_of_a_transaction_that_raises_is_written(deployment: Deployment) -> None:
    def write_and_stop() -> None:
        with deployment.transaction() as ctx:
            ctx.db.insert(Notebook(name="seeded"))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_and_stop()
    assert deployment.run_query(notes.counts) == []
