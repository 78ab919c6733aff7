from headwater import ActionCtx, Request, Response, Struct, route

from . import messages


class NewMessage(Struct):
    author: str
    body: str


@route("POST", "/postMessage")
async def post_message(ctx: ActionCtx, request: Request) -> Response:
    new = await request.json(NewMessage)
    await ctx.run_mutation(messages.send, body=f"Sent via HTTP action: {new.body}", author=new.author)
    return Response()


@route("GET", "/getMessagesByAuthor")
async def get_by_author(ctx: ActionCtx, request: Request) -> Response:
    number = request.query.get("authorNumber") or request.headers.get("authorNumber")
    if number is None:
        return Response("Did not specify authorNumber as query param or header", status=400)
    found = await ctx.run_query(messages.list_)
    own = [message for message in found if message.author == f"User {number}"]
    return Response([{"body": message.body, "author": message.author} for message in own])
