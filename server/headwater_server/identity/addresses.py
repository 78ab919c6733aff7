"""Which addresses keys may be fetched from.

Pure. An issuer is a name that a bundle gives; where it leads is up to whoever answers for the name, and
today's answer need not be yesterday's. So what is looked at is the address of each connection, not the name.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

_EMBEDDING = (
    ip_network("64:ff9b::/96"),
    ip_network("64:ff9b:1::/48"),
    ip_network("2002::/16"),
    ip_network("2001::/32"),
    ip_network("::/96"),
    ip_network("::ffff:0:0:0/96"),
)


def why_refused(address: str, scheme: str, *, private_allowed: bool) -> str | None:
    """Return why nothing is fetched from an address, None if it may be.

    Args:
        address: An IP address, as the system names it.
        scheme: `https`, or `http`, which is for loopback alone.
        private_allowed: Whether those of this machine and of its own networks may be.
    """
    plain = plain_address(address)
    if plain.is_multicast or plain.is_unspecified:
        return f"{address} is the address of no server"
    if private_allowed:
        return (
            None
            if scheme == "https" or plain.is_loopback
            else f"http is for loopback alone, not for {address}"
        )
    if scheme != "https":
        return "http is taken only if provider_private_addresses is set, from loopback"
    is_of_a_site = isinstance(plain, IPv6Address) and plain.is_site_local
    if not plain.is_global or is_of_a_site or _embeds_another(plain):
        return f"{address} is not a public address; provider_private_addresses allows others"
    return None


def plain_address(address: str) -> IPv4Address | IPv6Address:
    """Return an address without its zone; an IPv4 one that is written as IPv6 as what it is. Raises ValueError."""
    found = ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found


def _embeds_another(address: IPv4Address | IPv6Address) -> bool:
    """Tell whether a gateway may make another, private address of it."""
    return any(address in network for network in _EMBEDDING)
