from datetime import datetime, timedelta

import pytest
from headwater import HeadwaterError
from headwater.testing import Deployment

from examples.self_destruct import functions
from examples.self_destruct.functions import messages
from examples.self_destruct.functions.schema import Message


@pytest.fixture
def deployment() -> Deployment:
    return Deployment(functions)


def shown(deployment: Deployment, at: datetime | None = None) -> list[str]:
    found = deployment.run_query(messages.list_, room="attic", at=at or deployment.now)
    return [message.body for message in found]


def stored(deployment: Deployment) -> int:
    with deployment.transaction() as ctx:
        return len(ctx.db.scan(Message).collect())


def test_a_message_is_shown_until_it_expires(deployment: Deployment) -> None:
    deployment.run_mutation(messages.send, room="attic", body="later", seconds=60)
    deployment.run_mutation(messages.send, room="attic", body="soon", seconds=10)
    deployment.run_mutation(messages.send, room="cellar", body="elsewhere")
    assert shown(deployment) == ["soon", "later"]
    deployment.advance(timedelta(seconds=11))
    assert shown(deployment) == ["later"]
    deployment.advance(timedelta(seconds=60))
    assert shown(deployment) == []


def test_a_wrong_clock_shows_nothing_that_has_expired(deployment: Deployment) -> None:
    sent = deployment.now
    deployment.run_mutation(messages.send, room="attic", body="gone", seconds=10)
    deployment.advance(timedelta(minutes=5))
    assert shown(deployment, at=sent) == []


async def test_each_message_is_deleted_when_it_expires(deployment: Deployment) -> None:
    for seconds in (10, 20, 300):
        deployment.run_mutation(messages.send, room="attic", body=str(seconds), seconds=seconds)
    await deployment.pass_time(timedelta(seconds=15))
    assert stored(deployment) == 2
    await deployment.pass_time(timedelta(minutes=1))
    assert stored(deployment) == 1
    assert shown(deployment) == ["300"]


async def test_a_message_that_expires_goes_from_the_screens(deployment: Deployment) -> None:
    screen = deployment.watch(messages.list_, room="attic", at=deployment.now)
    deployment.run_mutation(messages.send, room="attic", body="hi", seconds=10)
    deployment.advance(timedelta(minutes=1))
    assert len(screen.result) == 1  # time alone changes no result
    await deployment.run_due()
    assert screen.result == []


@pytest.mark.parametrize("seconds", [0, 86_401])
def test_a_message_lives_for_a_day_at_most(deployment: Deployment, seconds: int) -> None:
    with pytest.raises(HeadwaterError) as caught:
        deployment.run_mutation(messages.send, room="attic", body="hi", seconds=seconds)
    assert caught.value.code == "invalid_arguments"
