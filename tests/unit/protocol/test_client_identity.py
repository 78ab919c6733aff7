"""Whose calls a client session sends: those of a user wait for the verdict on their token, and go to nobody else."""

from __future__ import annotations

from typing import Any

import pytest
from headwater_protocol.client_events import (
    AuthenticationFailed,
    IdentityChanged,
    IdentityLost,
    Moved,
    MutationResolved,
    ValueChanged,
)
from headwater_protocol.client_session import ClientSession
from headwater_protocol.errors import ProtocolError
from headwater_protocol.messages import (
    Action,
    Authenticate,
    AuthError,
    ClientMessage,
    ModifyQuerySet,
    Mutation,
    MutationAnswer,
    Transition,
    Version,
)
from support.told_session import ARGUMENTS, SESSION, move, open_it, opened, sent, tell, value


def test_identity_is_asked_for_again_on_a_new_connection() -> None:
    client = ClientSession(SESSION, "test")
    client.authenticate("old")
    client.authenticate("token")
    open_it(client)
    assert sent(client)[0] == Authenticate(0, "token")
    start = client.version
    assert tell(client, Transition(start, Version(1, 1, 100), ())) == [IdentityChanged(), Moved(100)]
    client.authenticate("bad")
    assert sent(client) == [Authenticate(1, "bad")]
    assert tell(client, AuthError(1, "no")) == [AuthenticationFailed("no")]
    client.disconnected()
    open_it(client)
    assert sent(client)[0] == Authenticate(0, "token")
    client.authenticate(None)
    assert sent(client) == [Authenticate(1, None)]


def numbers(messages: list[ClientMessage]) -> list[int]:
    return [message.request for message in messages if isinstance(message, Mutation | Action)]


def accept(client: ClientSession, identity: int) -> list[Any]:
    """Tell that a token is accepted; return the numbers of the calls that are sent then."""
    end = Version(client._query_set.number, identity, 100)
    assert IdentityChanged() in tell(client, Transition(client.version, end, ()))
    return numbers(sent(client))


def test_calls_wait_until_the_token_of_their_user_is_accepted() -> None:
    client = opened()
    client.authenticate("ada")
    first = client.mutate("a:m", ARGUMENTS)
    assert sent(client) == [Authenticate(0, "ada")]
    assert tell(client, AuthError(0, "no")) == [AuthenticationFailed("no")]
    client.authenticate("fresh", refresh=True)
    assert sent(client) == [Authenticate(1, "fresh")]
    assert accept(client, 2) == [first]
    client.authenticate("fresher", refresh=True)
    second = client.act("a:a", ARGUMENTS)
    assert sent(client)[1:] == [Action(second, "a:a", ARGUMENTS)], "its user has been accepted"


def test_what_was_called_before_the_first_connection_is_the_first_users() -> None:
    client = ClientSession(SESSION, "test")
    early = client.mutate("a:m", ARGUMENTS)
    client.authenticate("ada")
    open_it(client)
    assert numbers(sent(client)) == []
    assert accept(client, 1) == [early]


def test_a_session_is_not_settled_while_calls_wait_for_a_verdict() -> None:
    client = ClientSession(SESSION, "test")
    client.authenticate("ada")
    request = client.mutate("a:m", ARGUMENTS)
    open_it(client)
    sent(client)
    move(client, 100)
    assert not client.settled
    assert accept(client, 1) == [request]
    assert not client.settled
    tell(client, MutationAnswer(request, 100, b"\xc0", None))
    assert client.settled


def test_calls_of_a_user_who_has_signed_out_are_not_sent_as_another_one() -> None:
    client = opened()
    client.authenticate("ada")
    sent(client)
    accept(client, 1)
    carried = client.mutate("a:m", ARGUMENTS)
    client.authenticate("bob")
    waiting = client.mutate("a:m", ARGUMENTS)
    assert client.take_events() == []
    (lost,) = client.disconnected()
    assert (lost.request, lost.error.code) == (carried, "outcome_unknown")
    client.authenticate(None)
    (never,) = client.take_events()
    assert (never.request, never.error.code) == (waiting, "unauthenticated")
    nobodys = client.mutate("a:m", ARGUMENTS)
    client.authenticate("cleo")
    cleos = client.mutate("a:m", ARGUMENTS)
    open_it(client)
    first, *others = sent(client)
    assert numbers([first]) == [nobodys]
    assert others == [Authenticate(0, "cleo"), ModifyQuerySet(0, 1, (), ())]
    assert accept(client, 1) == [cleos]


def test_a_token_that_holds_no_more_is_told_and_calls_wait_for_another() -> None:
    client = opened()
    client.authenticate("ada")
    sent(client)
    accept(client, 1)
    assert tell(client, AuthError(0, "it has ended")) == [IdentityLost("it has ended")]
    request = client.mutate("a:m", ARGUMENTS)
    assert sent(client) == []
    with pytest.raises(ProtocolError, match="neither waits"):
        tell(client, AuthError(0, "again"))
    client.disconnected()
    open_it(client)
    assert sent(client) == [ModifyQuerySet(0, 1, (), ())], "nobody is asked for with a token that has ended"
    client.authenticate("fresh", refresh=True)
    assert sent(client) == [Authenticate(0, "fresh")]
    assert accept(client, 1) == [request]


def test_a_token_may_be_accepted_and_lost_before_a_transition_says_so() -> None:
    client = opened()
    client.authenticate("ada")
    request = client.mutate("a:m", ARGUMENTS)
    sent(client)
    assert tell(client, AuthError(0, "it has ended")) == [AuthenticationFailed("it has ended")]
    assert tell(client, Transition(client.version, Version(1, 1, 100), ())) == [Moved(100)]
    assert sent(client) == []
    client.authenticate("fresh", refresh=True)
    sent(client)
    assert accept(client, 2) == [request]


def test_an_update_of_a_call_that_was_sent_before_holds_the_screen_until_its_user_is_known() -> None:
    client = opened()
    client.authenticate("ada")
    client.subscribe("a:b", ARGUMENTS)
    sent(client)
    move(client, 100, q1=value([1]))
    accept(client, 1)

    def add(view: Any) -> None:
        view.set("a:b", ARGUMENTS, [*view.get("a:b", ARGUMENTS)[0], 2])

    request = client.mutate("a:m", ARGUMENTS, add)
    assert client.take_events() == [ValueChanged(1, [1, 2])]
    sent(client)
    client.disconnected()
    open_it(client)
    assert numbers(sent(client)) == []
    assert move(client, 105, q1=value([1, 2])) == [], "it may have the change, and would show it twice"
    assert tell(client, AuthError(0, "no")) == [AuthenticationFailed("no")]
    client.authenticate(None)
    shown = client.take_events()
    assert [event.request for event in shown if isinstance(event, MutationResolved)] == [request]
    assert [event.value for event in shown if isinstance(event, ValueChanged)] == [[1], [1, 2]]
