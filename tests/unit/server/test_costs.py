from __future__ import annotations

from headwater_server.costs import RunCosts


def ran(costs: RunCosts, name: str) -> float:
    """Have a function of this name run for 100 ms; return what a run is taken to cost then."""
    costs.ran(name, 100.0)
    return costs.estimate_ms(name)


def test_costs_are_remembered_of_so_many_names_and_of_none_that_is_longer_than_names_are() -> None:
    costs = RunCosts(0.5, 1.0, 2)
    assert ran(costs, "a:one") == 100.0
    assert ran(costs, "x" * 512) == 100.0
    assert ran(costs, "x" * 513) == 1.0
    assert costs.estimate_ms("a:one") == 100.0
    ran(costs, "a:three")
    assert costs.estimate_ms("a:one") == 1.0
