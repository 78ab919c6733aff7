"""Whose an address is: which of them share one account, and who is behind a proxy.

Pure. Of IPv6 whoever has one address has a whole /64, so that is counted as one.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import TYPE_CHECKING

from headwater_server.identity.addresses import plain_address

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ipaddress import IPv4Address

_SUBSCRIBER_BITS = 64
_HOPS_MAX = 32


def account_name(address: IPv4Address | IPv6Address) -> str:
    """Return what stands for an address and all that one subscriber has beside it."""
    if isinstance(address, IPv6Address):
        return str(IPv6Network((int(address), _SUBSCRIBER_BITS), strict=False))
    return str(address)


@dataclass(frozen=True, slots=True)
class TrustedProxies:
    """The proxies whose word counts on who their clients are.

    Attributes:
        networks: Of their addresses.
    """

    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    @classmethod
    def parse(cls, text: str) -> TrustedProxies:
        """Read a list of addresses and networks, separated by commas.

        Raises:
            ValueError: One is none; says which.
        """
        return cls(tuple(ip_network(part.strip()) for part in text.split(",") if part.strip()))

    def trusts(self, address: IPv4Address | IPv6Address) -> bool:
        """Tell whether somebody is one of them."""
        return any(address in network for network in self.networks)

    def client(self, forwarded: Sequence[str]) -> IPv4Address | IPv6Address | None:
        """Return whom a trusted proxy has a request from: the last address that is none of the proxies' own.

        What stands before it was written by that client, and tells nothing.

        Args:
            forwarded: Values of the request's `X-Forwarded-For`, in order.

        Returns:
            None where it does not say.
        """
        found = None
        for hop in reversed(",".join(forwarded).split(",")[-_HOPS_MAX:]):
            try:
                found = plain_address(_without_port(hop.strip()))
            except ValueError:
                return None
            if not self.trusts(found):
                return found
        return found


def _without_port(hop: str) -> str:
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop
