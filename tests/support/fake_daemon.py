"""Stands in for the daemon where a test is about the command that starts it.

Takes the daemon's command line, answers health, deploys and what the last one declared, refuses bundles that hold the
word `broken`, and writes every deploy's size to `deploys` in its data folder.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import zipfile
from hashlib import blake2b
from pathlib import Path

from aiohttp import web

KEY = "fake-key-of-the-fake-daemon"


def application(data: Path) -> web.Application:
    """Return the HTTP interface over a data folder."""
    active = ""

    async def deploy(request: web.Request) -> web.Response:
        nonlocal active
        if request.headers.get("Authorization") != f"Headwater {KEY}":
            return web.json_response({"code": "unauthenticated", "message": "a wrong key"}, status=401)
        bundle = await request.read()
        with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
            text = b"".join(archive.read(name) for name in archive.namelist())
        with (data / "deploys").open("a") as journal:
            journal.write(f"{len(text)}\n")
        if b"broken" in text:
            return web.json_response({"code": "invalid_bundle", "message": "it does not import"}, status=400)
        before, active = active, blake2b(bundle, digest_size=16).hexdigest()
        return web.json_response(
            {
                "status": "success",
                "bundle": active,
                "functions": text.count(b"def "),
                "tables": 1,
                "changed": active != before,
            }
        )

    async def health(_: web.Request) -> web.Response:
        return web.json_response({"status": "ready", "ts": 1})

    async def manifest(_: web.Request) -> web.Response:
        return web.json_response(
            {"manifest": {"version": 1, "tables": [], "functions": [described(active)] if active else []}}
        )

    async def logs(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"\n")
        while True:  # nothing is ever called here
            await asyncio.sleep(1)
            await response.write(b"\n")

    app = web.Application()
    app.router.add_get("/api/admin/logs", logs)
    app.router.add_get("/api/admin/manifest", manifest)
    app.router.add_post("/api/admin/deploy", deploy)
    app.router.add_get("/health", health)
    return app


def described(bundle: str) -> dict[str, object]:
    """Return the manifest's entry of a function that is named like the bundle."""
    arguments = {"type": "object", "properties": {}, "required": []}
    name = f"messages:f{bundle[:8]}"
    returns = {"type": "null"}
    return {
        "name": name,
        "kind": "query",
        "internal": False,
        "arguments": arguments,
        "returns": returns,
        "doc": "",
    }


def main() -> None:
    """Run until a signal."""
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tcp-port", type=int, required=True)
    parser.add_argument("--call-log-console", choices=["off"], required=True)
    chosen = parser.parse_args()
    (chosen.data / "admin-key").write_text(KEY + "\n")
    web.run_app(
        application(chosen.data), host=chosen.host, port=chosen.port, print=None, shutdown_timeout=0.1
    )


if __name__ == "__main__":
    main()
