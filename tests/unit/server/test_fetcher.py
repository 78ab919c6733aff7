"""Fetching from real servers on loopback, over real TLS: what is taken, and what is refused before or after asking."""

from __future__ import annotations

import asyncio
import gzip
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from headwater_server.identity.discovery import FetchError
from headwater_server.identity.fetcher import Fetcher, FetchOptions
from support.certificates import Authority

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

BYTES_MAX = 10_000
OPTIONS = FetchOptions(limit_s=20, bytes_max=BYTES_MAX, private_allowed=True)
SHORT = FetchOptions(limit_s=0.3, bytes_max=BYTES_MAX, private_allowed=True)
PUBLIC = FetchOptions(limit_s=20, bytes_max=BYTES_MAX)
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@dataclass
class Server:
    """Answers each request with the same bytes, or as it is told.

    Attributes:
        port: Where it listens.
        connections: How many came.
        requests: What they sent.
    """

    answer: bytes | Callable[[asyncio.StreamWriter], Awaitable[None]] = GOOD
    port: int = 0
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            if isinstance(self.answer, bytes):
                writer.write(self.answer)
                await writer.drain()
            else:
                await self.answer(writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(answer: Any = GOOD, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server(answer)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    folder: Path = tmp_path_factory.mktemp("authority")
    return Authority.make(folder)


async def refusal(fetcher: Fetcher, address: str) -> str:
    with pytest.raises(FetchError) as caught:
        await fetcher.get(address)
    assert caught.value.reason.isprintable()
    return caught.value.reason


async def test_what_stands_at_an_https_address_is_fetched(authority: Authority) -> None:
    async with serving(tls=authority.serving("localhost")) as server:
        fetcher = Fetcher(OPTIONS, authority.trusting)
        assert await fetcher.get(f"https://localhost:{server.port}/keys?v=1") == b"{}"
        (request,) = server.requests
        assert request.startswith(b"GET /keys?v=1 HTTP/1.1\r\n")
        assert b"Accept-Encoding: identity\r\n" in request


async def test_a_certificate_must_be_good(authority: Authority, tmp_path: Path) -> None:
    other = Authority.make(tmp_path / "other")
    cases = {
        "its certificate is not good": other.serving("localhost"),
        "Hostname mismatch": authority.serving("id.example"),
        "certificate has expired": authority.serving("localhost", days=-1),
    }
    for reason, tls in cases.items():
        async with serving(tls=tls) as server:
            told = await refusal(Fetcher(OPTIONS, authority.trusting), f"https://localhost:{server.port}")
            assert reason in told
            assert not server.requests
    async with serving(tls=authority.serving("localhost")) as server:
        assert "certificate" in await refusal(Fetcher(OPTIONS), f"https://localhost:{server.port}")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(status: int) -> None:
    async with serving() as target:
        where = f"http://127.0.0.1:{target.port}/"
        head = f"HTTP/1.1 {status} Go\r\nLocation: {where}\r\nContent-Length: 0\r\n\r\n"
        async with serving(head.encode()) as server:
            assert "it redirects" in await refusal(Fetcher(OPTIONS), f"http://127.0.0.1:{server.port}/")
        assert target.connections == 0


async def test_a_slow_answer_is_given_up() -> None:
    async def silent(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(10)

    async def dripping(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(1000):
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.02)

    for answer in (silent, dripping):
        async with serving(answer) as server:
            told = await refusal(Fetcher(SHORT), f"http://127.0.0.1:{server.port}/")
            assert "no whole answer within 0.3 s" in told


async def test_a_large_answer_is_given_up_where_it_passes_the_limit() -> None:
    sent = 0

    async def endless(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while sent < 100_000_000:
            writer.write(b"1000\r\n" + b" " * 0x1000 + b"\r\n")
            sent += 0x1000
            await writer.drain()

    async with serving(endless) as server:
        assert "more than 10000 bytes" in await refusal(Fetcher(OPTIONS), f"http://127.0.0.1:{server.port}/")
    assert sent < 50_000_000
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
    async with serving(head % (BYTES_MAX + 1) + b" " * (BYTES_MAX + 1)) as server:
        assert "more than 10000 bytes" in await refusal(Fetcher(OPTIONS), f"http://127.0.0.1:{server.port}/")
    async with serving(head % BYTES_MAX + b" " * BYTES_MAX) as server:
        assert len(await Fetcher(OPTIONS).get(f"http://127.0.0.1:{server.port}/")) == BYTES_MAX


async def test_nothing_is_inflated() -> None:
    bomb = gzip.compress(b" " * 1_000_000)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    async with serving(head + bomb) as server:
        assert "it answers compressed" in await refusal(Fetcher(OPTIONS), f"http://127.0.0.1:{server.port}/")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}", "status 404"),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\n{}", "status 500"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "status 204"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{}", "payload"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "Expected HTTP/"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", "Got more than"),
        (b"", "disconnected"),
    ],
)
async def test_an_answer_must_be_one(answer: bytes, reason: str) -> None:
    async with serving(answer) as server:
        assert reason in await refusal(Fetcher(OPTIONS), f"http://127.0.0.1:{server.port}/")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "[::ffff:127.0.0.1]",
        "2130706433",
        "0x7f000001",
        "127.1",
        "0.0.0.0",
        "[::]",
        "0",
    ],
)
async def test_this_machine_is_never_connected_to_by_default(authority: Authority, host: str) -> None:
    async with serving(tls=authority.serving("localhost", "127.0.0.1")) as server:
        for fetcher in (Fetcher(PUBLIC, authority.trusting), Fetcher(PUBLIC)):
            await refusal(fetcher, f"https://{host}:{server.port}/")
        await refusal(Fetcher(PUBLIC), f"http://{host}:{server.port}/")
        assert server.connections == 0


async def test_a_name_that_leads_to_this_machine_is_refused_when_it_is_connected_to(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name may have led elsewhere when the bundle was deployed, or a moment ago."""
    asked = []

    def rebound(host: Any, port: Any, *_: Any, **__: Any) -> Any:
        asked.append(host)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in ("127.0.0.1", "10.0.0.1")
        ]

    async with serving(tls=authority.serving("id.example")) as server:
        address = f"https://id.example:{server.port}/"
        monkeypatch.setattr(socket, "getaddrinfo", rebound)
        told = await refusal(Fetcher(PUBLIC, authority.trusting), address)
        assert "is not a public address" in told
        assert asked == ["id.example"]
        assert server.connections == 0
        monkeypatch.setattr(socket, "getaddrinfo", lambda host, port, *_, **__: rebound(host, port)[:1])
        assert await Fetcher(OPTIONS, authority.trusting).get(address) == b"{}"


async def test_no_proxy_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as proxy, serving() as server:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert await Fetcher(OPTIONS).get(f"http://127.0.0.1:{server.port}/") == b"{}"
        assert proxy.connections == 0


@pytest.mark.parametrize("address", ["", "id.example", "ftp://id.example/", "file:///etc/passwd", "https://", "http://[", "https:///x"])  # fmt: skip
async def test_what_is_no_address_is_refused(address: str) -> None:
    assert await refusal(Fetcher(OPTIONS), address)


async def test_plain_http_is_for_loopback_alone() -> None:
    told = await refusal(Fetcher(OPTIONS), "http://10.255.255.1:9/")
    assert "http is for loopback alone, not for 10.255.255.1" in told
    async with serving() as server:
        told = await refusal(Fetcher(PUBLIC), f"http://127.0.0.1:{server.port}/")
        assert "provider_private_addresses" in told
