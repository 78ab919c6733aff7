from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from headwater_server.observe import conflicts
from headwater_server.observe.conflicts import ConflictCounts
from headwater_server.observe.metrics import Metrics


def call(name: str) -> Any:
    return SimpleNamespace(name=name)


def test_losses_are_counted_by_loser_table_and_winner() -> None:
    metrics, looked_up = Metrics(), []

    def table_of(key: bytes) -> str:
        looked_up.append(key)
        return {b"0001": "messages", b"0002": "users"}[key[:4]]

    counts = ConflictCounts(table_of, metrics.function_conflicts)
    for key, other in ((b"0001a", "m:w"), (b"0001b", "m:w"), (b"0002a", None)):
        counts.lost(call("m:f"), key, other and call(other))
    counts.lost(call("m:g"), None, None)
    assert counts.of("m:f") == [(("m:f", "messages", "m:w"), 2), (("m:f", "users", ""), 1)]
    assert counts.of()[0][1] == 2
    assert looked_up == [b"0001a", b"0002a"], "once for each table and index"
    text = metrics.text().decode()
    assert 'headwater_function_conflicts_total{function="m:f",table="messages"} 2.0' in text
    assert 'headwater_function_conflicts_total{function="m:g",table=""} 1.0' in text


def test_kinds_of_conflicts_are_bounded_and_nothing_is_lost_of_the_sum() -> None:
    counts = ConflictCounts(lambda _: "t", (metrics := Metrics()).function_conflicts)
    for number in range(3 * conflicts._ROWS_MAX):
        counts.lost(call(f"m:{number}"), b"0001", None)
    rows = counts.of()
    assert len(rows) == conflicts._ROWS_MAX + 1
    assert sum(count for _, count in rows) == 3 * conflicts._ROWS_MAX
    assert rows[0] == (("other", "other", "other"), 2 * conflicts._ROWS_MAX)
    assert metrics.text().count(b"headwater_function_conflicts_total{") == conflicts._ROWS_MAX + 1
