from headwater import ActionCtx, ApplicationError, Id, Request, Response, route

from . import notes
from .schema import Notebook


@route("POST", "/books/{notebook}/notes")
async def add(ctx: ActionCtx, request: Request, notebook: Id[Notebook]) -> Response:
    identity = ctx.auth.identity()
    made = await ctx.run_mutation(notes.write, notebook=notebook, text=await request.text())
    return Response({"note": made, "by": identity.subject if identity else None}, status=201)


@route("GET", "/fails/{how}")
async def fails(ctx: ActionCtx, request: Request, how: str) -> Response:
    if how == "application":
        raise ApplicationError({"how": how})
    if how == "json":
        await request.json()
    raise KeyError(how)
