"""Whose an address is, and whom proxies speak for."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from headwater_server.net.client_address import TrustedProxies, account_name

PROXIES = TrustedProxies.parse("127.0.0.1, 10.0.0.0/8,2001:db8:1::/48")


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:2:3:4:5:6:7", "2001:db8:2:3::/64"),
        ("2001:db8:2:3::", "2001:db8:2:3::/64"),
    ],
)
def test_one_subscriber_has_one_account(address: str, name: str) -> None:
    assert account_name(ip_address(address)) == name


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        (["203.0.113.7"], "203.0.113.7"),
        (["198.51.100.1, 203.0.113.7"], "203.0.113.7"),
        (["198.51.100.1", "203.0.113.7, 10.1.2.3"], "203.0.113.7"),
        (["203.0.113.7:4711"], "203.0.113.7"),
        (["[2001:db8:9::1]:4711"], "2001:db8:9::1"),
        (["2001:db8:9::1"], "2001:db8:9::1"),
        (["::ffff:203.0.113.7"], "203.0.113.7"),
        (["10.1.2.3, 127.0.0.1"], "10.1.2.3"),
        (["203.0.113.7, unknown"], None),
        ([""], None),
        ([], None),
    ],
)
def test_a_client_is_whoever_the_last_proxy_was_connected_from(
    forwarded: list[str], client: str | None
) -> None:
    """What stands before that, the client has written itself."""
    found = PROXIES.client(forwarded)
    assert (None if found is None else str(found)) == client


def test_proxies_are_addresses_and_networks() -> None:
    assert PROXIES.trusts(ip_address("127.0.0.1"))
    assert PROXIES.trusts(ip_address("10.255.0.1"))
    assert PROXIES.trusts(ip_address("2001:db8:1:ffff::1"))
    assert not PROXIES.trusts(ip_address("127.0.0.2"))
    assert not TrustedProxies.parse("").trusts(ip_address("127.0.0.1"))
    for wrong in ("example.com", "10.0.0.1/8", "10.0.0.0/33", "*"):
        with pytest.raises(ValueError, match=wrong.partition("/")[0].replace("*", r"\*")):
            TrustedProxies.parse(f"127.0.0.1, {wrong}")
