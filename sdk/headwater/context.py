"""What functions get as `ctx`, and what their decorators make of them.

A ctx is a view of one call. Subclass it to add fields: `super().__init__(ctx)` makes another
view of the same transaction.
"""

from __future__ import annotations

import builtins
import enum
import inspect
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar, Generic, ParamSpec, Protocol, Self, TypeVar, cast
from uuid import UUID

from msgspec import Struct

from headwater.database import Database, DatabaseReader
from headwater.identity import Auth
from headwater.refusals import invalid_bundle
from headwater.scheduler import Scheduler
from headwater.schema import Table

if TYPE_CHECKING:
    import random

    from headwater_protocol.manifest import FunctionKind

    from headwater.calls import Call
    from headwater.environment import E

P = ParamSpec("P")


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


R = TypeVar(
    "R",
    bound=bool
    | int
    | float
    | str
    | bytes
    | date
    | UUID
    | Decimal
    | Sequence[Any]
    | Mapping[str, Any]
    | Struct
    | enum.Enum
    | _Dataclass
    | Table
    | None,
)
"""What may cross the wire. A coroutine, a generator or a set is none of these, so `async def`
under `@query` is a type error."""


class QueryCtx:
    """What a query sees: the database at one moment, and who asks."""

    _call: Call
    _db: DatabaseReader

    def __init__(self, ctx: QueryCtx, /) -> None:
        self._call = ctx._call
        self._db = ctx._db

    @classmethod
    def of(cls, call: Call) -> Self:
        """Return the ctx of a call."""
        ctx = cls.__new__(cls)
        ctx._call = call
        ctx._db = cls._database(call)
        return ctx

    @classmethod
    def _database(cls, call: Call) -> DatabaseReader:
        return DatabaseReader(call)

    @property
    def db(self) -> DatabaseReader:
        """The database, for reading."""
        return self._db

    @property
    def auth(self) -> Auth:
        """Who makes the call."""
        return Auth(self._call)

    @property
    def now_ms(self) -> float:
        """Time in ms since 1970, the same during the whole call; never earlier than that of an earlier call."""
        return self._call.backend.now_us / 1000

    def env(self, kind: type[E], /) -> E:
        """Return environment variables, as a class of the bundle declares them; a change of one makes the result stale."""
        return self._call.environments.load(kind, self._call.backend.variable)

    @property
    def random(self) -> random.Random:
        """The call's own source of chance."""
        return self._call.random

    def run_query(self, function: QueryFunction[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run another query in the same transaction, its arguments and result checked."""
        result: R = self._call.run(QueryCtx.of(self._call), function, "query", args, kwargs)
        return result


class MutationCtx(QueryCtx):
    """What a mutation sees: a QueryCtx whose database can be written to."""

    def __init__(self, ctx: MutationCtx, /) -> None:
        super().__init__(ctx)

    @classmethod
    def _database(cls, call: Call) -> Database:
        return Database(call)

    @property
    def db(self) -> Database:
        """The database, for reading and writing."""
        return cast("Database", self._db)  # made by `_database`

    @property
    def scheduler(self) -> Scheduler:
        """Has functions run later, once this mutation has committed."""
        return Scheduler(self._call)

    def run_mutation(self, function: MutationFunction[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run another mutation in the same transaction, its arguments and result checked.

        If it raises, what it wrote is rolled back: a caller that catches the error goes on as if it had not run.
        """
        backend = self._call.backend
        before = backend.savepoint()
        try:
            result: R = self._call.run(MutationCtx.of(self._call), function, "mutation", args, kwargs)
        except BaseException:
            backend.roll_back(before)
            raise
        return result


class RegisteredFunction:
    """A function of a bundle, as its decorator made it.

    Attributes:
        kind: `query`, `mutation` or `action`.
        form: How it is written.
        declared: The function as written, for its signature.
        function: Takes the kind's own ctx, then the arguments.
        internal: Whether clients without the deployment's key are refused.
    """

    kind: ClassVar[FunctionKind]
    form: ClassVar[str] = "plain `def`"

    def __init__(self, declared: Callable[..., Any], function: Callable[..., Any], *, internal: bool) -> None:
        if not inspect.isfunction(declared) or not declared.__name__.isidentifier():
            raise invalid_bundle(f"@{self.kind} stands before a {self.form}, got {declared!r}")
        self.declared = declared
        self.function = function
        self.internal = internal
        self.__name__ = declared.__name__
        self.__doc__ = declared.__doc__
        self.__module__ = declared.__module__
        self._name = f"{'/'.join(declared.__module__.split('.')[1:])}:{public_name(self.__name__)}"
        self._refuse_unfit()

    @property
    def name(self) -> str:
        """What clients call: `module:function`, modules nested by `/`."""
        return self._name

    @property
    def page_argument(self) -> str | None:
        """Name of its argument of type `PageOptions`, by which clients page through it; None if it has none."""
        for name, annotation in self.declared.__annotations__.items():
            written = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
            if written.rpartition(".")[2] == "PageOptions":
                return name
        return None

    def rename(self, name: str) -> None:
        """Set the name; the bundle that loads the function knows where its package begins."""
        self._name = name

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name}>"

    def _refuse_unfit(self) -> None:
        name = self.__name__
        where = f"{self.__module__.rpartition('.')[2]}:{public_name(name)}"
        self._refuse_form(where)
        if hasattr(builtins, name):
            raise invalid_bundle(
                f"{where}: `def {name}` would hide the built-in of that name in this module; "
                f"write `def {name}_`, clients still call {where!r}."
            )

    def _refuse_form(self, where: str) -> None:
        if inspect.iscoroutinefunction(self.declared) or inspect.isasyncgenfunction(self.declared):
            raise invalid_bundle(
                f"{where} is a {self.kind} and must be a plain `def`: its reads are local and never wait."
                " Remove `async`; to call the network, use @action."
            )
        if inspect.isgeneratorfunction(self.declared):
            raise invalid_bundle(
                f"{where} is a {self.kind} and returns its result at once. Return a list; no `yield`."
            )


class QueryFunction(RegisteredFunction, Generic[P, R]):
    """A query. Call it with a ctx as a plain function, or pass it to `ctx.run_query`."""

    kind = "query"

    def __call__(self, ctx: QueryCtx, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call it as a plain function, in the ctx's transaction, unchecked."""
        result: R = self.function(ctx, *args, **kwargs)
        return result


class MutationFunction(RegisteredFunction, Generic[P, R]):
    """A mutation. Call it with a ctx as a plain function, or pass it to `ctx.run_mutation`."""

    kind = "mutation"

    def __schedulable__(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Tell type checkers that it can be scheduled, and with which arguments."""

    def __call__(self, ctx: MutationCtx, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call it as a plain function, in the ctx's transaction, unchecked."""
        result: R = self.function(ctx, *args, **kwargs)
        return result


def public_name(name: str) -> str:
    """Return the name that clients use: one trailing underscore is dropped."""
    return name.removesuffix("_")
