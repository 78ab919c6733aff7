from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from headwater_server.functions.failures import CallReporter
from headwater_server.observe.call_log import CallLog, CallLogOptions
from headwater_server.observe.metrics import Metrics
from headwater_server.switchboard import Switchboard
from headwater_server.worker.messages import Failure
from headwater_storage.committer import PublishedBatch
from headwater_storage.proposal import CommitTs


class Core:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def publish(self, ts: int, conflict_keys: set[bytes], answers: list[Any], writers: Any) -> None:
        self.told.append(("publish", ts, conflict_keys))

    def remove_worker(self, worker: int, *, retired: bool = False) -> None:
        self.told.append(("remove", worker, retired))

    def query_killed(self, round_number: int, call: int, error: Any) -> None:
        self.told.append(("killed", round_number, call, error.code))


@pytest.mark.parametrize(
    ("code", "told"), [("worker_died", ("remove", 1, False)), ("time_limit", ("killed", 2, 3, "time_limit"))]
)
def test_a_query_whose_worker_died_runs_once_more_before_it_is_blamed(
    code: str, told: tuple[Any, ...]
) -> None:
    unused: Any = None
    reporter = CallReporter(production=True, random_bytes=bytes, log=CallLog(CallLogOptions(), int))
    switchboard = Switchboard(
        unused, reporter, Metrics(), clean_readers=lambda: None, after_publish=lambda: None
    )
    core: Any = Core()
    switchboard.core = core
    switchboard.round_query_killed(1, 2, 3, "m:q", Failure(code, "why"))
    assert core.told == [told]


def test_only_deaths_of_workers_are_counted_and_each_end_frees_its_readers() -> None:
    metrics = Metrics()
    cleaned: list[None] = []
    unused: Any = None
    switchboard = Switchboard(
        unused,
        unused,
        metrics,
        clean_readers=lambda: cleaned.append(None),
        after_publish=lambda: None,
    )
    switchboard.worker_ended(1, planned=True)
    assert b"headwater_worker_deaths_total 0.0" in metrics.text()
    switchboard.worker_ended(2, planned=False)
    assert b"headwater_worker_deaths_total 1.0" in metrics.text()
    assert len(cleaned) == 2


def test_a_deploy_hears_what_is_written_while_it_checks_documents() -> None:
    unused: Any = None
    switchboard = Switchboard(
        unused, unused, Metrics(), clean_readers=lambda: None, after_publish=lambda: None
    )
    core: Any = Core()
    switchboard.core = core
    written: list[set[bytes]] = []
    checks: Any = SimpleNamespace(published=written.append)
    switchboard.published(PublishedBatch(CommitTs(7), [], {b"before"}))
    switchboard.document_checks = checks
    switchboard.published(PublishedBatch(CommitTs(8), [], {b"during"}))
    assert written == [{b"during"}]
    assert [ts for _, ts, _ in core.told] == [7, 8]
