"""Code against the stubs of `right/`: pages, tagged structs, enums, times."""

from datetime import datetime

import headwater
import right_api as api


async def right(client: headwater.Client, channel: api.ChannelsId) -> datetime | None:
    await client.mutation(api.messages.send, channel=channel, body={"type": "text", "text": "hi"})
    async with client.paginate(api.messages.pages, 20, channel=channel) as pages:
        async for paged in pages:
            body = paged.items[0]["body"]
            if body["type"] == "image":
                print(body["width"] + 1)
            pages.load_more(5)
    page = await client.query(api.messages.pages, channel=channel, options={"numItems": 5})
    print(page["page"][0]["reactions"]["+1"] + 1, page["isDone"])
    me = await client.query(api.users.me)
    if me is not None and me["role"] == "admin":
        print(me["profile"]["city"])
    await client.mutation(api.users.enrol, user={"name": "Ada", "email": "", "token": ""}, seal=b"\xff")
    return await client.query(api.messages.newest, channel=channel)


def right_without_asyncio(client: headwater.BlockingClient, channel: api.ChannelsId) -> float | None:
    with client.paginate(api.messages.pages, 20, channel=channel) as pages:
        return pages.next(1).items[0]["score"]


async def wrong(client: headwater.Client, channel: api.ChannelsId) -> None:
    client.paginate(api.messages.pages, 20)  # error
    client.paginate(api.messages.pages, 20, channel=channel, options={"numItems": 5})  # error
    pages = client.paginate(api.messages.pages, 20, channel=channel)
    async for paged in pages:
        paged.items[0]["text"]  # error
    await client.mutation(api.messages.send, channel=channel, body={"type": "image", "text": "hi"})  # error
    await client.mutation(api.messages.send, channel=channel, body={"type": "text"})  # error
    await client.mutation(api.users.enrol, user={"name": "Ada", "email": ""})  # error
    await client.mutation(api.users.enrol, user={"name": "A", "email": "", "token": ""}, seal="")  # error
    me = await client.query(api.users.me)
    me["role"]  # error
    if me is not None:
        me["role"] == "guest"  # error by mypy
        await client.query(api.messages.list, channel=me["favourite"])  # error
    await client.query(api.messages.pages, channel=channel, options={"cursor": None})  # error
    await client.query(api.messages.expire, older_than=1.0)  # error
