from __future__ import annotations

from typing import Any

from headwater_server.observe.metrics import Metrics
from headwater_server.switchboard import Switchboard


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
