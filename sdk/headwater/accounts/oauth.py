"""Sign-in with another provider: OAuth's authorization code flow with PKCE, `state` and `nonce`, as OpenID Connect has it.

All that protects a flow follows from one secret, which only the browser keeps that has begun it: `state`, `nonce` and
the verifier of PKCE. What is stored is its hash.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote_plus, urlencode, urlsplit

from headwater_protocol.errors import RequestError, TransientError
from headwater_protocol.manifest import ProviderManifest
from msgspec import Struct

from headwater.providers import ALGORITHMS, DEFAULT_ALGORITHMS, checked_address
from headwater.refusals import invalid_bundle
from headwater.values import decode_any

if TYPE_CHECKING:
    from headwater.actions import ActionCtx

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}").fullmatch
_SECRET_BYTES = 32
_FETCH_LIMIT_S = 10.0
_FETCH_BYTES_MAX = 256 * 1024
_DISCOVERY_AGE_S = 3600.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class OidcSignIn:
    """A provider that people may sign in with at the accounts of a bundle: one that speaks OpenID Connect.

    Attributes:
        name: What it is called here, as `google`.
        issuer: Its address, to the letter what its tokens have as `iss`.
        client_id: Of this application there.
        redirect_uris: Pages of yours that it may send people back to, to the letter as they are registered there.
        client_secret: Returns the secret of this application there, as from `ctx.env`; None: it has none.
        secret_in: How the provider wants to be told that: by HTTP Basic, or in the body (`post`).
        scopes: What is asked for.
        algorithms: How its tokens may be signed.
        trusts_email: Whether an address that it calls verified leads to the account that has the same one.

    Raises:
        RequestError: `invalid_bundle`.
    """

    name: str
    issuer: str
    client_id: str
    redirect_uris: Sequence[str]
    client_secret: Callable[[ActionCtx], str] | None = None
    secret_in: Literal["basic", "post"] = "basic"
    scopes: Sequence[str] = ("openid", "email", "profile")
    algorithms: Sequence[str] = DEFAULT_ALGORITHMS
    trusts_email: bool = True

    def __post_init__(self) -> None:
        where = f"OidcSignIn({self.name!r})"
        if not _NAME(self.name) or self.name == "email":
            raise invalid_bundle(f"{where}: a name is small letters, digits, - and _, and not `email`")
        checked_address(f"{where}: issuer", self.issuer)
        if not self.client_id or "openid" not in self.scopes:
            raise invalid_bundle(f"{where}: it needs a client_id, and `openid` among the scopes")
        if isinstance(self.redirect_uris, str) or not self.redirect_uris:
            raise invalid_bundle(f"{where}: redirect_uris is a list of addresses of yours")
        for address in self.redirect_uris:
            parts = urlsplit(address)
            if (
                not parts.scheme
                or parts.fragment
                or (parts.scheme == "http" and parts.hostname not in _LOOPBACK)
            ):
                raise invalid_bundle(
                    f"{where}: redirect_uris: {address!r} is none; it is https, or http on this machine, without #"
                )
        if self.secret_in not in ("basic", "post"):
            raise invalid_bundle(f"{where}: secret_in is basic or post, got {self.secret_in!r}")
        for name in self.algorithms:
            if name not in ALGORITHMS:
                raise invalid_bundle(f"{where}: algorithms: {name!r} is none of {', '.join(ALGORITHMS)}")

    @property
    def manifest(self) -> ProviderManifest:
        """It, as the daemon is told whose tokens to verify."""
        return ProviderManifest("login", self.issuer, self.client_id, "", tuple(self.algorithms))


@dataclass(frozen=True, slots=True)
class FlowSecret:
    """The secret of one flow, and what follows from it."""

    secret: bytes = field(repr=False)

    @classmethod
    def read(cls, text: str) -> FlowSecret:
        """Return one that a browser has kept; what is none belongs to no flow."""
        return cls(text.encode())

    @classmethod
    def made(cls, random: bytes) -> FlowSecret:
        """Return a new one, of 32 unpredictable bytes."""
        return cls(_base64url(random[:_SECRET_BYTES]).encode())

    @property
    def text(self) -> str:
        """What the browser keeps."""
        return self.secret.decode()

    @property
    def hash(self) -> str:
        """What is stored of it."""
        return sha256(self.secret).hexdigest()

    @property
    def state(self) -> str:
        """What comes back from the provider with the code: that it is this browser's flow."""
        return self._following("state")

    @property
    def nonce(self) -> str:
        """What the provider's token must have: that it was made in this flow."""
        return self._following("nonce")

    @property
    def verifier(self) -> str:
        """What the code is exchanged with (RFC 7636)."""
        return self._following("verifier")

    @property
    def challenge(self) -> str:
        """What the provider is told of that before."""
        return _base64url(sha256(self.verifier.encode()).digest())

    def _following(self, what: str) -> str:
        return _base64url(hmac.digest(self.secret, what.encode(), "sha256"))


class Person(Struct, frozen=True):
    """Who somebody is, as a provider says.

    Attributes:
        subject: The provider's own name of them.
        email: Their address; None if it does not say.
        email_verified: Whether the provider has seen that it is theirs.
        name: For people.
    """

    subject: str
    email: str | None
    email_verified: bool
    name: str | None


@dataclass(frozen=True, slots=True)
class _Endpoints:
    authorization: str
    token: str
    userinfo: str
    until_s: float


class OAuthClient:
    """This application, as providers know it.

    Args:
        providers: Whom people may sign in with.
    """

    def __init__(self, providers: Sequence[OidcSignIn]) -> None:
        self._providers = {provider.name: provider for provider in providers}
        self._found: dict[str, _Endpoints] = {}

    def named(self, name: str) -> OidcSignIn:
        """Return a provider.

        Raises:
            RequestError: There is none of this name.
        """
        provider = self._providers.get(name)
        if provider is None:
            raise RequestError("there is no such provider")
        return provider

    async def address_of(self, provider: OidcSignIn, redirect_uri: str, flow: FlowSecret) -> str:
        """Return where a browser is to be sent.

        Raises:
            TransientError: The provider cannot be asked.
        """
        endpoints = await self._endpoints(provider)
        asked = {
            "response_type": "code",
            "client_id": provider.client_id,
            "redirect_uri": redirect_uri,
            "scope": " ".join(provider.scopes),
            "state": flow.state,
            "nonce": flow.nonce,
            "code_challenge": flow.challenge,
            "code_challenge_method": "S256",
        }
        joint = "&" if urlsplit(endpoints.authorization).query else "?"
        return f"{endpoints.authorization}{joint}{urlencode(asked)}"

    async def person(
        self, ctx: ActionCtx, provider: OidcSignIn, redirect_uri: str, flow: FlowSecret, code: str
    ) -> Person:
        """Exchange a code, and return who has signed in.

        Raises:
            RequestError: `unauthenticated`: the provider does not take the code, or what it gives for it does not count.
            TransientError: It cannot be asked.
        """
        endpoints = await self._endpoints(provider)
        told = await self._exchanged(ctx, provider, endpoints, redirect_uri, flow, code)
        token = told.get("id_token")
        if not isinstance(token, str):
            raise _refused("it gives no ID token")
        backend = ctx._call.backend
        claims = decode_any(await backend.verify_login(token, provider.issuer, provider.client_id))
        if not hmac.compare_digest(str(claims.get("nonce", "")).encode(), flow.nonce.encode()):
            raise _refused("its token was made in another flow")
        if claims.get("azp", provider.client_id) != provider.client_id:
            raise _refused("its token was made for another application")
        access = told.get("access_token")
        if "email" not in claims and endpoints.userinfo and isinstance(access, str):
            more = await _fetched(endpoints.userinfo, headers={"Authorization": f"Bearer {access}"})
            if more.get("sub") == claims["sub"]:
                claims = {**more, **claims}
        email, name = claims.get("email"), claims.get("name")
        return Person(
            str(claims["sub"]),
            email if isinstance(email, str) else None,
            claims.get("email_verified") in (True, "true") and provider.trusts_email,  # Apple says it as text
            name[:200] if isinstance(name, str) else None,
        )

    async def _exchanged(
        self,
        ctx: ActionCtx,
        provider: OidcSignIn,
        endpoints: _Endpoints,
        redirect_uri: str,
        flow: FlowSecret,
        code: str,
    ) -> dict[str, Any]:
        asked = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": flow.verifier,
        }
        headers = {}
        secret = None if provider.client_secret is None else provider.client_secret(ctx)
        if secret is not None and provider.secret_in == "basic":
            pair = f"{quote_plus(provider.client_id)}:{quote_plus(secret)}"
            headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        else:
            asked["client_id"] = provider.client_id
            if secret is not None:
                asked["client_secret"] = secret
        return await _fetched(endpoints.token, form=asked, headers=headers)

    async def _endpoints(self, provider: OidcSignIn) -> _Endpoints:
        now_s = asyncio.get_running_loop().time()
        kept = self._found.get(provider.name)
        if kept is not None and now_s < kept.until_s:
            return kept
        told = await _fetched(provider.issuer.rstrip("/") + "/.well-known/openid-configuration")
        if told.get("issuer") != provider.issuer:
            raise TransientError("the provider's discovery document is that of another issuer")
        found = self._found[provider.name] = _Endpoints(
            _endpoint(provider, told, "authorization_endpoint"),
            _endpoint(provider, told, "token_endpoint"),
            _endpoint(provider, told, "userinfo_endpoint") if "userinfo_endpoint" in told else "",
            now_s + _DISCOVERY_AGE_S,
        )
        return found


def _endpoint(provider: OidcSignIn, told: dict[str, Any], name: str) -> str:
    """Return an address of the provider's: https, or http where the provider itself is on this machine."""
    address = told.get(name)
    scheme = urlsplit(address).scheme if isinstance(address, str) else ""
    if not isinstance(address, str) or (scheme != "https" and scheme != urlsplit(provider.issuer).scheme):
        raise TransientError(f"the provider's discovery document has no {name} that can be used")
    return address


async def _fetched(
    address: str, *, form: dict[str, str] | None = None, headers: dict[str, str] | None = None
) -> dict[str, Any]:
    """Return the JSON object that a provider answers, bounded in time and size; what it refuses is told to nobody.

    Raises:
        RequestError: `unauthenticated`: it refuses what it was sent.
        TransientError: It does not answer, or with something else.
    """
    import aiohttp  # 4 MB, which only the process that signs somebody in this way pays

    timeout = aiohttp.ClientTimeout(total=_FETCH_LIMIT_S)
    method = "GET" if form is None else "POST"
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=False) as http,
            http.request(method, address, data=form, headers=headers, allow_redirects=False) as answer,
        ):
            content = await answer.content.read(_FETCH_BYTES_MAX + 1)
            while not answer.content.at_eof() and len(content) <= _FETCH_BYTES_MAX:
                content += await answer.content.read(_FETCH_BYTES_MAX)
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise TransientError(f"the provider does not answer: {type(error).__name__}") from None
    if form is not None and 400 <= answer.status < 500:
        raise _refused("it does not take the code")
    try:
        told = json.loads(content) if answer.status == 200 and len(content) <= _FETCH_BYTES_MAX else None
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise TransientError(f"the provider answers {answer.status}, with something else than was asked for")
    return told


def _refused(why: str) -> RequestError:
    return RequestError(f"the provider has not signed you in: {why}", code="unauthenticated")


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
