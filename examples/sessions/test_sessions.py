from typing import Any
from uuid import UUID

import pytest
from headwater import ApplicationError, HeadwaterError
from headwater.testing import Caller, Deployment

from examples.sessions import functions
from examples.sessions.functions import basket
from examples.sessions.functions.schema import Session

ONE, OTHER = UUID(int=1), UUID(int=2)


@pytest.fixture
def deployment() -> Deployment:
    return Deployment(functions)


def shown(caller: Caller, session: UUID) -> dict[str, int]:
    return {line.product: line.count for line in caller.run_query(basket.list_, session=session)}


def test_a_session_finds_its_basket_again(deployment: Deployment) -> None:
    deployment.run_mutation(basket.add, session=ONE, product="tea")
    assert deployment.run_mutation(basket.add, session=ONE, product="tea", count=2) == 3
    assert (shown(deployment, ONE), shown(deployment, OTHER)) == ({"tea": 3}, {})
    deployment.run_mutation(basket.remove, session=ONE, product="tea")
    deployment.run_mutation(basket.remove, session=OTHER, product="tea")
    assert shown(deployment, ONE) == {}


def test_looking_makes_no_session(deployment: Deployment) -> None:
    shown(deployment, ONE)
    with deployment.transaction() as ctx:
        assert ctx.db.scan(Session).collect() == []


def test_two_tabs_show_the_same(deployment: Deployment) -> None:
    tab = deployment.watch(basket.list_, session=ONE)
    deployment.run_mutation(basket.add, session=ONE, product="tea")
    deployment.run_mutation(basket.add, session=OTHER, product="jam")
    assert [[line.product for line in lines] for lines in tab.results] == [[], ["tea"]]


def test_who_signs_in_keeps_the_basket(deployment: Deployment) -> None:
    deployment.run_mutation(basket.add, session=ONE, product="tea", count=2)
    ada = deployment.as_user("ada")
    ada.run_mutation(basket.add, session=OTHER, product="tea", count=1)
    assert ada.run_mutation(basket.claim, session=ONE) == 1
    assert shown(ada, OTHER) == {"tea": 3}
    assert shown(deployment, ONE) == {}
    assert shown(deployment.as_user("bob"), ONE) == {}


def test_a_basket_is_claimed_once(deployment: Deployment) -> None:
    deployment.run_mutation(basket.add, session=ONE, product="tea")
    ada, bob = deployment.as_user("ada"), deployment.as_user("bob")
    slow = bob.begin_mutation(basket.claim, session=ONE)
    assert ada.run_mutation(basket.claim, session=ONE) == 1
    assert (slow.commit(), slow.attempts) == (0, 2)
    assert (shown(ada, ONE), shown(bob, ONE)) == ({"tea": 1}, {})
    with deployment.transaction() as ctx:
        assert ctx.db.scan(Session).collect() == []


def test_nobody_claims_without_signing_in(deployment: Deployment) -> None:
    with pytest.raises(ApplicationError):
        deployment.run_mutation(basket.claim, session=ONE)


def test_a_session_is_a_uuid(deployment: Deployment) -> None:
    guess: Any = "guess"
    with pytest.raises(HeadwaterError) as caught:
        deployment.run_query(basket.list_, session=guess)
    assert caught.value.code == "invalid_arguments"
