import pytest
from headwater import ApplicationError, HeadwaterError, Id
from headwater.testing import Deployment

from examples.likes import functions
from examples.likes.functions import messages, users
from examples.likes.functions.schema import Like, User


@pytest.fixture
def deployment() -> Deployment:
    return Deployment(functions)


@pytest.fixture
def ada(deployment: Deployment) -> Id[User]:
    return deployment.run_mutation(users.join, name="ada")


@pytest.fixture
def bob(deployment: Deployment) -> Id[User]:
    return deployment.run_mutation(users.join, name="bob")


def test_who_joins_twice_is_one_user(deployment: Deployment, ada: Id[User]) -> None:
    assert deployment.run_mutation(users.join, name="ada") == ada
    assert [user.name for user in deployment.run_query(users.list_)] == ["ada"]


def test_a_name_belongs_to_one(deployment: Deployment, ada: Id[User], bob: Id[User]) -> None:
    with pytest.raises(HeadwaterError) as caught:
        deployment.run_mutation(users.rename, user=bob, name="ada")
    assert caught.value.code == "unique_violation"


def test_messages_are_joined_with_authors_and_likes(
    deployment: Deployment, ada: Id[User], bob: Id[User]
) -> None:
    hi = deployment.run_mutation(messages.send, author=ada, body="hi")
    deployment.run_mutation(messages.send, author=bob, body="hello")
    deployment.run_mutation(messages.like, message=hi, user=bob)
    rows = deployment.run_query(messages.list_, viewer=bob)
    told = [(row.author, row.message.body, row.likes, row.liked) for row in rows]
    assert told == [("bob", "hello", 0, False), ("ada", "hi", 1, True)]
    assert [message.id for message in deployment.run_query(messages.liked_by, user=bob)] == [hi]


def test_a_new_name_shows_on_old_messages(deployment: Deployment, ada: Id[User]) -> None:
    deployment.run_mutation(messages.send, author=ada, body="hi")
    screen = deployment.watch(messages.list_)
    deployment.run_mutation(users.rename, user=ada, name="countess")
    assert [rows[0].author for rows in screen.results] == ["ada", "countess"]


def test_a_like_is_taken_back(deployment: Deployment, ada: Id[User]) -> None:
    hi = deployment.run_mutation(messages.send, author=ada, body="hi")
    assert deployment.run_mutation(messages.like, message=hi, user=ada) is True
    assert deployment.run_mutation(messages.like, message=hi, user=ada) is False
    assert deployment.run_query(messages.list_)[0].likes == 0


def test_two_likes_at_once_cancel_each_other(deployment: Deployment, ada: Id[User]) -> None:
    hi = deployment.run_mutation(messages.send, author=ada, body="hi")
    slow = deployment.begin_mutation(messages.like, message=hi, user=ada)
    assert deployment.run_mutation(messages.like, message=hi, user=ada) is True
    assert slow.commit() is False
    assert slow.attempts == 2


def test_likes_go_with_their_message(deployment: Deployment, ada: Id[User], bob: Id[User]) -> None:
    hi = deployment.run_mutation(messages.send, author=ada, body="hi")
    deployment.run_mutation(messages.like, message=hi, user=bob)
    with pytest.raises(ApplicationError):
        deployment.run_mutation(messages.delete, message=hi, author=bob)
    deployment.run_mutation(messages.delete, message=hi, author=ada)
    assert deployment.run_query(messages.liked_by, user=bob) == []
    with deployment.transaction() as ctx:
        assert ctx.db.scan(Like).collect() == []
