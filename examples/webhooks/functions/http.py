"""Where other services send to. Anybody can, so nothing is believed before its signature is verified."""

import os

from headwater import ActionCtx, Request, Response, Struct, route, webhooks

from . import deliveries

BODY_BYTES_MAX = 1_000_000


class Sent(Struct):
    """What Standard Webhooks have in common."""

    type: str = ""


@route("POST", "/github")
async def github(ctx: ActionCtx, request: Request) -> Response:
    """Take a delivery of GitHub."""
    body = await request.body(limit_bytes=BODY_BYTES_MAX)
    secret = os.environ["GITHUB_WEBHOOK_SECRET"]
    webhooks.verify(secret, body, request.headers, scheme="github", now_s=ctx.now_ms / 1000)
    await ctx.run_mutation(
        deliveries.record,
        source="github",
        number=request.headers["X-GitHub-Delivery"],
        event=request.headers["X-GitHub-Event"],
        body=await request.json(),
    )
    return Response(status=204)


@route("POST", "/standard/{source}")
async def standard(ctx: ActionCtx, request: Request, source: str) -> Response:
    """Take a delivery that is signed as Standard Webhooks are; each source has a secret of its own."""
    body = await request.body(limit_bytes=BODY_BYTES_MAX)
    secret = os.environ.get(f"WEBHOOK_SECRET_{source.upper()}")
    if not secret:
        return Response({"code": "unknown_source"}, status=404)
    webhooks.verify(secret, body, request.headers, scheme="standard", now_s=ctx.now_ms / 1000)
    sent = await request.json(Sent)
    await ctx.run_mutation(
        deliveries.record,
        source=source,
        number=request.headers["webhook-id"],
        event=sent.type,
        body=await request.json(),
    )
    return Response(status=204)
