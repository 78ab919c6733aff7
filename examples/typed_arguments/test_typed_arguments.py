from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from headwater import HeadwaterError, Id, Int64
from headwater.testing import Deployment

from examples.typed_arguments import functions
from examples.typed_arguments.functions import orders
from examples.typed_arguments.functions.schema import Line, Order, Pickup, Shipping, Size

HOME = Shipping(street="1 Example Street", country="NZ")


@pytest.fixture
def deployment() -> Deployment:
    return Deployment(functions)


def test_what_is_placed_is_stored_in_its_types(deployment: Deployment) -> None:
    lines = [Line(product="cup", count=2), Line(product="bowl", count=1, size=Size.LARGE, engraving="ada")]
    pickup = Pickup(store="harbour", day=date(2026, 2, 3))
    made = deployment.run_mutation(
        orders.place,
        lines=lines,
        delivery=pickup,
        priority="express",
        tip=50,
        labels={"gift": "yes"},
        reference=Int64(2**60),
    )
    order = deployment.run_query(orders.get, made)
    assert order is not None
    assert (order.lines, order.delivery, order.priority) == (lines, pickup, "express")
    assert (order.price, order.tip, order.labels) == (Decimal("16.25"), 50, {"gift": "yes"})
    assert order.placed == deployment.now
    assert order.reference == 2**60


def test_times_are_a_range_of_an_index(deployment: Deployment) -> None:
    start = deployment.now
    for _ in range(3):
        deployment.run_mutation(orders.place, lines=[Line(product="cup", count=1)], delivery=HOME)
        deployment.advance(timedelta(days=1))
    found = deployment.run_query(orders.placed_between, start=start, end=start + timedelta(days=2))
    assert [order.placed for order in found] == [start, start + timedelta(days=1)]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"lines": []}, "Expected `array` of length >= 1 - at `$.lines`"),
    ({"lines": [Line(product="cup", count=0)]}, "Expected `int` >= 1 - at `$.lines[0].count`"),
    ({"lines": [Line(product="", count=1)]}, "Expected `str` of length >= 1 - at `$.lines[0].product`"),
    ({"lines": [{"product": "cup", "count": 1, "size": "huge"}]}, "Invalid enum value 'huge'"),
    (
        {"delivery": {"type": "drone"}},
        "Invalid value 'drone', expected 'pickup' or 'shipping' - at `$.delivery.type`",
    ),
    ({"delivery": Shipping(street="x", country="Narnia")}, "matching regex '^[A-Z]{2}$'"),
    (
        {"delivery": {"type": "pickup", "store": "x", "day": "soon"}},
        "Invalid RFC3339 encoded date - at `$.delivery.day`",
    ),
    ({"priority": "yesterday"}, "Invalid enum value 'yesterday'"),
    ({"tip": 1.5}, "Expected `int`, got `float` - at `$.tip`"),
    ({"labels": {"gift": 1}}, "Expected `str`, got `int` - at `$.labels[...]`"),
    ({"tipp": 1}, "unknown argument `tipp`; did you mean `tip`?"),
]


@pytest.mark.parametrize(("changed", "told"), WRONG)
def test_what_does_not_fit_is_refused_before_anything_runs(
    deployment: Deployment, changed: dict[str, Any], told: str
) -> None:
    arguments: dict[str, Any] = {"lines": [Line(product="cup", count=1)], "delivery": HOME}
    with pytest.raises(HeadwaterError) as caught:
        deployment.run_mutation(orders.place, **{**arguments, **changed})
    assert caught.value.code == "invalid_arguments"
    assert told in caught.value.message
    with deployment.transaction() as ctx:
        assert ctx.db.scan(Order).collect() == []


def test_an_id_is_that_of_its_table(deployment: Deployment) -> None:
    text: Any = "m" * 34
    wrong: Id[Order] = text
    with pytest.raises(HeadwaterError) as caught:
        deployment.run_query(orders.get, wrong)
    assert caught.value.code == "invalid_arguments"
