"""Routes of every kind."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from enum import Enum
from typing import Any

from headwater import ActionCtx, Cors, HeadwaterError, Id, Request, Response, Struct, route

from . import store
from .store import Box


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Order(Struct):
    item: str
    count: int


@route("POST", "/hooks/{name}")
async def hook(ctx: ActionCtx, request: Request, name: str) -> Response:
    """Keep what is sent."""
    await ctx.run_mutation(store.put, box=name, text=await request.text())
    return Response(status=204)


@route("GET", "/boxes/{box}")
async def box(ctx: ActionCtx, request: Request, box: Id[Box]) -> Response:
    """The name of a box."""
    return Response({"name": await ctx.run_query(store.box_name, box)})


@route("GET", "/numbers/{whole}/{colour}")
async def numbers(ctx: ActionCtx, request: Request, whole: int, colour: Colour) -> Response:
    return Response({"whole": whole, "colour": colour.name})


@route("GET", "/numbers/{whole}/none")
async def no_colour(ctx: ActionCtx, request: Request, whole: str) -> Response:
    return Response({"any": whole})


@route("GET", "/files/{path:rest}")
async def files(ctx: ActionCtx, request: Request, path: str) -> Response:
    return Response(path)


@route("PUT", "/files/{path:rest}")
async def upload(ctx: ActionCtx, request: Request, path: str) -> Response:
    digest, size = hashlib.sha256(), 0
    async for piece in request.stream():
        digest.update(piece)
        size += len(piece)
    return Response({"path": path, "size": size, "digest": digest.hexdigest()}, status=201)


@route("POST", "/echo")
async def echo(ctx: ActionCtx, request: Request) -> Response:
    return Response(request.stream(), media_type=request.headers.get("Content-Type"))


@route("POST", "/asked")
async def asked(ctx: ActionCtx, request: Request) -> Response:
    """Tell what the request was."""
    identity = ctx.auth.identity()
    told: dict[str, Any] = {
        "method": request.method,
        "path": request.path,
        "query": request.query.pairs,
        "headers": request.headers.pairs,
        "address": request.address,
        "subject": identity.subject if identity else None,
        "body": await request.text(),
    }
    return Response(told)


@route("POST", "/orders")
async def orders(ctx: ActionCtx, request: Request) -> Response:
    order = await request.json(Order)
    return Response({"item": order.item * order.count})


@route("POST", "/form")
async def form(ctx: ActionCtx, request: Request) -> Response:
    found = await request.form()
    files = {
        name: [file.filename, file.media_type, file.content.decode()] for name, file in found.files.items()
    }
    return Response({"fields": found.pairs, "files": files})


@route("POST", "/short")
async def short(ctx: ActionCtx, request: Request) -> Response:
    return Response(await request.body(limit_bytes=10))


@route("POST", "/caught")
async def caught(ctx: ActionCtx, request: Request) -> Response:
    try:
        await request.body()
    except HeadwaterError as error:
        await ctx.run_mutation(store.put, box="caught", text=error.code)
        return Response(error.code, status=422)
    return Response("all of it")


@route("GET", "/cookies")
async def cookies(ctx: ActionCtx, request: Request) -> Response:
    return Response("two", headers=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2; Path=/")], status=202)


@route("GET", "/kinds/{kind}")
async def kinds(ctx: ActionCtx, request: Request, kind: str) -> Response:
    values: dict[str, Any] = {
        "none": None,
        "bytes": b"\x00\xff",
        "text": "grün",
        "list": [1, None, {"a": 1.5}],
        "struct": Order(item="x", count=2),
        "address": request.address,
    }
    return Response(values[kind])


@route("GET", "/away")
async def away(ctx: ActionCtx, request: Request) -> Response:
    return Response.redirect("/http/files/there")


@route("GET", "/count/{upto}")
async def count(ctx: ActionCtx, request: Request, upto: int) -> Response:
    pause_s = float(request.query.get("pause_s", "0"))

    async def pieces() -> AsyncIterator[str]:
        for number in range(upto):
            yield f"{number}\n"
            await asyncio.sleep(pause_s)

    return Response(pieces(), media_type="text/plain")


@route("GET", "/pour/{size}")
async def pour(ctx: ActionCtx, request: Request, size: int) -> Response:
    """So many bytes, and a note of each 100,000 and of the end."""
    sent = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < size:
            yield b"x" * 10_000
            sent += 10_000

    try:
        if request.query.get("whole"):
            return Response(b"x" * size)
        return Response(pieces())
    finally:
        await ctx.run_mutation(store.put, box="poured", text=f"began {size}")


@route("GET", "/wait/{box}")
async def wait(ctx: ActionCtx, request: Request, box: str) -> Response:
    """Wait for ever, and say when cancelled."""
    await ctx.run_mutation(store.put, box=box, text="began")
    try:
        await asyncio.sleep(3600)
    finally:
        await asyncio.shield(asyncio.ensure_future(ctx.run_mutation(store.put, box=box, text="ended")))
    return Response()


@route("GET", "/fails/{how}")
async def fails(ctx: ActionCtx, request: Request, how: str) -> Response:
    evil: Any = "a\r\nSet-Cookie: stolen=1"
    match how:
        case "raise":
            raise ValueError("the secret reason")
        case "application":
            await ctx.run_mutation(store.put, box="x", text="refuse")
        case "header":
            return Response("x", headers={"X-Name": evil})
        case "header-name":
            return Response("x", headers={evil: "x"})
        case "location":
            return Response.redirect(request.query["to"])
        case "type":
            return Response("x", media_type=evil)
        case "length":
            return Response("x", headers={"Content-Length": "10000"})
        case "none":
            nothing: Any = None
            return nothing
        case "smuggled":
            response = Response("x")
            response.headers = type(response.headers)([("X-Name", evil)])
            return response
        case "exit":
            raise SystemExit(3)
        case "late":

            async def pieces() -> AsyncIterator[bytes]:
                yield b"first"
                raise ValueError("after the first piece")

            return Response(pieces())
        case "piece":

            async def numbers() -> AsyncIterator[int]:
                yield 1

            return Response(numbers())
    return Response()


pages = Cors(
    origins=["https://app.example.com"], headers=["X-Key"], exposed=["X-Told"], credentials=True, max_age_s=60
)
api = route.with_cors(pages)


@api("GET", "/pages")
async def for_pages(ctx: ActionCtx, request: Request) -> Response:
    return Response("hello", headers={"X-Told": "yes"})


@api("DELETE", "/pages")
async def fails_for_pages(ctx: ActionCtx, request: Request) -> Response:
    raise ValueError


@route("GET", "/public", cors=Cors(origins="*"))
async def public(ctx: ActionCtx, request: Request) -> Response:
    return Response("hello")
