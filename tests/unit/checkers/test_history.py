"""The checker of histories against histories by hand: each anomaly is found and named, and none is made up."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import pytest
from support.history import Append, Found, Operation, Outcome, Placed, Read, Transaction, find_anomalies
from support.registers import Model, Script, operations

if TYPE_CHECKING:
    from collections.abc import Sequence

X, Y = 1, 2
ROOM = (7, 0), (7, 100)


def concurrent(*bodies: Sequence[Operation]) -> list[Transaction]:
    return [Transaction(number, 0, 1, body) for number, body in enumerate(bodies)]


def in_turn(*bodies: Sequence[Operation]) -> list[Transaction]:
    return [Transaction(number, number, number + 0.5, body) for number, body in enumerate(bodies)]


def kinds(transactions: list[Transaction], *, complete: bool = False) -> list[str]:
    return [anomaly.kind for anomaly in find_anomalies(transactions, complete=complete)]


RIGHT = [
    [Read(X, []), Append(X, 1)],
    [Read(X, [1]), Append(X, 2), Append(Y, 3), Read(X, [1, 2])],
    [Found(*ROOM, {}), Placed(5, 0, (7, 50))],
    [Found(*ROOM, {5: 0}), Placed(5, 1, (8, 1))],
    [Found(*ROOM, {}), Read(X, [1, 2]), Read(Y, [3])],
]


def test_what_ran_in_turn_is_right() -> None:
    assert kinds(in_turn(*RIGHT), complete=True) == []
    assert kinds(concurrent(*reversed(RIGHT)), complete=True) == []


@pytest.mark.parametrize(
    ("expected", "bodies"),
    [
        # Both read the same and put theirs behind it: one is overwritten.
        (["order", "order"], [[Read(X, []), Append(X, 1)], [Read(X, []), Append(X, 2)], [Read(X, [2])], [Read(X, [1])]]),
        (["G-single"], [[Read(X, []), Append(X, 1)], [Read(X, []), Append(X, 2)], [Read(X, [1, 2])]]),
        (["lost"], [[Placed(5, 0, (7, 1))], *[[Found(*ROOM, {5: 0}), Placed(5, 1, (7, at))] for at in (2, 3)]]),
        # Write skew: each reads what the other writes.
        (["G2"], [[Read(X, []), Append(Y, 1)], [Read(Y, []), Append(X, 2)], [Read(X, [2]), Read(Y, [1])]]),
        # Phantoms: each finds room, both take it.
        (["G2"], [[Found(*ROOM, {}), Placed(at, 0, (7, at))] for at in (5, 6)]),
        # Two lists in opposite orders.
        (["G0"], [[Append(X, 1), Append(Y, 1)], [Append(X, 2), Append(Y, 2)], [Read(X, [1, 2])], [Read(Y, [2, 1])]]),
        (["G1b", "G-single"], [[Append(X, 1), Append(X, 2)], [Read(X, [1])], [Read(X, [1, 2])]]),
        (["G1c"], [[Append(X, 1), Read(Y, [2])], [Append(Y, 2), Read(X, [1])]]),
        # One half of what another wrote.
        (["G-single"], [[Append(X, 1), Append(Y, 2)], [Read(X, [1]), Read(Y, [])], [Read(Y, [2])]]),
        (["G-single"], [[Append(X, 1), Placed(5, 0, (7, 1))], [Read(X, [1]), Found(*ROOM, {})], [Read(X, [1])]]),
        (["G-single"], [[Placed(5, 0, (7, 1))], [Placed(5, 1, (8, 1)), Append(X, 1)], [Read(X, [1]), Found(*ROOM, {5: 0})]]),
        (["internal"], [[Append(X, 1), Read(X, [])], [Read(X, [1])]]),
        (["internal"], [[Read(X, []), Read(X, [1])], [Append(X, 1)]]),
        (["garbage"], [[Read(X, [9])]]),
        (["garbage"], [[Found(*ROOM, {9: 0})]]),
        (["duplicate"], [[Append(X, 1)], [Read(X, [1, 1])]]),
    ],
)  # fmt: skip
def test_each_anomaly_has_its_name(expected: list[str], bodies: list[list[Operation]]) -> None:
    found = kinds(concurrent(*bodies))
    assert sorted(set(found)) == sorted(set(expected)), found


@pytest.mark.parametrize(
    ("expected", "bodies"),
    [
        ("G-single-realtime", [[Append(X, 1)], [Read(X, [])], [Read(X, [1])]]),
        ("G-single-realtime", [[Placed(5, 0, (7, 1))], [Found(*ROOM, {})]]),
        ("G0-realtime", [[Append(X, 1)], [Append(X, 2)], [Read(X, [2, 1])]]),
        ("G1c-realtime", [[Read(X, [1])], [Append(X, 1)]]),
    ],
)
def test_what_is_right_in_no_order_of_time(expected: str, bodies: list[list[Operation]]) -> None:
    assert kinds(concurrent(*bodies)) == []
    assert kinds(in_turn(*bodies)) == [expected]


def test_a_chain_of_ends_holds_over_any_distance() -> None:
    far = [[Append(X, 1)], *([Append(Y, value)] for value in range(10, 500)), [Read(X, [])], [Read(X, [1])]]
    assert kinds(in_turn(*far)) == ["G-single-realtime"]


def test_what_failed_or_was_acknowledged_counts() -> None:
    failed = Transaction(0, 0, 1, [Append(X, 1), Placed(5, 0, (7, 1))], Outcome.FAILED)
    assert kinds([failed, Transaction(1, 0, 1, [Read(X, []), Found(*ROOM, {})])], complete=True) == []
    assert "G1a" in kinds([failed, Transaction(1, 0, 1, [Read(X, [1])])])
    assert "G1a" in kinds([failed, Transaction(1, 0, 1, [Found(*ROOM, {5: 0})])])
    acknowledged = Transaction(0, 0, 1, [Append(X, 1)])
    assert kinds([acknowledged, Transaction(1, 0, 1, [Read(X, [])])], complete=True) == ["lost"]


def test_what_nobody_knows_of_may_have_happened_or_not() -> None:
    unknown = Transaction(0, 0, math.inf, [Append(X, 1), Placed(5, 0, (7, 1))], Outcome.UNKNOWN)
    for reading in ([Read(X, [1]), Found(*ROOM, {5: 0})], [Read(X, []), Found(*ROOM, {})]):
        assert kinds([unknown, Transaction(1, 5, 6, reading)], complete=True) == []
    half = [Read(X, [1]), Found(*ROOM, {}), Read(X, [1])]
    assert kinds([unknown, Transaction(1, 5, 6, half), Transaction(2, 7, 8, [Found(*ROOM, {5: 0})])]) == [
        "G-single"
    ]


def run_in_turn(seed: int, count: int) -> list[tuple[list[list[object]], list[object]]]:
    """Run a script over a model of its own, one transaction after the other."""
    script, model, done = Script(random.Random(seed)), Model(), []
    for _ in range(count):
        steps = [step for step in script.change() if step != ["fail"]]
        results = [model.run(step, ["id"]) for step in steps]
        script.learn(steps, results)
        done.append((steps, results))
    return done + [(steps, [model.run(step, None) for step in steps]) for steps in script.everything()]


def test_a_script_run_in_turn_is_right_and_each_change_to_it_is_found() -> None:
    chance = random.Random(4)
    for seed in range(5):
        done = run_in_turn(seed, 300)
        model = Model()
        assert [model.difference(*one) for one in done] == [None] * len(done)
        right = [
            Transaction(n, n, n + 0.5, operations(steps, results)) for n, (steps, results) in enumerate(done)
        ]
        assert kinds(right, complete=True) == []
        # A reading transaction that saw the state of a moment ago: only time tells, and it does.
        place = chance.randrange(100, 250)
        steps = [["scan", 0, 8], ["count", 0, 0, 4 << 32, None]]
        early, late = (
            [*done[:cut], (steps, results_after(done[:cut], steps))] for cut in (place, place + 20)
        )
        stale = [*done[: place + 20], early[-1], *done[place + 20 :]]
        assert early[-1][1] != late[-1][1]
        history = [
            Transaction(n, n, n + 0.5, operations(steps, results)) for n, (steps, results) in enumerate(stale)
        ]
        assert "G-single-realtime" in kinds(history, complete=True)
        model = Model()
        assert [found for one in stale if (found := model.difference(*one))]


def results_after(
    done: list[tuple[list[list[object]], list[object]]], steps: list[list[object]]
) -> list[object]:
    model = Model()
    for one in done:
        assert model.difference(*one) is None
    return [model.run(step, None) for step in steps]
