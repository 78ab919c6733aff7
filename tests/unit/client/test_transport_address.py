from __future__ import annotations

import pytest
from headwater.client.transport import parse_address
from headwater.http_client import http_base
from headwater_protocol.errors import RequestError


@pytest.mark.parametrize(
    ("url", "sync_url"),
    [
        ("ws://localhost:4510", "ws://localhost:4510/sync"),
        ("ws://localhost", "ws://localhost:4510/sync"),
        ("http://127.0.0.1:4510/", "ws://127.0.0.1:4510/sync"),
        ("wss://db.example.org", "wss://db.example.org:443/sync"),
        ("https://example.org/db", "wss://example.org:443/db/sync"),
        ("ws://localhost:1/sync", "ws://localhost:1/sync"),
        ("ws://[::1]:4510", "ws://[::1]:4510/sync"),
    ],
)
def test_where_the_websocket_is(url: str, sync_url: str) -> None:
    address = parse_address(url)
    assert address.kind == "websocket"
    assert address.sync_url == sync_url
    assert address.url == url


def test_tcp_names_host_and_port() -> None:
    address = parse_address("tcp://127.0.0.1:4511")
    assert (address.kind, address.host, address.port) == ("tcp", "127.0.0.1", 4511)


@pytest.mark.parametrize(
    "url",
    ["", "localhost:4510", "ftp://x", "ws://", "tcp://host", "tcp://host:1/path", "ws://h:99999", "ws://["],
)
def test_other_texts_are_refused_by_name(url: str) -> None:
    with pytest.raises(RequestError, match=r"is not an address"):
        parse_address(url)


def test_the_http_address_of_a_server() -> None:
    assert http_base("http://127.0.0.1:4510/") == "http://127.0.0.1:4510"
    assert http_base("wss://example.org/db/sync") == "https://example.org/db"
    for url in ("tcp://h:1", "x", "http://", "http://h:99999"):
        with pytest.raises(RequestError):
            http_base(url)
