from headwater.testing import Deployment

from examples.chat import functions
from examples.chat.functions import messages


def test_a_screen_follows_a_channel() -> None:
    deployment = Deployment(functions)
    channel = deployment.run_mutation(messages.open_channel, name="general")
    screen = deployment.watch(messages.list_, channel=channel)
    deployment.run_mutation(messages.send, channel=channel, author="ada", body="hi")
    assert [[message.body for message in shown] for shown in screen.results] == [[], ["hi"]]


def test_a_channel_of_a_name_is_made_once() -> None:
    deployment = Deployment(functions)
    slow = deployment.begin_mutation(messages.open_channel, name="general")
    assert deployment.run_mutation(messages.open_channel, name="general") == slow.commit()
