"""One running call and the functions it may run: what ctx, database and queries share."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from headwater_protocol.errors import RequestError

from headwater.cursors import Journal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from headwater_protocol.manifest import FunctionKind

    from headwater.arguments import ArgumentsCodec
    from headwater.backend import Backend
    from headwater.documents import DocumentCodec
    from headwater.environment import Environments
    from headwater.index_plans import IndexPlan
    from headwater.results import ResultCodec
    from headwater.rows import Rows

ACCOUNTS = "auth_accounts"
SESSIONS = "auth_sessions"
"""Tables that tell whether a session of the bundle's accounts goes on; see `headwater.accounts`."""


@dataclass(frozen=True, slots=True, eq=False)
class CompiledFunction:
    """A function of a loaded bundle with all that was worked out from its signature.

    Attributes:
        name: What clients call.
        kind: `query`, `mutation` or `action`.
        internal: Whether clients without the deployment's key are refused.
        function: Takes a ctx of its kind, then the arguments.
        arguments: Its parameters.
        result: What it returns; of an action that streams, what each piece is.
        doc: Its docstring.
        stream: Whether it is an action that streams.
        cancel_with_caller: Whether it is an action that is cancelled when its caller goes away.
    """

    name: str
    kind: FunctionKind
    internal: bool
    function: Callable[..., Any]
    arguments: ArgumentsCodec
    result: ResultCodec
    doc: str
    stream: bool = False
    cancel_with_caller: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class CompiledTable:
    """A table of a loaded bundle.

    Attributes:
        codec: Reads and writes its documents.
        indexes: Its indexes by name.
    """

    codec: DocumentCodec
    indexes: Mapping[str, IndexPlan]


class Caller(Protocol):
    """Who makes a call, and whether anything has asked.

    Attributes:
        identity: Encoded identity, None if there is none.
        identity_read: Whether anything has looked at it.
    """

    identity: bytes | None
    identity_read: bool

    def goes_on(self, subject: str, session: str | None) -> bool:
        """Tell whether a session of an account goes on; what is no session (None, "") does."""


class _EndedBackend:
    """In the place of a transaction, once its call has ended: refuses whatever is asked of it."""

    __slots__ = ("_function",)

    def __init__(self, function: str) -> None:
        self._function = function

    def __getattr__(self, name: str) -> Any:
        raise _ended(self._function)


class Call:
    """One running call; nested calls belong to the same one.

    Attributes:
        function: Name of the called function.
        backend: The transaction; refuses everything once the call has ended.
        environments: What the bundle declares of environment variables.
        tables: Tables of the bundle by name; none once the call has ended.
        functions: Functions of the bundle by what their decorator made of them.
        identity: Encoded identity of the caller, None if there is none.
        identity_read: Whether anything has looked at the identity, which then decides with
            whom the result may be shared.
        journal: Ends of pages, from an earlier run and of this one.
        unread: Lists of stored documents made so far.
    """

    __slots__ = (
        "_random",
        "_seed",
        "backend",
        "environments",
        "function",
        "functions",
        "identity",
        "identity_read",
        "journal",
        "tables",
        "unread",
    )

    def __init__(
        self,
        function: str,
        backend: Backend,
        tables: Mapping[str, CompiledTable],
        functions: Mapping[Any, CompiledFunction],
        environments: Environments,
        *,
        identity: bytes | None,
        journal: bytes | None,
        seed: bytes,
    ) -> None:
        self.function = function
        self.backend = backend
        self.tables = tables
        self.functions = functions
        self.environments = environments
        self.identity = identity
        self.identity_read = False
        self.journal = Journal(journal)
        self.unread: list[Rows] = []
        self._seed = seed
        self._random: random.Random | None = None

    @property
    def random(self) -> random.Random:
        """The call's own source of chance: the same seed gives the same numbers."""
        if self._random is None:
            self._random = random.Random(self._seed)
        return self._random

    def goes_on(self, subject: str, session: str | None) -> bool:
        """Tell whether a session of an account goes on: it is there, and the account too. Both count as read."""
        return not session or (self._is_there(session, SESSIONS) and self._is_there(subject, ACCOUNTS))

    def _is_there(self, document_id: str, table: str) -> bool:
        backend = self.backend
        return backend.table_name(document_id) == table and backend.get(document_id) is not None

    def end(self) -> None:
        """Take tables and transaction away: who has kept the ctx, or a query of it, reads nothing of another time.

        Nor does what they write go into the void.
        """
        self.tables = {}
        self.backend = cast("Backend", _EndedBackend(self.function))

    def require_running(self) -> None:
        """Refuse what is asked of a ctx after its call.

        Raises:
            TypeError: The call has ended.
        """
        if not self.tables:  # a bundle has the system's at least
            raise _ended(self.function)

    def table_named(self, name: str) -> CompiledTable:
        """Return a table of the bundle.

        Raises:
            RequestError: `unknown_table`.
        """
        table = self.tables.get(name)
        if table is None:
            self.require_running()
            raise RequestError(f"there is no table {name!r} in this bundle", code="unknown_table")
        return table

    def read_all(self) -> None:
        """Decode every list that nobody has looked at, before something that may hold it is encoded."""
        for rows in self.unread:
            rows.read()
        self.unread.clear()

    def run(
        self, context: Any, function: Any, kind: FunctionKind, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run another function of the bundle in this transaction, checked as if a client called it.

        Args:
            context: The ctx it gets.
            function: What its decorator made of it.
            kind: What it must be.
            args: Positional arguments.
            kwargs: Keyword arguments.
        """
        compiled = self.functions.get(function)
        if compiled is None:
            raise TypeError(f"ctx.run_{kind} takes a @{kind} function of this bundle, got {function!r}")
        if compiled.kind != kind:
            raise TypeError(f"{compiled.name} is a {compiled.kind}; run it with ctx.run_{compiled.kind}")
        table_of = self.backend.table_name
        content = compiled.arguments.encode(args, kwargs)
        positional, named = compiled.arguments.decode(content, table_of)
        return compiled.result.checked(
            compiled.function(context, *positional, **named), self.unread, table_of
        )


def _ended(function: str) -> TypeError:
    return TypeError(
        f"this ctx belongs to a call of {function} that has ended; a function uses the ctx that it was given"
    )
