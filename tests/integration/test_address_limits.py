"""What one address and one user may have open and ask for, over every way in of a real daemon.

On loopback all come from one address. Where a test needs others, it speaks as the proxy that the daemon trusts.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
from typing import TYPE_CHECKING, Any

import aiohttp
import headwater
import pytest
from headwater_protocol.codec import decode_server_message
from headwater_protocol.errors import HeadwaterError
from headwater_protocol.frames import FrameDecoder
from headwater_protocol.messages import FatalError
from headwater_protocol.values import unpack_value
from support.certificates import Authority
from support.convex_wire import wire
from support.daemon import RunningDaemon, free_port, run_server, running, wait_until
from support.users import user_token

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COUNTED = ("--private-address-limits",)
TRUSTED = ("--trusted-proxies", "127.0.0.1")
BURST = 8
"""Requests that each address of `proxied` may make at once; then one a second, which no test waits for."""
SLOW = ("--address-requests-limit-per-second", "1", "--limit-burst-s", str(BURST))


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """A daemon behind a proxy: addresses that tests name, each used by one test."""
    options = (*COUNTED, *TRUSTED, *SLOW, "--address-sessions-limit", "3", "--routes-port", str(free_port()))
    with running(tmp_path_factory.mktemp("proxied"), *options, deploy="routes") as daemon:
        yield daemon


def ask(daemon: RunningDaemon, address: str, path: str = "/api/query", body: Any = None, **headers: str) -> Any:  # fmt: skip
    """Return the answer to a request of an address."""
    content = json.dumps(body or {"path": "store:texts", "args": {"box": "none"}}).encode()
    method = "GET" if path.startswith(("/http/kinds", "/kinds")) else "POST"
    return daemon.request(method, path, content, {"X-Forwarded-For": address, **headers})


def used_up(daemon: RunningDaemon, address: str) -> None:
    """Make all requests that an address may."""
    for _ in range(BURST + 2):
        ask(daemon, address)


def refusals(daemon: RunningDaemon, limit: str) -> float:
    return metric(daemon, f'headwater_limit_refusals_total{{limit="{limit}"}}')


def cut(daemon: RunningDaemon) -> float:
    """Return how many sessions were ended for going on."""
    return metric(daemon, 'headwater_connections_closed_total{code="rate_limited"}')


def metric(daemon: RunningDaemon, name: str) -> float:
    """Return a metric, which is asked for over a request that may be refused as well."""
    told: list[str] = []

    def is_told() -> bool:
        answer = daemon.get("/metrics")
        told.append(answer.text)
        return answer.status == 200

    wait_until(is_told)
    lines = told[-1].splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} ")), 0.0)


# ------------------------------------------------------------------------------------------ over HTTP


def test_requests_over_http_are_refused_with_the_time_to_wait(proxied: RunningDaemon) -> None:
    answers = [ask(proxied, "192.0.2.1", Origin="https://app.example") for _ in range(BURST + 4)]
    statuses = [answer.status for answer in answers]
    assert statuses[:BURST] == [200] * BURST
    assert 429 in statuses[BURST:]
    refused = answers[-1]
    assert refused.status == 429
    assert refused.json["code"] == "rate_limited"
    assert "192.0.2.1 (`address_requests_limit_per_second`)" in refused.json["message"]
    assert refused.headers["retry-after"] == "1"
    assert refused.headers["access-control-allow-origin"] == "https://app.example", "a page may read why"
    assert ask(proxied, "192.0.2.2").status == 200, "another address"


def test_of_a_proxy_that_adds_to_the_header_its_own_word_counts(proxied: RunningDaemon) -> None:
    """What a client has put there itself changes nothing."""
    used_up(proxied, "192.0.2.3")
    for claimed in ("192.0.2.4", "10.0.0.1", "127.0.0.1", "nonsense"):
        assert ask(proxied, f"{claimed}, 192.0.2.3").status == 429
    assert ask(proxied, "192.0.2.3, 192.0.2.5").status == 200


def test_a_network_of_ipv6_is_one_address(proxied: RunningDaemon) -> None:
    used_up(proxied, "2001:db8:7:7::1")
    assert ask(proxied, "2001:db8:7:7:ffff::2").status == 429
    assert ask(proxied, "2001:db8:7:8::1").status == 200


def test_routes_are_limited_on_both_ports(proxied: RunningDaemon) -> None:
    used_up(proxied, "192.0.2.6")
    refused = ask(proxied, "192.0.2.6", "/http/kinds/text")
    assert (refused.status, refused.headers["retry-after"]) == (429, "1")
    assert ask(proxied, "192.0.2.7", "/http/kinds/text").text == "grün"
    port = int(proxied.options[proxied.options.index("--routes-port") + 1])
    own = RunningDaemon(proxied.folder, port=port)
    assert ask(own, "192.0.2.6", "/kinds/text").status == 429
    assert ask(own, "192.0.2.8", "/kinds/text").text == "grün"


def test_routes_are_told_who_the_client_is(proxied: RunningDaemon) -> None:
    answer = ask(proxied, "192.0.2.9", "/http/kinds/address")
    assert answer.text == "192.0.2.9"


def test_health_is_always_told(proxied: RunningDaemon) -> None:
    used_up(proxied, "192.0.2.10")
    for _ in range(3):
        assert proxied.get("/health", X_Forwarded_For="192.0.2.10").status == 200


def test_several_queries_in_one_request_count_as_many(proxied: RunningDaemon) -> None:
    query = {"path": "store:texts", "args": {"box": "none"}}
    batch = {"queries": [query] * (BURST + 4)}
    assert ask(proxied, "192.0.2.11", "/api/query_batch", batch).status == 200
    assert ask(proxied, "192.0.2.11").status == 429


def test_who_goes_on_loses_the_connection(tmp_path: Path) -> None:
    with (
        running(tmp_path, *COUNTED, *SLOW) as daemon,
        contextlib.closing(http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=30)) as connection,
    ):
        for _ in range(BURST + 3):
            connection.request("GET", "/version")
            answer = connection.getresponse()
            answer.read()
            if answer.status == 429:
                break
        assert answer.status == 429
        assert answer.getheader("Connection") == "close"


# ---------------------------------------------------------------------------------------- of sessions


async def opened(session: aiohttp.ClientSession, daemon: RunningDaemon, address: str) -> Any:
    return await session.ws_connect(f"{daemon.url}/sync", headers={"X-Forwarded-For": address})


async def test_websockets_of_one_address_are_counted_and_given_back(proxied: RunningDaemon) -> None:
    async with aiohttp.ClientSession() as session:
        sockets = [await opened(session, proxied, "192.0.2.20") for _ in range(3)]
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await opened(session, proxied, "192.0.2.20")
        assert refused.value.status == 429
        assert refused.value.headers is not None
        assert refused.value.headers["Retry-After"] == "1"
        sockets.append(await opened(session, proxied, "192.0.2.21"))
        await sockets[0].close()

        async def again() -> Any:
            while True:
                with contextlib.suppress(aiohttp.WSServerHandshakeError):
                    return await opened(session, proxied, "192.0.2.20")

        async with asyncio.timeout(20):
            # Each try is a request, of which some are left: the place is free within the first.
            sockets.append(await again())
        for each in sockets:
            await each.close()
    assert refusals(proxied, "address_sessions_limit") >= 1


@pytest.mark.parametrize("transport", ["websocket", "tcp"])
async def test_requests_of_a_session_are_refused_and_it_goes_on(tmp_path: Path, transport: str) -> None:
    with running(tmp_path, *COUNTED, *SLOW, "--limit-burst-s", "60", deploy="actions") as daemon:
        async with headwater.connect(daemon.url if transport == "websocket" else daemon.tcp_url) as client:
            shown = client.subscribe("works:texts")
            assert await anext(shown) == []
            refused = []
            for number in range(90):
                try:
                    await client.mutation("works:add", text=str(number))
                except HeadwaterError as error:
                    refused.append(error)
                    break
            assert [error.code for error in refused] == ["rate_limited"]
            assert 0 < refused[0].data["retry_after_s"] <= 2
            with pytest.raises(HeadwaterError) as action:
                await client.action("works:nap", seconds=0.0)
            assert action.value.code == "rate_limited"
            assert client.state.connected
            added = await asyncio.to_thread(lambda: number)
            while len(await anext(shown)) < added:  # what was let in is there, and pushed
                pass
            await asyncio.sleep(refused[0].data["retry_after_s"] * 2.5)
            await client.mutation("works:add", text="later")
        assert cut(daemon) == 0


async def test_a_session_that_goes_on_in_spite_of_being_told_is_ended(tmp_path: Path) -> None:
    """What was in flight then is sent again, counts, and is decided in the end."""
    limits = ("--address-requests-limit-per-second", "4", "--limit-burst-s", "5")
    with running(tmp_path, *COUNTED, *limits, deploy="actions") as daemon:
        async with headwater.connect(daemon.url) as client:
            calls = [client.mutation("works:add", text=str(number)) for number in range(70)]
            ended = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 60)
            refused = [one for one in ended if isinstance(one, HeadwaterError)]
            assert {one.code for one in refused} == {"rate_limited"}
            assert len(await client.query("works:texts")) == len(ended) - len(refused)
        assert cut(daemon) >= 1


async def test_clients_of_convex_are_told_as_well(tmp_path: Path) -> None:
    with running(tmp_path, *COUNTED, *SLOW, "--limit-burst-s", "30", deploy="actions") as daemon:
        async with wire(daemon) as client:
            # Within 10 s of Connect a mutation may have been sent before; an action never is.
            for number in range(50):
                await client.send("Action", requestId=number, udfPath="works:nap", args=[{"seconds": 0.0}])
            answers = [await client.answer(number, "ActionResponse") for number in range(50)]
            refused = [answer for answer in answers if not answer["success"]]
            assert 0 < len(refused) < 30
            assert "rate_limited: too many requests come from 127.0.0.1" in refused[0]["result"]
            assert client.close is None
            assert client.wrong == []


# ------------------------------------------------------------------------------------------- of a user


async def test_a_user_has_a_limit_whatever_the_way_in(tmp_path: Path) -> None:
    options = ("--user-requests-limit-per-second", "1", "--limit-burst-s", "20")
    with running(tmp_path, *options, deploy="identity") as daemon:
        body = {"path": "notes:whoami", "args": {}}

        def as_user(user: str) -> Any:
            return daemon.post("/api/query", body, Authorization=f"Bearer {user_token(user)}")

        assert as_user("ada").status == 200
        async with headwater.connect(daemon.url) as client:
            await client.sign_in(user_token("ada"))
            for number in range(60):
                with contextlib.suppress(HeadwaterError):
                    await client.mutation("notes:write", topic="t", text=str(number))
            refused = await asyncio.to_thread(as_user, "ada")
            assert refused.status == 429
            assert "of this user" in refused.json["message"]
            assert refused.headers["retry-after"] == "1"
            assert (await asyncio.to_thread(as_user, "bob")).status == 200
            anyone = await asyncio.to_thread(daemon.post, "/api/query", body)
            assert anyone.status == 200
        assert refusals(daemon, "user_requests_limit_per_second") > 1


# ---------------------------------------------------------------------------------------- connections


def over_tcp(daemon: RunningDaemon) -> socket.socket:
    return socket.create_connection(("127.0.0.1", daemon.tcp_port), 30)


def last_words(connection: socket.socket) -> FatalError:
    """Return what the server says before it ends a connection over TCP."""
    content = b""
    while piece := connection.recv(4096):
        content += piece
    (message,) = FrameDecoder(1 << 16).feed(content)
    told = decode_server_message(message)
    assert isinstance(told, FatalError)
    return told


def test_connections_over_tcp_are_counted_before_they_have_said_anything(tmp_path: Path) -> None:
    with running(tmp_path, *COUNTED, "--address-sessions-limit", "3") as daemon:
        with contextlib.ExitStack() as stack:
            held = [stack.enter_context(over_tcp(daemon)) for _ in range(3)]
            with over_tcp(daemon) as refused:
                told = last_words(refused)
            assert told.error.code == "rate_limited"
            assert told.error.data is not None
            assert unpack_value(told.error.data) == {"retry_after_s": 1.0}
            held[0].close()
            wait_until(lambda: stays_open(daemon))
        assert refusals(daemon, "address_sessions_limit") >= 1
        assert metric(daemon, "headwater_limit_accounts") == 1


def stays_open(daemon: RunningDaemon) -> bool:
    """Tell whether a connection over TCP is let in: one that is not is told so at once."""
    with over_tcp(daemon) as connection:
        connection.settimeout(0.2)
        try:
            return connection.recv(1) == b"never"
        except TimeoutError:
            return True


def test_connections_over_http_are_counted(tmp_path: Path) -> None:
    with running(tmp_path, *COUNTED, "--address-http-connections-limit", "4") as daemon:
        with contextlib.ExitStack() as stack:
            for _ in range(4):
                stack.enter_context(socket.create_connection(("127.0.0.1", daemon.port), 30))
            refused = daemon.get("/version")
            assert refused.status == 429
            assert refused.headers["retry-after"] == "1"
            assert refused.json["code"] == "rate_limited"
        wait_until(lambda: daemon.get("/version").status == 200)


def test_new_connections_come_at_a_rate(tmp_path: Path) -> None:
    with running(tmp_path, *COUNTED, "--address-connections-limit-per-second", "1", "--limit-burst-s", "20") as daemon:  # fmt: skip
        statuses = [daemon.get("/version").status for _ in range(25)]
        assert 429 in statuses
        assert statuses.count(200) <= 20 + 5
        with over_tcp(daemon) as refused:
            assert last_words(refused).error.code == "rate_limited"
        assert "limit_met" in daemon.log_text()
        assert daemon.log_text().count('"limit": "address_connections_limit_per_second"') <= 1


def test_a_flood_of_connections_that_are_refused_holds_nothing(tmp_path: Path) -> None:
    """Some are told why and the others cut off: all are ended, and whoever may is served."""
    with running(tmp_path, *COUNTED, "--address-sessions-limit", "2") as daemon:
        with contextlib.ExitStack() as stack:
            flood = [stack.enter_context(over_tcp(daemon)) for _ in range(400)]
            ended = 0
            for connection in flood[2:]:
                with contextlib.suppress(ConnectionError):
                    while connection.recv(4096):
                        pass
                ended += 1
            assert ended == 398
            assert daemon.is_ready()
        wait_until(lambda: stays_open(daemon))


@pytest.mark.parametrize("setting", ["nonsense", "10.0.0.1/8", "example.com"])
def test_what_is_no_list_of_proxies_is_refused_at_the_start(tmp_path: Path, setting: str) -> None:
    done = run_server(
        "serve",
        "--data",
        str(tmp_path / "data"),
        "--trusted-proxies",
        f"127.0.0.1, {setting}",
        folder=tmp_path,
    )
    assert done.returncode == 2
    assert "flag --trusted-proxies: trusted_proxies" in done.stderr
    assert "must be addresses and networks" in done.stderr
    assert setting.partition("/")[0] in done.stderr
    assert not (tmp_path / "data").exists(), "nothing was begun"


def test_without_a_word_nobody_is_trusted_and_loopback_has_no_limit(tmp_path: Path) -> None:
    with running(tmp_path, *SLOW, "--address-connections-limit-per-second", "1") as daemon:
        for number in range(3 * BURST):
            assert daemon.get("/version", X_Forwarded_For=f"192.0.2.{number}").status == 200
        assert metric(daemon, "headwater_limit_accounts") == 0


# ---------------------------------------------------------------------------------------- handshakes


@pytest.mark.parametrize("counted", [False, True])
def test_handshakes_that_do_not_end_are_bounded_and_make_room(tmp_path: Path, counted: bool) -> None:
    """In all 8; of one address a quarter of them."""
    authority = Authority.make(tmp_path)
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    authority.issue(certificate, key, "127.0.0.1")
    options = ("--tls-certificate-file", str(certificate), "--tls-key-file", str(key))
    limits = ("--tls-handshakes-limit", "8", "--http-idle-limit-s", "4", *(COUNTED if counted else ()))
    daemon = RunningDaemon(tmp_path, (*options, *limits))
    most = 2 if counted else 8
    try:
        daemon.launch()
        wait_until(lambda: '"ready"' in daemon.log_text(), 60)
        with contextlib.ExitStack() as stack:
            silent = [
                stack.enter_context(socket.create_connection(("127.0.0.1", port), 30))
                for port in (daemon.port, daemon.tcp_port) * 8
            ]
            wait_until(lambda: sum(map(is_cut, silent)) >= len(silent) - most, 3)
            assert sum(map(is_cut, silent)) == len(silent) - most
        wait_until(lambda: served(authority, daemon))
    finally:
        daemon.end()


def is_cut(connection: socket.socket) -> bool:
    """Tell whether the server has ended a connection."""
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def served(authority: Authority, daemon: RunningDaemon) -> bool:
    connection = http.client.HTTPSConnection("127.0.0.1", daemon.port, timeout=30, context=authority.trusting)
    with contextlib.closing(connection):
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
