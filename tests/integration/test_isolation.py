"""What is for one user alone is never sent to another: hundreds of them on shared queries, some of whom try.

A crowd over several workers looks at the same queries while notes are written, topics close and open (so that the
same query reads the identity now and then), users change, tokens end, connections are cut and workers die. Every value
that anybody was shown says whose it is. Others try what they may: digests and cursors of other users, their session
ids, their requests.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from headwater_protocol.errors import HeadwaterError
from support.daemon import running
from support.screen_client import Failure, ScreenClient, Values
from support.spec_client import Refused, SpecClient, pack
from support.users import STAFF, user_token

if TYPE_CHECKING:
    from pathlib import Path

    from support.daemon import RunningDaemon

TOPICS = 6
OPTIONS = {"numItems": 3, "cursor": None}
REFUSALS = {"unauthenticated", "outcome_unknown", "worker_died"}


@dataclass
class Crowd:
    """Users and what they do.

    Attributes:
        users: How many of them sit before a client, each its own.
        rounds: How often a few of them write.
        leaks: What somebody was shown that was another's.
        shown: How many values were looked at that are for one user alone.
    """

    chance: random.Random
    users: int
    rounds: int
    clients: list[ScreenClient] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    shown: int = 0

    def token(self, user: str) -> str:
        lasts_s = self.chance.choice([1.0, 3600.0, 3600.0, 3600.0, 3600.0])
        return user_token(user.partition("|")[2], lasts_s=lasts_s)

    def user(self) -> str:
        return f"{STAFF}|user {self.chance.randrange(self.users)}"

    def look(self) -> None:
        """Look at everything that the clients were shown."""
        for client in self.clients:
            for shown in client.shown:
                for number, value in shown.values.items():
                    name = client.queries[number].name
                    owners = owners_of(name, value)
                    self.shown += bool(owners)
                    if owners - {shown.user}:
                        self.leaks.append(f"{shown.user} was shown {value} by {name}")


def owners_of(name: str, value: Any) -> set[str | None]:
    """Return whose a value is, empty if it is for everybody."""
    if isinstance(value, Failure):
        return {value.data["owner"]} if isinstance(value.data, dict) else set()
    match name:
        case "notes:mine":
            return {note["owner"] for note in value}
        case "notes:page_of_mine":
            return {note["owner"] for note in value["page"]}
        case "notes:topic":
            return {note["owner"] for note in value["notes"]} if value["private"] else set()
        case "notes:whoami":
            return {value}
    return set()


async def sit(client: ScreenClient, crowd: Crowd, number: int) -> None:
    """Look at what others look at too."""
    client.sign_in(f"{STAFF}|user {number}")
    for name in ("mine", "whoami", "refused"):
        client.subscribe(f"notes:{name}")
    for topic in crowd.chance.sample(range(TOPICS), 2):
        client.subscribe("notes:topic", name=f"topic {topic}")
    client.subscribe("notes:page_of_mine", options=OPTIONS)


async def act(crowd: Crowd, daemon: RunningDaemon) -> None:
    """Write, open and close topics, change users, cut connections and kill a worker."""
    chance = crowd.chance
    for number in range(crowd.rounds):
        writers = chance.sample(crowd.clients, 8)
        await asyncio.gather(*[write(client, crowd, number) for client in writers])
        for client in chance.sample(crowd.clients, 3):
            chance.choice([client.cut, client.refresh, lambda client=client: client.sign_in(crowd.user())])()
        if number == crowd.rounds // 2:
            daemon.kill_worker(chance)


async def write(client: ScreenClient, crowd: Crowd, number: int) -> None:
    topic, user = f"topic {crowd.chance.randrange(TOPICS)}", client.user
    try:
        if crowd.chance.random() < 0.3:
            await client.mutation("notes:close", topic=topic, private=crowd.chance.random() < 0.6)
        else:
            answer = await client.mutation("notes:write", topic=topic, text=f"note {number}")
            if answer != f"{user}: note {number}":
                crowd.leaks.append(f"{user} was answered {answer}")
    except HeadwaterError as error:
        if error.code not in REFUSALS:
            raise


async def together(daemon: RunningDaemon, crowd: Crowd) -> None:
    values, urls = Values(), [daemon.tcp_url, daemon.url]
    crowd.clients = [
        ScreenClient(urls[number % 2], crowd.chance.randbytes(16), values, crowd.token)
        for number in range(crowd.users)
    ]
    async with asyncio.TaskGroup() as tasks:
        connected = [tasks.create_task(client.run()) for client in crowd.clients]
        for number, client in enumerate(crowd.clients):
            await sit(client, crowd, number)
        await crowd.clients[0].mutation("notes:close", topic="topic 0", private=True)
        await act(crowd, daemon)
        await crowd.clients[0].mutation("notes:close", topic="the end", private=False)
        for task in connected:
            task.cancel()


def crowd_trial(folder: Path, seed: int, broken: str | None = None, *, users: int, rounds: int) -> Crowd:
    """Run a crowd on a daemon of its own, with a rule taken out if told so."""
    print(f"HEADWATER_SEED={seed}")
    folder.mkdir(exist_ok=True)
    crowd = Crowd(random.Random(seed), users, rounds)
    options = ("--workers", "3", "--token-leeway-s", "0", "--session-tokens-limit-per-minute", "10000")
    with running(folder, *options) as daemon:
        if broken is not None:
            assert daemon.terminate() == 0
            daemon.break_rule(broken)
            daemon.start()
        daemon.must_deploy("identity")
        asyncio.run(together(daemon, crowd))
        assert daemon.terminate() == 0
    crowd.look()
    return crowd


@pytest.mark.timeout(180)
def test_hundreds_of_users_are_shown_what_is_theirs_alone(tmp_path: Path) -> None:
    crowd = crowd_trial(tmp_path, random.SystemRandom().randrange(2**32), users=250, rounds=40)
    assert crowd.leaks == []
    assert crowd.shown > 2_000
    assert sum(client.counts["identities"] for client in crowd.clients) > crowd.users
    assert sum(client.counts["lost"] for client in crowd.clients) > 0


@pytest.mark.timeout(180)
@pytest.mark.parametrize("rule", ["identities", "identity_once"])
def test_without_the_identity_check_of_sharing_they_are_not(tmp_path: Path, rule: str) -> None:
    crowd = crowd_trial(tmp_path, 7, rule, users=40, rounds=30)
    assert crowd.leaks


# ------------------------------------------------------------------------------------------- those who try


@pytest.mark.timeout(120)
async def test_nothing_of_another_user_is_had_by_trying(tmp_path: Path) -> None:
    with running(tmp_path, "--workers", "2", deploy="identity") as daemon:
        victim, thief = SpecClient(daemon.url), SpecClient(daemon.tcp_url)
        for client, user in ((victim, "ada"), (thief, "eve")):
            await client.connect()
            await client.sign_in(user_token(user))
            for number in range(5):
                await client.mutation("notes:write", topic="t", text=f"{user} {number}")
        try:
            await steal_by_digest(victim, thief)
            await steal_by_page(victim, thief)
            await steal_by_request(victim)
            await steal_by_session(victim)
        finally:
            await victim.cut()
            await thief.cut()


async def steal_by_digest(victim: SpecClient, thief: SpecClient) -> None:
    """Say that one holds what another holds: only one's own value is confirmed, and no delta starts from it."""
    known = await victim.subscribe("notes:mine")
    await victim.shows(known, lambda notes: len(notes) == 5)
    digest = victim.queries[known].digest
    number = await thief.subscribe("notes:mine")
    await thief.shows(number, lambda notes: {note["text"][:3] for note in notes} == {"eve"})
    await thief.cut()
    thief.queries[number].digest = digest
    thief.queries[number].value = "something"
    await thief.connect()
    # Nobody's yet: a failure, not a confirmation; SpecClient fails on an Unchanged or a Delta from what it does not hold.
    await thief.until(lambda: thief.queries[number].error is not None)
    await thief.sign_in(user_token("eve"))
    await thief.shows(number, lambda notes: {note["text"][:3] for note in notes} == {"eve"})


async def steal_by_page(victim: SpecClient, thief: SpecClient) -> None:
    """Go on behind another user's cursor, with their journal."""
    page = await victim.subscribe("notes:page_of_mine", options=OPTIONS)
    await victim.shows(page, lambda shown: len(shown["page"]) == 3)
    cursor, journal = victim.queries[page].value["continueCursor"], victim.queries[page].journal
    assert journal is not None
    behind = await thief.subscribe("notes:page_of_mine", options=OPTIONS | {"cursor": cursor})
    await thief.until(lambda: thief.queries[behind].settled)
    taken = thief.queries[behind]
    assert taken.error is not None or {note["text"][:3] for note in taken.value["page"]} <= {"eve"}
    await thief.cut()
    thief.queries = {}
    await thief.connect()
    await thief.sign_in(user_token("eve"))
    number = await thief.subscribe("notes:page_of_mine", options=OPTIONS)
    query = thief.queries[number]
    await thief.shows(number, lambda shown: {note["text"][:3] for note in shown["page"]} == {"eve"})
    await thief.unsubscribe(number)
    again = thief._numbers = thief._numbers + 1
    thief.queries[again] = type(query)(query.name, pack({"options": OPTIONS}))
    thief._first_changes.add(again)
    await thief._modify([[again, query.name, pack({"options": OPTIONS}), journal]], [])
    await thief.until(lambda: thief.queries[again].settled)
    taken = thief.queries[again]
    assert taken.error is not None or {note["text"][:3] for note in taken.value["page"]} <= {"eve"}


async def steal_by_request(victim: SpecClient) -> None:
    """Send another user's mutation again, by its session and number: neither as nobody nor as oneself."""
    outcome = await victim.begin("notes:write", {"topic": "t", "text": "a secret"})
    assert await outcome == f"{STAFF}|ada: a secret"
    number = victim._requests
    await victim.cut()
    for token in (None, user_token("eve")):
        thief = SpecClient(victim.url, session=victim.session)
        await thief.connect()
        if token is not None:
            await thief.sign_in(token)
        thief._requests = number - 1
        stolen = await thief.begin("notes:write", {"topic": "t", "text": "a secret"})
        with pytest.raises(Refused) as caught:
            await thief.until(lambda stolen=stolen: stolen.done())
        assert caught.value.code == "session_in_use"
        assert not stolen.done()
        await thief.cut()
    await victim.connect()
    await victim.sign_in(user_token("ada"))


async def steal_by_session(victim: SpecClient) -> None:
    """Take a session over by its id: who does is nobody, and sees nothing of what it had subscribed to."""
    thief = SpecClient(victim.url, session=victim.session)
    await thief.connect()
    with pytest.raises(Refused) as caught:
        await victim.until(lambda: False)
    assert caught.value.code == "unavailable"
    who, mine = await thief.subscribe("notes:whoami"), await thief.subscribe("notes:mine")
    await thief.shows(who, None)
    await thief.until(lambda: thief.queries[mine].error is not None)
    await thief.sign_in(user_token("eve"))
    await thief.shows(who, f"{STAFF}|eve")
    await thief.shows(mine, lambda notes: {note["text"][:3] for note in notes} == {"eve"})
    assert set(thief.queries) == {who, mine}
    await thief.cut()
