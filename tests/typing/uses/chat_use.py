"""Code against the stubs of `examples/chat`."""

import chat_api as api
import headwater


async def right(client: headwater.Client) -> None:
    channel = await client.mutation(api.messages.open_channel, name="general")
    messages = await client.query(api.messages.list, channel=channel, limit=3)
    bodies: list[str] = [message["body"] for message in messages]
    async for shown in client.subscribe(api.messages.list, channel=channel):
        bodies += [message["author"] for message in shown]

    def show(results: headwater.LocalResults) -> None:
        found = results.get(api.messages.list, channel=channel)
        if found is not None:
            results.set(api.messages.list, [*found, found[0]], channel=channel)

    sent: api.MessagesId = await client.mutation(
        api.messages.send, show, channel=channel, author="ada", body="hi"
    )
    stored = api.ChannelsId("read from a file")
    await client.query(api.messages.list, channel=stored)
    await client.query("messages:list", channel="a name is not checked", limit=sent)


def right_without_asyncio(client: headwater.BlockingClient, channel: api.ChannelsId) -> str:
    client.mutation(api.messages.send, channel=channel, author="ada", body="hi")
    with client.subscribe(api.messages.list, channel=channel) as updates:
        return updates.next(1)[0]["body"] + client.query(api.messages.list, channel=channel)[0]["author"]


async def wrong(client: headwater.Client, channel: api.ChannelsId) -> None:
    await client.query(api.messages.list)  # error
    await client.query(api.messages.list, chanel=channel)  # error
    await client.query(api.messages.list, channel="no id of a table")  # error
    await client.query(api.messages.list, channel=channel, limit="3")  # error
    await client.query(api.messages.list, channel)  # error
    await client.query(api.messages.send, channel=channel, author="ada", body="hi")  # error
    await client.mutation(api.messages.list, channel=channel)  # error
    await client.mutation(api.messages.send, channel=channel, author="ada")  # error
    api.messages.lst  # error
    first = (await client.query(api.messages.list, channel=channel))[0]
    first["bdy"]  # error
    await client.query(api.messages.list, channel=first["_id"])  # error
    number: int = await client.mutation(api.messages.open_channel, name="general")  # error
    async for shown in client.subscribe(api.messages.list, channel=channel):
        number += shown[0]["body"]  # error
    client.subscribe(api.messages.list, channel=channel, limit=None)  # error
    client.paginate(api.messages.list, 5, channel=channel)  # error


def wrong_update(results: headwater.LocalResults, channel: api.ChannelsId) -> None:
    results.get(api.messages.list, channel=1)  # error
    results.set(api.messages.list, [{"body": "hi"}], channel=channel)  # error


def wrong_without_asyncio(client: headwater.BlockingClient, channel: api.ChannelsId) -> None:
    client.query(api.messages.list, channel=channel, limit=None)  # error
    client.mutation(api.messages.send, channel=channel, author=1, body="hi")  # error
    client.subscribe(api.messages.list)  # error
