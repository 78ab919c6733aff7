"""The provider from the outside: it is started, has people and machines sign in, rotates its keys and falls ill."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, urljoin, urlsplit

import aiohttp
import pytest

from tools.node import MAJOR_MIN, find_node
from tools.web import installed

if TYPE_CHECKING:
    from tools.node import Node

FOLDER = Path(__file__).parent
RESOURCE = "urn:app"
_REDIRECT = "http://127.0.0.1/callback"
_PROOF = "a-code-verifier-of-a-test-that-is-long-enough"
_STEPS_MAX = 12


def node_for_provider() -> Node:
    """Return the Node.js to run it with, everything installed; skips the test where there is none."""
    node = find_node()
    if node is None:
        pytest.skip(f"there is no Node.js {MAJOR_MIN} or later, neither on the PATH nor of pyright's wheel")
    assert installed(node, FOLDER), "npm cannot install what tests/support/oidc/package-lock.json names"
    return node


class Provider:
    """The running provider; ends with its `with`.

    Attributes:
        issuer: Its address.
    """

    def __init__(self, node: Node) -> None:
        self._process = subprocess.Popen(
            [node.program, FOLDER / "provider.mjs"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.issuer: str = self._line()["issuer"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()

    def tell(self, **what: Any) -> None:
        """Set what requests meet from now on: `fault`, `keys`."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        assert self._line() == {"done": True}

    def _line(self) -> Any:
        """Return what it says next; it also says what it thinks of how it was set up."""
        assert self._process.stdout is not None
        while not (line := self._process.stdout.readline()).startswith("{"):
            assert line, "it has ended"
        return json.loads(line)

    async def machine(self) -> str:
        """Return an access token by client credentials: of the client itself, for RESOURCE."""
        form = {"grant_type": "client_credentials", "resource": RESOURCE, **_secret("job")}
        async with aiohttp.ClientSession() as web:
            told = await self._post(web, f"{self.issuer}/token", form)
        token: str = told["access_token"]
        return token

    async def person(self, login: str, client: str = "web") -> dict[str, str]:
        """Return the tokens of a person who signs in as a browser does: `id_token`, `access_token`, `refresh_token`."""
        challenge = base64.urlsafe_b64encode(hashlib.sha256(_PROOF.encode()).digest()).rstrip(b"=").decode()
        query = {
            "client_id": client, "response_type": "code", "redirect_uri": _REDIRECT, "prompt": "consent",
            "scope": "openid email profile offline_access read", "resource": RESOURCE,
            "code_challenge": challenge, "code_challenge_method": "S256",
        }  # fmt: skip
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as web:
            back = await self.sent_back(web, query, login)
            code = parse_qs(urlsplit(back).query)["code"][0]
            form = {
                "grant_type": "authorization_code",
                "code": code,
                "code_verifier": _PROOF,
                "redirect_uri": _REDIRECT,
            }
            found: dict[str, str] = await self._post(web, f"{self.issuer}/token", {**form, **_secret(client)})
        return found

    async def refreshed(self, refresh_token: str, client: str = "web") -> dict[str, str]:
        """Return new tokens of somebody."""
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token, **_secret(client)}
        async with aiohttp.ClientSession() as web:
            found: dict[str, str] = await self._post(web, f"{self.issuer}/token", form)
        return found

    async def sent_back(self, web: aiohttp.ClientSession, query: dict[str, str], login: str) -> str:
        """Follow redirects and fill in forms until the provider sends the browser back; return whereto."""
        answer = await web.get(f"{self.issuer}/auth", params=query, allow_redirects=False)
        for _ in range(_STEPS_MAX):
            if answer.status in (302, 303):
                where = urljoin(str(answer.url), answer.headers["Location"])
                if where.startswith(_REDIRECT):
                    return where
                answer = await web.get(where, allow_redirects=False)
                continue
            page = await answer.text()
            action = re.search(r'action="([^"]+)" method="post"', page)
            prompt = re.search(r'name="prompt" value="(\w+)"', page)
            assert action is not None, page
            assert prompt is not None, page
            form = {"prompt": prompt[1], "login": login, "password": "any"}
            answer = await web.post(urljoin(str(answer.url), action[1]), data=form, allow_redirects=False)
        raise AssertionError("signing in takes too many steps")

    async def _post(self, web: aiohttp.ClientSession, address: str, form: dict[str, str]) -> Any:
        async with web.post(address, data=form) as answer:
            told = await answer.json()
            assert answer.status == 200, told
            return told


def _secret(client: str) -> dict[str, str]:
    return {"client_id": client, "client_secret": f"secret-of-{client}"}
