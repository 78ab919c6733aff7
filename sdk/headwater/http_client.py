"""Talk to a server's HTTP interface: function calls, deploys, keys, health.

One request each, no session: a mutation sent this way is not resent when the answer is
lost. The live client (`headwater.connect`) does that.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import aiohttp
from headwater_protocol.errors import HeadwaterError, InternalError, OutcomeUnknown, RequestError, error_for
from headwater_protocol.manifest import Manifest
from headwater_protocol.manifest_changes import Change

from headwater.client.transport import CannotConnectError, reason_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from types import TracebackType

_CONNECT_TIMEOUT_S = 10.0
_SILENCE_LIMIT_S = 60.0  # a server that has nothing to tell says so more often
_ANSWER_LIMIT_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Deployed:
    """What a deploy did.

    Attributes:
        bundle: Hash that names the bundle.
        functions: How many functions it has.
        tables: How many tables it has.
        changed: False if this bundle was already the active one.
        changes: What is different from what was active before.
    """

    bundle: str
    functions: int
    tables: int
    changed: bool
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True)
class DeployStep:
    """One thing that takes time in a deploy that goes on.

    Attributes:
        what: `documents` are checked, or an `index` is built.
        name: Of the table; `table.index` of an index.
        share: How much of it is done, from 0 to 1.
        documents: How many documents were checked for it.
    """

    what: str
    name: str
    share: float
    documents: int


@dataclass(frozen=True, slots=True)
class PastDeploy:
    """A deploy that was made.

    Attributes:
        number: Counts them, from 1.
        bundle: Hash that names the bundle.
        deployed_ms: When, ms since 1970.
        deployer: Who, as they said; "" if they did not.
        kept: Whether it can be gone back to.
    """

    number: int
    bundle: str
    deployed_ms: float
    deployer: str
    kept: bool


@dataclass(frozen=True, slots=True)
class ListedKey:
    """A key as it is listed; the key itself is shown to nobody again.

    Attributes:
        name: Whose it is.
        role: What it is for: `admin`, `deploy` or `read`.
        created_ms: When it was made, ms since 1970.
        used_ms: When it was last used, to the minute; None: never.
    """

    name: str
    role: str
    created_ms: float
    used_ms: float | None


@dataclass(frozen=True, slots=True)
class StoredTable:
    """A table as it is stored.

    Attributes:
        name: Its name.
        documents: How many it has, as far as they were counted.
        more: Whether it has more.
        indexes: Names of its indexes.
    """

    name: str
    documents: int
    more: bool
    indexes: list[str]


@dataclass(frozen=True, slots=True)
class StoredPage:
    """A part of a table.

    Attributes:
        documents: As they are stored (JSON values).
        cursor: For what follows; None at the end.
    """

    documents: list[dict[str, Any]]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class ListedVariable:
    """An environment variable as it is listed.

    Attributes:
        name: What it is called.
        secret: Whether it is sealed, or is to be.
        value: What it is; None for a secret one, and for one that is not set.
        updated_ms: When it was set, ms since 1970; None: it is not.
        kind: Its type in the active bundle, "" if that does not read it.
        required: Whether that needs it.
    """

    name: str
    secret: bool
    value: str | None
    updated_ms: float | None
    kind: str
    required: bool


@dataclass(frozen=True, slots=True)
class TokenCheck:
    """What a server says of a token.

    Attributes:
        accepted: Whether it takes it.
        reason: Why it does not.
        may_pass_later: Nothing is wrong with it; the provider's keys could not be had.
        token_identifier: Who it is from.
        expires_ms: Until when it is taken, ms since 1970.
    """

    accepted: bool
    reason: str = ""
    may_pass_later: bool = False
    token_identifier: str = ""
    expires_ms: float = 0.0


class HttpClient:
    """A server's HTTP interface. Use it as `async with HttpClient(url, key=key) as http`.

    Args:
        url: `http://host:port`.
        key: The deployment's key; needed for deploys, keys and internal functions.
        timeout_s: How long one request may take.

    Raises:
        RequestError: `url` is not an HTTP address.
    """

    def __init__(self, url: str, *, key: str | None = None, timeout_s: float = 120.0) -> None:
        self.url = http_base(url)
        self._headers = {} if key is None else {"Authorization": f"Headwater {key}"}
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=_CONNECT_TIMEOUT_S)
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> HttpClient:
        self._http = aiohttp.ClientSession(headers=self._headers, timeout=self._timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._http is not None:
            await self._http.close()
            self._http = None

    async def call(
        self, name: str, arguments: Mapping[str, Any], *, act_as: Mapping[str, Any] | None = None
    ) -> Any:
        """Run a function of any kind and return its result (JSON values).

        Args:
            name: The function.
            arguments: Its arguments.
            act_as: What a token of the user would claim as whom it is to run: `sub`, `iss` where the deployment has
                several issuers, and what else the function asks for. Needs a key for the role `admin`; it is logged.

        Raises:
            HeadwaterError: The call failed; `code` says how.
        """
        answer = await self._request("POST", "/api/function", json_body=_asked(name, arguments, act_as))
        if answer.get("status") == "error":
            code = answer.get("errorCode") or "application_error"
            raise error_for(code, answer.get("errorMessage") or "", answer.get("errorData"))
        if "value" not in answer:
            raise self._not_ours("/api/function")
        return answer["value"]

    async def explain(
        self, name: str, arguments: Mapping[str, Any], *, act_as: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Run a query or mutation, commit nothing, and return what it read, would write, and what is remembered of it.

        Needs a key for the role `read`, for mutations and `act_as` one for the role `admin`. What the function itself
        raised is told as its `outcome`.
        """
        return await self._request("POST", "/api/admin/explain", json_body=_asked(name, arguments, act_as))

    async def reruns(
        self,
        name: str,
        arguments: Mapping[str, Any],
        *,
        act_as: Mapping[str, Any] | None = None,
        after: int = 0,
    ) -> dict[str, Any]:
        """Return how often the live queries of a function were run again and why; of causes those after a number."""
        path = "/api/admin/reruns"
        body = _asked(name, arguments, act_as) | {"after": after}
        live = (await self._request("POST", path, json_body=body)).get("live")
        if not isinstance(live, dict):
            raise self._not_ours(path)
        return live

    async def conflicts(self, function: str = "") -> list[dict[str, Any]]:
        """Return which mutations have lost to which others, how often and on which table; of one if it is said."""
        path = f"/api/admin/conflicts?{urlencode({'function': function})}"
        found = (await self._request("GET", path)).get("conflicts")
        if not isinstance(found, list):
            raise self._not_ours(path)
        return found

    async def deploy(self, bundle: bytes, *, deployer: str = "", dry_run: bool = False) -> Deployed:
        """Deploy a packed bundle (`headwater.packing.pack`).

        Args:
            bundle: The archive.
            deployer: Who does it, for the list of deploys.
            dry_run: Only tell what a deploy would change.

        Raises:
            HeadwaterError: It was refused; nothing has changed.
        """
        query = {"dry_run": "true"} if dry_run else {"deployer": deployer} if deployer else {}
        path = "/api/admin/deploy" + (f"?{urlencode(query)}" if query else "")
        return self._deployed(
            path, await self._request("POST", path, body=bundle, content_type="application/zip")
        )

    async def rollback(self, bundle: str = "", *, deployer: str = "") -> Deployed:
        """Make an earlier bundle the active one again.

        Args:
            bundle: How its hash begins; empty: the one that was active before.
            deployer: Who does it, for the list of deploys.

        Raises:
            HeadwaterError: There is none, or it was refused; nothing has changed.
        """
        path = f"/api/admin/rollback?{urlencode({'bundle': bundle, 'deployer': deployer})}"
        return self._deployed(path, await self._request("POST", path, json_body={}))

    async def deploys(self) -> list[PastDeploy]:
        """Return the deploys that the server remembers, the newest first."""
        path = "/api/admin/deploys"
        try:
            return [PastDeploy(**item) for item in (await self._request("GET", path))["deploys"]]
        except (KeyError, TypeError):
            raise self._not_ours(path) from None

    async def deploy_steps(self) -> list[DeployStep]:
        """Return how far the deploy is that goes on; nothing while none does, or it does nothing that takes time."""
        path = "/api/admin/progress"
        try:
            return [DeployStep(**item) for item in (await self._request("GET", path))["steps"]]
        except (KeyError, TypeError):
            raise self._not_ours(path) from None

    def _deployed(self, path: str, answer: dict[str, Any]) -> Deployed:
        try:
            changes = tuple(
                Change(item["sign"], item["what"], item["name"], tuple(item["details"]))
                for item in answer.get("changes", ())
            )
            return Deployed(
                answer["bundle"], answer["functions"], answer["tables"], answer["changed"], changes
            )
        except (KeyError, TypeError):
            raise self._not_ours(path) from None

    async def manifest(self) -> Manifest:
        """Return what the deployed bundle declares; empty before the first deploy.

        Raises:
            ProtocolError: The server describes it in another version of this form.
        """
        answer = await self._request("GET", "/api/admin/manifest")
        if "manifest" not in answer:
            raise self._not_ours("/api/admin/manifest")
        return Manifest.from_json(json.dumps(answer["manifest"]))

    async def rotate_key(self) -> str:
        """Have the server make a new key and forget the one used here; return the new one."""
        answer = await self._request("POST", "/api/admin/rotate-key", json_body={})
        key = answer.get("key")
        if not isinstance(key, str):
            raise self._not_ours("/api/admin/rotate-key")
        return key

    async def rotate_signing_key(self, *, revoke: bool) -> str:
        """Have tokens of accounts signed with a new key, and return its name.

        Args:
            revoke: Take the old ones back at once, with all that they have signed.
        """
        path = "/api/admin/signing-key/rotate"
        key_id = (await self._request("POST", path, json_body={"revoke": revoke})).get("key_id")
        if not isinstance(key_id, str):
            raise self._not_ours(path)
        return key_id

    async def create_key(self, name: str, role: str) -> str:
        """Have the server make a key; it is returned this once.

        Args:
            name: Whose it will be.
            role: `admin`, `deploy` or `read`.
        """
        path = "/api/admin/keys"
        key = (await self._request("POST", path, json_body={"name": name, "role": role})).get("key")
        if not isinstance(key, str):
            raise self._not_ours(path)
        return key

    async def keys(self) -> list[ListedKey]:
        """Return the keys beside the deployment's own."""
        path = "/api/admin/keys"
        try:
            return [ListedKey(**item) for item in (await self._request("GET", path))["keys"]]
        except (KeyError, TypeError):
            raise self._not_ours(path) from None

    async def revoke_key(self, name: str) -> None:
        """Have the server make a key void at once."""
        await self._request("POST", "/api/admin/keys/revoke", json_body={"name": name})

    async def tables(self) -> list[StoredTable]:
        """Return the tables of the deployment."""
        path = "/api/admin/tables"
        try:
            return [StoredTable(**item) for item in (await self._request("GET", path))["tables"]]
        except (KeyError, TypeError):
            raise self._not_ours(path) from None

    async def documents(
        self, table: str, *, index: str | None = None, ascending: bool = False, limit: int = 50,
        cursor: str | None = None,
    ) -> StoredPage:  # fmt: skip
        """Return documents of a table, the last first unless it is said.

        Args:
            table: Its name.
            index: In whose order; None: in that of creation.
            ascending: The first first.
            limit: So many at most; large documents make a page shorter.
            cursor: From the page before.
        """
        asked = {"table": table, "index": index, "limit": str(limit), "cursor": cursor}
        query = {name: value for name, value in asked.items() if value is not None}
        path = f"/api/admin/documents?{urlencode({**query, 'order': 'asc' if ascending else 'desc'})}"
        answer = await self._request("GET", path)
        try:
            return StoredPage(answer["documents"], answer["cursor"])
        except KeyError:
            raise self._not_ours(path) from None

    async def variables(self) -> list[ListedVariable]:
        """Return the environment variables that are set, and those that the active bundle reads."""
        path = "/api/admin/environment"
        try:
            return [ListedVariable(**item) for item in (await self._request("GET", path))["variables"]]
        except (KeyError, TypeError):
            raise self._not_ours(path) from None

    async def set_variable(self, name: str, value: str, *, secret: bool = False) -> bool:
        """Set an environment variable; tell whether it is a secret, which it may be since the bundle says so.

        Raises:
            HeadwaterError: It was refused; nothing has changed.
        """
        path = "/api/admin/environment"
        body = {"name": name, "value": value, "secret": secret}
        sealed = (await self._request("POST", path, json_body=body)).get("secret")
        if not isinstance(sealed, bool):
            raise self._not_ours(path)
        return sealed

    async def remove_variable(self, name: str) -> None:
        """Remove an environment variable."""
        await self._request("POST", "/api/admin/environment/remove", json_body={"name": name})

    async def check_token(self, token: str) -> TokenCheck:
        """Ask the server whether it takes a token, and if not why."""
        path = "/api/admin/check-token"
        answer = await self._request(
            "POST", path, body=token.encode(errors="replace"), content_type="text/plain"
        )
        try:
            return TokenCheck(**{name: value for name, value in answer.items() if name != "status"})
        except TypeError:
            raise self._not_ours(path) from None

    async def call_events(
        self,
        *,
        follow: bool = False,
        function: str = "",
        level: str = "debug",
        request: str = "",
        quiet: bool = False,
        after: int | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[dict[str, Any]]:
        """Return what calls did and printed, as the server logs it, oldest first.

        Args:
            follow: Go on with what comes, until the loop is left or the server stops.
            function: Of this function; ending in `:`, of this module.
            level: At least `debug`, `info`, `warning`, `error` or `critical`.
            request: Of the call whose caller was told this request id.
            quiet: Without calls that succeeded and printed nothing.
            after: Only those after the event with this `id`.
            limit: Of those that there are, the newest so many.

        Raises:
            HeadwaterError: The server refuses; `connection_lost`: it was cut off.
        """
        told = {"follow": follow, "function": function, "level": level, "request": request, "quiet": quiet}
        query = {
            name: str(value).lower() if isinstance(value, bool) else value for name, value in told.items()
        }
        query |= {} if after is None else {"after": str(after)}
        query |= {} if limit is None else {"limit": str(limit)}
        path = "/api/admin/logs"
        timeout = aiohttp.ClientTimeout(sock_connect=_CONNECT_TIMEOUT_S, sock_read=_SILENCE_LIMIT_S)
        async with self._asking("GET", f"{path}?{urlencode(query)}", timeout=timeout) as response:
            if response.status != 200:
                self._answer(path, response.status, await self._content(path, response))
                raise self._not_ours(path, response.status)
            async for line in self._lines(path, response):
                yield line

    async def _lines(self, path: str, response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
        rest = bytearray()
        async for chunk in response.content.iter_any():
            rest += chunk
            *lines, rest = rest.split(b"\n")
            for line in filter(None, lines):
                try:
                    yield json.loads(line)
                except ValueError:
                    raise self._not_ours(path) from None
            if len(rest) > _ANSWER_LIMIT_BYTES:
                raise self._not_ours(path)

    async def ready(self) -> bool:
        """Return whether the server is there, has recovered and takes calls."""
        try:
            answer = await self._request("GET", "/health")
        except HeadwaterError:
            return False
        return answer.get("status") == "ready"

    async def wait_ready(self, interval_s: float = 0.1) -> None:
        """Ask again and again until the server is ready. Recovery may take long, so there is no limit here."""
        while not await self.ready():  # noqa: ASYNC110 - the server is another process
            await asyncio.sleep(interval_s)

    async def _request(
        self,
        method: str,
        path: str,
        *,
        json_body: Any = None,
        body: bytes | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        data = body if body is not None else None if json_body is None else _dump(json_body)
        headers = {} if data is None else {"Content-Type": content_type}
        async with self._asking(method, path, data=data, headers=headers) as response:
            return self._answer(path, response.status, await self._content(path, response))

    @asynccontextmanager
    async def _asking(self, method: str, path: str, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        """Make a request, for the length of the block; what the network does to it comes as errors of ours."""
        if self._http is None:
            raise RequestError("an HttpClient is used inside `async with`")
        try:
            async with self._http.request(method, self.url + path, **options) as response:
                yield response
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise CannotConnectError(f"cannot connect to {self.url}: {reason_of(error)}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            text = reason_of(error)
            raise OutcomeUnknown(
                f"no answer from {self.url}{path}: {text}", code="connection_lost"
            ) from error

    async def _content(self, path: str, response: aiohttp.ClientResponse) -> bytes:
        content = bytearray()
        async for chunk in response.content.iter_any():
            content += chunk
            if len(content) > _ANSWER_LIMIT_BYTES:
                raise self._not_ours(path, response.status)
        return bytes(content)

    def _answer(self, path: str, status: int, content: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(content)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise self._not_ours(path, status)
        if status >= 400 and answer.get("status") != "error":
            if "code" not in answer:
                raise self._not_ours(path, status)
            raise error_for(str(answer["code"]), str(answer.get("message") or ""))
        return answer

    def _not_ours(self, path: str, status: int = 200) -> HeadwaterError:
        return InternalError(f"{self.url}{path} answers {status} with something else than Headwater does")


def http_base(url: str) -> str:
    """Return the HTTP address of a server given by its HTTP or WebSocket address, without a closing slash.

    Raises:
        RequestError: It has none (`tcp://`) or the text is no address.
    """
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - reading it is the check
    except ValueError as error:
        raise RequestError(f"{url!r} is not an address: {error}") from None
    scheme = {"http": "http", "ws": "http", "https": "https", "wss": "https"}.get(parts.scheme)
    if scheme is None or not parts.hostname:
        raise RequestError(f"{url!r} is not an HTTP address; write http://host:port")
    return f"{scheme}://{parts.netloc}{parts.path.rstrip('/').removesuffix('/sync')}"


def _asked(name: str, arguments: Mapping[str, Any], act_as: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the body of a request for a call."""
    body = {"path": name, "args": dict(arguments), "format": "json"}
    return body if act_as is None else body | {"actAs": dict(act_as)}


def _dump(value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, TypeError) as error:
        raise RequestError(f"the arguments are not JSON: {error}", code="invalid_arguments") from None
