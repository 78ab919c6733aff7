"""Gets what stands at an address of a provider, and trusts nothing about it.

A shell over aiohttp: https, or http from loopback in development; no redirect is followed, no proxy is asked, no
cookie kept; answers are bounded in time and size and not inflated; each connection's own address is looked at.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from functools import partial
from ssl import SSLCertVerificationError
from typing import TYPE_CHECKING

import aiohttp
from yarl import URL

from headwater_server.identity.addresses import why_refused
from headwater_server.identity.discovery import FetchError
from headwater_server.identity.refusal import shown

if TYPE_CHECKING:
    from ssl import SSLContext
    from typing import Any

_HEADERS = {"Accept": "application/json, application/jwk-set+json", "Accept-Encoding": "identity"}

_TOLD_CHARACTERS_MAX = 200


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """Limits of a fetch.

    Attributes:
        limit_s: Time for one address, from name to last byte.
        bytes_max: Size of an answer.
        private_allowed: Whether addresses that are not public may be connected to, and loopback without TLS.
    """

    limit_s: float
    bytes_max: int
    private_allowed: bool = False


class _RefusedAddressError(OSError):
    """Nothing is fetched from there."""


class Fetcher:
    """Fetches.

    Args:
        options: Limits.
        tls: Who is trusted to say whom a certificate belongs to; None: whom the system trusts.
    """

    def __init__(self, options: FetchOptions, tls: SSLContext | None = None) -> None:
        self._options = options
        self._tls = tls

    async def get(self, address: str) -> bytes:
        """Return what stands at an address.

        Raises:
            FetchError: It cannot be had.
        """
        try:
            url = URL(address)
            if url.scheme not in ("https", "http") or not url.host:
                raise FetchError(f"{shown(address)} is no https address")
            async with asyncio.timeout(self._options.limit_s):
                return await self._get(url)
        except TimeoutError:
            raise FetchError(
                f"{shown(address)}: no whole answer within {self._options.limit_s:g} s"
            ) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise FetchError(f"{shown(address)}: {_told(error)}") from None

    async def _get(self, url: URL) -> bytes:
        address = str(url)
        connector = aiohttp.TCPConnector(
            socket_factory=partial(self._socket, url.scheme),
            ssl=True if self._tls is None else self._tls,
            force_close=True,
            use_dns_cache=False,
        )
        async with (
            aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            ) as session,
            session.get(url, headers=_HEADERS, allow_redirects=False) as answer,
        ):
            if 300 <= answer.status < 400:
                raise FetchError(
                    f"{shown(address)}: it redirects, which is not followed; declare where it leads"
                )
            if answer.status != 200:
                raise FetchError(f"{shown(address)}: it answers with status {answer.status}")
            if answer.headers.get("Content-Encoding", "identity") != "identity":
                raise FetchError(f"{shown(address)}: it answers compressed, unasked")
            return await self._read(address, answer.content)

    async def _read(self, address: str, content: aiohttp.StreamReader) -> bytes:
        found = bytearray()
        async for part in content.iter_any():
            found += part
            if len(found) > self._options.bytes_max:
                raise FetchError(f"{shown(address)}: it has more than {self._options.bytes_max} bytes")
        return bytes(found)

    def _socket(self, scheme: str, info: tuple[Any, ...]) -> socket.socket:
        """Return a socket for one address that a name was resolved to, just before it is connected to it."""
        family, kind, protocol, _, to = info
        why = why_refused(to[0], scheme, private_allowed=self._options.private_allowed)
        if why is not None:
            raise _RefusedAddressError(why)
        return socket.socket(family, kind, protocol)


def _told(error: Exception) -> str:
    """Return what an error of aiohttp says, without what it says of itself."""
    match error:
        case aiohttp.ClientConnectorCertificateError(certificate_error=SSLCertVerificationError() as inner):
            return f"its certificate is not good: {shown(inner.verify_message)}"
        case aiohttp.ClientConnectorError(os_error=OSError() as inner):
            return shown(str(inner), _TOLD_CHARACTERS_MAX)
    return shown(str(error) or type(error).__name__, _TOLD_CHARACTERS_MAX)
