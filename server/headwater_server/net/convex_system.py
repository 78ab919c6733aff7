"""The functions of the system that Convex's command line asks for, over what the deployment's own tools ask for.

They are no functions of a bundle: each is answered once, from the newest state, to whoever has a key that opens it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeVar

import msgspec
from headwater_protocol.codec import encode_change_body
from headwater_protocol.errors import HeadwaterError, InternalError, RequestError
from headwater_protocol.messages import ErrorBody, Failed, Removed, Value

from headwater_server.convex.failures import instead_of
from headwater_server.convex.validators import validator_of
from headwater_server.net.keys import Right, require_right

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from headwater_protocol.manifest import FunctionManifest, Manifest
    from headwater_protocol.messages import AddQuery

    from headwater_server.functions.table_browser import BrowsedPage, BrowsedTable
    from headwater_server.functions.variables import ListedVariable

logger = logging.getLogger("headwater.convex")

PREFIX = "_system/"
SECRET = "(secret)"  # stands where one is
_REFUSED = "You do not have permission to perform this operation"
"""With any other words the command line shows a stack trace instead."""
_ARGUMENTS_BYTES_MAX = 16 << 10
_NAME_CHARACTERS_MAX = 200
_NO_DIGEST = b""  # nobody holds such a result to have a delta of it

_T = TypeVar("_T")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class Browser(Protocol):
    """Looks at tables."""

    async def tables(self) -> Sequence[BrowsedTable]:
        """Return them by name."""

    async def page(
        self, table: str, *, index: str | None, descending: bool, size: int, cursor: str | None
    ) -> BrowsedPage:
        """Return documents of a table."""


class Variables(Protocol):
    """The variables."""

    def listed(self) -> Sequence[ListedVariable]:
        """Return them by name."""


class Asker(NamedTuple):
    """Who asks.

    Attributes:
        rights: What their key opens; none without one.
        origin: Address of the server as they have written it.
    """

    rights: frozenset[Right]
    origin: str


class _PageOptions(msgspec.Struct):
    numItems: int | float = 100  # noqa: N815 - as it stands in the arguments
    cursor: str | None = None


class _Nothing(msgspec.Struct):
    pass


class _Tables(msgspec.Struct):
    paginationOpts: _PageOptions = msgspec.field(default_factory=_PageOptions)  # noqa: N815


class _TableData(msgspec.Struct):
    table: str
    order: Literal["asc", "desc"] = "desc"
    paginationOpts: _PageOptions = msgspec.field(default_factory=_PageOptions)  # noqa: N815


class _Variable(msgspec.Struct):
    name: str


class SystemFunctions:
    """Answers them.

    Args:
        browser: Looks at tables.
        variables: The environment variables.
        manifest: Returns what the active bundle declares, None before the first deploy.
    """

    def __init__(
        self, browser: Browser, variables: Variables, manifest: Callable[[], Manifest | None]
    ) -> None:
        self._browser = browser
        self._variables = variables
        self._manifest = manifest
        self._functions: dict[str, tuple[Right, Callable[[bytes, Asker], Awaitable[Any]]]] = {
            "cli/tables": (Right.BROWSE, self._tables),
            "cli/tableData": (Right.BROWSE, self._table_data),
            "cli/queryEnvironmentVariables": (Right.DEPLOY, self._list_variables),
            "cli/queryEnvironmentVariables:get": (Right.DEPLOY, self._get_variable),
            "cli/modules:apiSpec": (Right.DESCRIBE, self._api_spec),
            "cli/convexUrl:cloudUrl": (Right.DESCRIBE, self._address),
        }

    async def query(self, name: str, arguments: bytes, asker: Asker) -> bytes:
        """Return the encoded result of one.

        Args:
            name: As canonical names are, beginning with `PREFIX`.
            arguments: Encoded map.
            asker: Who asks.

        Raises:
            RequestError: `unknown_function`: it is none of these; `unauthenticated` or `forbidden`: it takes another key.
        """
        found = self._functions.get(name.removeprefix(PREFIX).removesuffix(":default"))
        if found is None:
            shown = name[:_NAME_CHARACTERS_MAX]
            raise RequestError(f"{shown} is not served. {instead_of(shown)}", code="unknown_function")
        right, function = found
        try:
            require_right(asker.rights, right)
        except RequestError as refusal:
            raise RequestError(f"{_REFUSED}: {refusal.message}", code=refusal.code) from None
        if len(arguments) > _ARGUMENTS_BYTES_MAX:
            raise RequestError(
                f"{len(arguments)} bytes of arguments; {_ARGUMENTS_BYTES_MAX} are enough for {name}",
                code="invalid_arguments",
            )
        return _encode(await function(arguments, asker))

    async def _tables(self, arguments: bytes, asker: Asker) -> Any:
        _read(arguments, _Tables)
        return _page([{"name": table.name} for table in await self._browser.tables()], None)

    async def _table_data(self, arguments: bytes, asker: Asker) -> Any:
        asked = _read(arguments, _TableData)
        page = await self._browser.page(
            asked.table,
            index=None,
            descending=asked.order == "desc",
            size=_count(asked.paginationOpts.numItems),
            cursor=asked.paginationOpts.cursor,
        )
        return _page([_decode(document) for document in page.documents], page.cursor)

    async def _list_variables(self, arguments: bytes, asker: Asker) -> Any:
        _read(arguments, _Nothing)
        return [
            {"name": one.name, "value": SECRET if one.value is None else one.value}
            for one in self._variables.listed()
            if one.updated_us is not None
        ]

    async def _get_variable(self, arguments: bytes, asker: Asker) -> Any:
        name = _read(arguments, _Variable).name
        found = next((one for one in self._variables.listed() if one.name == name), None)
        if found is None or found.updated_us is None:
            return None
        if found.value is None:
            raise RequestError(f"{found.name} is a secret, and shown to nobody", code="forbidden")
        return {"name": found.name, "value": found.value}

    async def _api_spec(self, arguments: bytes, asker: Asker) -> Any:
        _read(arguments, _Nothing)
        manifest = self._manifest()
        if manifest is None:
            return []
        routes = [
            {"functionType": "HttpAction", "method": route.method, "path": route.path}
            for route in manifest.routes
        ]
        return [*map(_described, manifest.functions), *routes]

    async def _address(self, arguments: bytes, asker: Asker) -> Any:
        _read(arguments, _Nothing)
        return asker.origin


class SessionSystemQueries:
    """What one session asks of the system, and the answers that its next transition brings.

    Answered one after another. What a session has asked as somebody else than it is by then is answered anew.

    Args:
        functions: Answer.
        asker: Returns who the session is now.
        answered: Called when a transition is due.
    """

    def __init__(
        self, functions: SystemFunctions, asker: Callable[[], Asker], answered: Callable[[], None]
    ) -> None:
        self._functions = functions
        self._asker = asker
        self._answered = answered
        self._subscribed: set[int] = set()
        self._waiting: dict[int, AddQuery] = {}
        self._bodies: dict[int, bytes] = {}
        self._task: asyncio.Task[None] | None = None

    def take(
        self, add: Sequence[AddQuery], remove: Sequence[int]
    ) -> tuple[Sequence[AddQuery], Sequence[int]]:
        """Take what is asked of the system out of a change of the query set; return the rest."""
        mine = self._subscribed.intersection(remove)
        kept = [number for number in remove if number not in mine]
        for number in mine:
            self._subscribed.remove(number)
            untold = self._waiting.pop(number, None) or self._bodies.pop(number, None)
            if untold is None:
                self._bodies[number] = _REMOVED
        rest = []
        for query in add:
            self._bodies.pop(query.query, None)
            if query.name.startswith(PREFIX):
                self._subscribed.add(query.query)
                self._waiting[query.query] = query
            else:
                rest.append(query)
        if self._waiting and self._task is None:
            self._task = asyncio.create_task(self._answer_all())
        return rest, kept

    def bodies(self) -> list[tuple[int, bytes]]:
        """Return what a transition brings now: query and encoded change body."""
        found = list(self._bodies.items())
        self._bodies.clear()
        return found

    def leave(self) -> None:
        """The session has ended."""
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()

    async def _answer_all(self) -> None:
        try:
            while self._waiting:
                number, query = next(iter(self._waiting.items()))
                asker = self._asker()
                body = await self._answer(query, asker)
                if self._waiting.get(number) is query and self._asker() == asker:
                    del self._waiting[number]
                    self._bodies[number] = body
                    self._answered()
        finally:
            self._task = None

    async def _answer(self, query: AddQuery, asker: Asker) -> bytes:
        try:
            content = await self._functions.query(query.name, query.arguments, asker)
            return encode_change_body(Value(content, _NO_DIGEST))
        except HeadwaterError as told:
            error = told
        except Exception:
            logger.exception("system_query_failed", extra={"fields": {"function": query.name}})
            error = InternalError()
        return encode_change_body(Failed(ErrorBody(error.code, error.message)))


_REMOVED = encode_change_body(Removed())


def _read(arguments: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.msgpack.decode(arguments, type=kind)
    except msgspec.DecodeError as error:
        raise RequestError(str(error), code="invalid_arguments") from None


def _count(number: float) -> int:
    if not 1 <= number < 1 << 31:
        raise RequestError("numItems: expected a number of documents from 1", code="invalid_arguments")
    return int(number)


def _page(rows: list[Any], cursor: str | None) -> dict[str, Any]:
    return {"page": rows, "isDone": cursor is None, "continueCursor": cursor or ""}


def _described(function: FunctionManifest) -> dict[str, Any]:
    module, _, name = function.name.partition(":")
    return {
        "identifier": f"{module}.js:{name}",  # as their generators expect it
        "functionType": function.kind.capitalize(),
        "visibility": {"kind": "internal" if function.internal else "public"},
        "args": validator_of(function.arguments),
        "returns": validator_of(function.returns),
    }
