from __future__ import annotations

import pytest
from headwater_server.identity.addresses import why_refused

PUBLIC = ["93.184.215.14", "8.8.8.8", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "::ffff:8.8.8.8"]
PRIVATE = [
    "127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
    "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1", "240.0.0.1", "255.255.255.255", "0.1.2.3",
    "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "2001:db8::1", "fec0::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254",
    "64:ff9b::a00:1", "64:ff9b:1::a00:1", "2002:7f00:1::", "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "::127.0.0.1", "::10.0.0.1", "::ffff:0:127.0.0.1", "::ffff:0:10.0.0.1",
]  # fmt: skip
NOBODY = ["0.0.0.0", "::", "224.0.0.1", "239.255.255.250", "ff02::1", "::ffff:0.0.0.0"]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_taken(address: str) -> None:
    assert why_refused(address, "https", private_allowed=False) is None
    assert why_refused(address, "http", private_allowed=False) is not None
    assert why_refused(address, "http", private_allowed=True) is not None


@pytest.mark.parametrize("address", PRIVATE)
def test_others_are_taken_only_if_a_setting_says_so(address: str) -> None:
    assert why_refused(address, "https", private_allowed=False) is not None
    assert why_refused(address, "https", private_allowed=True) is None


@pytest.mark.parametrize("address", NOBODY)
def test_addresses_of_no_server_never_are(address: str) -> None:
    assert why_refused(address, "https", private_allowed=True) is not None
    assert why_refused(address, "https", private_allowed=False) is not None


def test_http_is_for_loopback_if_a_setting_says_so() -> None:
    assert why_refused("127.0.0.1", "http", private_allowed=True) is None
    assert why_refused("::1", "http", private_allowed=True) is None
    assert why_refused("10.0.0.1", "http", private_allowed=True) is not None
    assert why_refused("127.0.0.1", "http", private_allowed=False) is not None
