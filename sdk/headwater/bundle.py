"""A loaded bundle: its functions, ready to be called, and its tables.

The worker imports a package and makes one `Bundle` of it, which lives as long as the worker.
Everything that can be wrong with the code of a bundle is found when it is loaded.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
import typing
from asyncio import CancelledError
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self, cast

from headwater_protocol.errors import RequestError
from headwater_protocol.manifest import FunctionManifest, IndexManifest, Manifest, TableManifest
from msgspec import NODEFAULT, structs

from headwater.actions import (
    ActionCall,
    ActionCtx,
    ActionFunction,
    StreamFunction,
    piece_annotation,
    run_to_end,
)
from headwater.annotations import Tables, check_ids, type_of
from headwater.arguments import ArgumentsCodec
from headwater.call_failures import CallFailure, bounded, failure_of, said, trace_of
from headwater.calls import Call, CompiledFunction, CompiledTable
from headwater.checks import refuse_misfit_default
from headwater.context import MutationCtx, QueryCtx, RegisteredFunction, public_name
from headwater.crons import compiled_cron, crons_of
from headwater.documents import DocumentCodec
from headwater.environment import EnvironmentMeta, Environments
from headwater.index_plans import plan_index
from headwater.json_schema import shape_of
from headwater.providers import providers_of
from headwater.rate_limiter import Limit, RateLimit
from headwater.refusals import invalid_bundle, nearest
from headwater.results import EncodedResult, ResultCodec
from headwater.routes import RouteFunction, answer, compile_routes
from headwater.schema import SYSTEM_FIELDS, TableMeta
from headwater.source_places import place_of_error, place_of_function, place_of_table, refused_at

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from types import ModuleType

    from headwater_protocol.manifest import FunctionKind, ProviderManifest

    from headwater.accounts.parts import AccountParts
    from headwater.actions import ActionBackend, Emit
    from headwater.backend import Backend
    from headwater.crons import DeclaredCron
    from headwater.http_messages import RequestHead
    from headwater.routes import Exchange

_NAME_CHARACTERS_SHOWN = 200
_ONE = {"query": "a query", "mutation": "a mutation", "action": "an action"}
_CTX = {"query": QueryCtx, "mutation": MutationCtx}


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """What a call came to: a result or a failure.

    Attributes:
        result: The encoded result, None if it failed.
        failure: Why it failed, None if it did not.
        identity_read: Whether it looked at the identity.
        journal: What a later run must be given to keep its page ends.
    """

    result: EncodedResult | None
    failure: CallFailure | None
    identity_read: bool
    journal: bytes | None


class Bundle:
    """The functions, tables and variables of one package. Make it with `load`.

    Attributes:
        environments: Its environment variables.
        ends: What ends a call alone when its function raises it, and not the process; all but a lack of memory
            and what ends a task.
    """

    ends: tuple[type[BaseException], ...] = (BaseException,)

    def __init__(
        self,
        tables: Tables,
        functions: dict[str, RegisteredFunction],
        providers: tuple[ProviderManifest, ...] = (),
        routes: Mapping[str, RouteFunction[Any]] | None = None,
        crons: Sequence[DeclaredCron] = (),
        environments: Environments | None = None,
    ) -> None:
        """Work out everything that calls need.

        Args:
            tables: The tables.
            functions: The functions by name.
            providers: Whose tokens it takes.
            routes: The routes by name.
            crons: What runs again and again.
            environments: Its environment variables.

        Raises:
            RequestError: `invalid_bundle`.
        """
        self._tables = tables
        self._providers = providers
        self.environments = Environments() if environments is None else environments
        self._compiled_tables = {name: _compile_table(cls, tables) for name, cls in tables.by_name.items()}
        self._functions = {name: _compile_function(name, item, tables) for name, item in functions.items()}
        self._by_object = {item: self._functions[name] for name, item in functions.items()}
        self._routes = compile_routes(routes or {}, tables, lambda name, item: _hints(name, item, tables))
        system = {name: _compile_table(cls, tables) for name, cls in tables.system.items()}
        self._crons = tuple(compiled_cron(one, self._by_object) for one in crons)
        self._readable_tables = {**self._compiled_tables, **system}

    @classmethod
    def load(cls, package: ModuleType) -> Self:
        """Import all modules of a package and collect what they declare.

        Raises:
            RequestError: `invalid_bundle`: one clear reason.
        """
        if not hasattr(package, "__path__"):
            raise invalid_bundle(
                f"{package.__name__} is a module; a bundle is a package: a folder with modules"
            )
        modules = [package, *_import_modules(package)]
        tables: dict[TableMeta, None] = {}
        functions: dict[str, RegisteredFunction] = {}
        routes: dict[str, RouteFunction[Any]] = {}
        environments: dict[EnvironmentMeta, None] = {}
        limits: dict[str, Limit] = {}
        for module in modules:
            for label, item in vars(module).items():
                if isinstance(item, TableMeta) and hasattr(item, "__table__") and _is_inside(item, package):
                    tables[item] = None
                elif isinstance(item, RegisteredFunction) and item.__module__ == module.__name__:
                    _register(functions, item, module, package, label)
                elif isinstance(item, RouteFunction) and item.__module__ == module.__name__:
                    item.name = _name_in(module, package, label)
                    routes[item.name] = item
                elif isinstance(item, Limit):
                    tables[RateLimit] = None
                    if limits.setdefault(item.name, item) is not item:
                        raise invalid_bundle(f"two rate limits are called {item.name!r}; rename one")
                elif isinstance(item, EnvironmentMeta) and _is_inside(item, package):
                    environments[item] = None
        crons, providers = crons_of(modules), providers_of(modules)
        parts = _account_parts(modules, functions.values())
        if parts is not None:
            tables |= dict.fromkeys(parts.tables)
            functions |= parts.functions
            routes |= parts.routes
            crons, providers = [*crons, *parts.crons], (*providers, *parts.providers)
        return cls(Tables(tables), functions, providers, routes, crons, Environments(environments))

    def manifest(self) -> Manifest:
        """Return what the bundle declares."""
        tables = (
            TableManifest(name, shape_of(table.codec.table, self._tables), _index_manifests(table))
            for name, table in sorted(self._compiled_tables.items())
        )
        functions = (
            FunctionManifest(
                name,
                item.kind,
                item.internal,
                item.arguments.schema,
                item.result.schema,
                item.doc,
                item.stream,
            )
            for name, item in sorted(self._functions.items())
        )
        routes = sorted(
            (route.manifest() for route in self._routes.values()),
            key=lambda route: (route.path, route.method),
        )
        variables = self.environments.manifest()
        return Manifest(
            tuple(tables), tuple(functions), self._providers, tuple(routes), self._crons, variables
        )

    def documents_of(self, table: str) -> DocumentCodec:
        """Return what reads and writes the documents of a table that this bundle declares."""
        return self._compiled_tables[table].codec

    def indexes_of(self, table: str) -> tuple[IndexManifest, ...]:
        """Return the indexes of a table that this bundle declares."""
        return _index_manifests(self._compiled_tables[table])

    def call_query(
        self,
        name: str,
        arguments: bytes,
        backend: Backend,
        *,
        identity: bytes | None = None,
        journal: bytes | None = None,
        seed: bytes = b"",
        internal_allowed: bool = False,
    ) -> CallOutcome:
        """Run a query; never raises for what the caller or the function did wrong, but for memory.

        Args:
            name: Function, `module:function`.
            arguments: Encoded map.
            backend: The transaction.
            identity: Encoded identity of the caller.
            journal: Of an earlier run whose page ends shall stay.
            seed: What `ctx.random` is made from.
            internal_allowed: Whether internal functions may be called.

        Raises:
            MemoryError: It ran out of memory. What state that left this process in is known
                to nobody, so it should end.
        """
        call = self._call(name, backend, identity, journal, seed)
        return self._run("query", call, arguments, internal_allowed=internal_allowed)

    def call_mutation(
        self,
        name: str,
        arguments: bytes,
        backend: Backend,
        *,
        identity: bytes | None = None,
        seed: bytes = b"",
        internal_allowed: bool = False,
    ) -> CallOutcome:
        """Run a mutation; as `call_query`. After a failure its writes must be thrown away."""
        call = self._call(name, backend, identity, None, seed)
        return self._run("mutation", call, arguments, internal_allowed=internal_allowed)

    def compiled(self, function: RegisteredFunction) -> CompiledFunction | None:
        """Return a function of this bundle by what its decorator made of it, None if it is of another."""
        return self._by_object.get(function)

    def failure_of(self, error: BaseException) -> CallFailure:
        """Return what an exception that ended a call means for its caller."""
        return failure_of(error)

    async def call_action(
        self,
        name: str,
        arguments: bytes,
        backend: ActionBackend,
        emit: Emit,
        *,
        identity: bytes | None = None,
        internal_allowed: bool = False,
        must_stream: bool = False,
    ) -> bytes | CallFailure:
        """Run an action; never raises for what the caller or the function did wrong, but for memory.

        Args:
            name: Function, `module:function`.
            arguments: Encoded map.
            backend: The world.
            emit: Gets the encoded pieces of one that streams.
            identity: Encoded identity of the caller.
            internal_allowed: Whether internal functions may be called.
            must_stream: Refuse one that does not stream.

        Returns:
            The encoded result, null for one that streams; or why there is none.

        Raises:
            MemoryError: As `call_query`.
            CancelledError: The task that runs it was cancelled.
        """
        call = ActionCall(
            name, backend, self._by_object, self._functions, self.environments, identity=identity
        )
        try:
            function = self._find(name, "action", internal_allowed=internal_allowed)
            if must_stream and not function.stream:
                raise RequestError(f"{name} does not stream; it has one result")
            return await run_to_end(function, call, arguments, emit)
        except (MemoryError, CancelledError, GeneratorExit):
            raise
        except self.ends as error:
            return self.failure_of(error)

    async def call_route(
        self,
        name: str,
        texts: Mapping[str, str],
        head: RequestHead,
        backend: ActionBackend,
        exchange: Exchange,
        *,
        identity: bytes | None = None,
    ) -> CallFailure | None:
        """Run a route and send its answer; never raises for what it did wrong, but for memory.

        Args:
            name: Of its function.
            texts: The parameters of its path.
            head: What is asked.
            backend: The world.
            exchange: Has the request's body and takes the answer.
            identity: Encoded identity of the caller.

        Returns:
            Why there is no answer, or no whole one; None if there is.

        Raises:
            MemoryError: As `call_query`.
            CancelledError: The task that runs it was cancelled.
        """
        call = ActionCall(
            name, backend, self._by_object, self._functions, self.environments, identity=identity
        )
        try:
            compiled = self._routes.get(name)
            if compiled is None:
                raise RequestError(
                    f"there is no route {name[:_NAME_CHARACTERS_SHOWN]!r}", code="unknown_function"
                )
            await answer(compiled, call, head, texts, exchange)
        except (MemoryError, CancelledError, GeneratorExit):
            raise
        except self.ends as error:
            return self.failure_of(error)
        return None

    def streams(self, name: str) -> bool:
        """Tell whether a function is an action that streams."""
        found = self._functions.get(name)
        return found is not None and found.stream

    def cancels_with_caller(self, name: str) -> bool:
        """Tell whether an action is to be cancelled when its caller goes away."""
        found = self._functions.get(name)
        return found is not None and (found.cancel_with_caller or found.stream)

    def _call(
        self, name: str, backend: Backend, identity: bytes | None, journal: bytes | None, seed: bytes
    ) -> Call:
        tables, functions = self._readable_tables, self._by_object
        environments = self.environments
        return Call(
            name, backend, tables, functions, environments, identity=identity, journal=journal, seed=seed
        )

    def _run(
        self, kind: FunctionKind, call: Call, arguments: bytes, *, internal_allowed: bool
    ) -> CallOutcome:
        result = failure = None
        try:
            function = self._find(call.function, kind, internal_allowed=internal_allowed)
            table_of = call.backend.table_name
            positional, named = function.arguments.decode(arguments, table_of)
            value = function.function(_CTX[kind].of(call), *positional, **named)
            result = function.result.encode(value, call.unread, table_of)
        except MemoryError:
            raise
        except self.ends as error:
            failure = self.failure_of(error)
        finally:
            call.end()
        return CallOutcome(result, failure, call.identity_read, call.journal.content())

    def _find(self, name: str, kind: FunctionKind, *, internal_allowed: bool) -> CompiledFunction:
        found = self._functions.get(name)
        if found is None or (found.internal and not internal_allowed):
            raise self._unknown(name, internal_allowed=internal_allowed)
        if found.kind != kind:
            raise RequestError(f"{name} is {_ONE[found.kind]}, not {_ONE[kind]}", code="unknown_function")
        return found

    def _unknown(self, name: str, *, internal_allowed: bool) -> RequestError:
        """Return the error of a name that is no function's; the name may be as long as a frame."""
        if len(name) > _NAME_CHARACTERS_SHOWN:
            message = f"there is no function {name[:_NAME_CHARACTERS_SHOWN] + '…'!r}"
        else:
            known = [key for key, item in self._functions.items() if internal_allowed or not item.internal]
            message = f"there is no function {name!r}{nearest(name, known)}"
        return RequestError(message, code="unknown_function")


def _account_parts(
    modules: Sequence[ModuleType], functions: Collection[RegisteredFunction]
) -> AccountParts | None:
    """Return what the accounts of a bundle bring into it; None if it has none, and has not paid for importing them."""
    if "headwater.accounts" not in sys.modules:
        return None
    from headwater.accounts import Accounts
    from headwater.accounts.parts import parts_of

    found = {item: None for module in modules for item in vars(module).values() if isinstance(item, Accounts)}
    return parts_of(found, functions) if found else None


def _import_modules(package: ModuleType) -> Iterator[ModuleType]:
    for found in sorted(
        pkgutil.iter_modules(package.__path__, f"{package.__name__}."), key=lambda item: item.name
    ):
        module = _import(found.name)
        yield module
        if found.ispkg:
            yield from _import_modules(module)


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except RequestError as error:
        place = place_of_error(error.__traceback__)
        raise invalid_bundle(f"{name}: {error.message}\n{place}".rstrip()) from error
    except (Exception, SystemExit) as error:
        problem = bounded(said(error))
        raise invalid_bundle(f"{name} cannot be imported: {problem}\n{trace_of(error)}".rstrip()) from error


def _is_inside(cls: type, package: ModuleType) -> bool:
    return f"{cls.__module__}.".startswith(f"{package.__name__}.")


def _register(
    functions: dict[str, RegisteredFunction],
    item: RegisteredFunction,
    module: ModuleType,
    package: ModuleType,
    label: str,
) -> None:
    name = _name_in(module, package, label)
    other = functions.setdefault(name, item)
    if other is not item:
        raise invalid_bundle(
            f"two functions are called {name!r}: {other.__name__} and {item.__name__}; rename one\n"
            f"{place_of_function(item.declared)}"
        )
    item.rename(name)


def _name_in(module: ModuleType, package: ModuleType, label: str) -> str:
    """Return what a function of a module is called."""
    path = module.__name__[len(package.__name__) + 1 :].replace(".", "/")
    if not path:
        raise invalid_bundle(
            f"{label}: functions stand in modules of {package.__name__}, not in its __init__.py"
        )
    return f"{path}:{public_name(label)}"


def _compile_table(cls: TableMeta, tables: Tables) -> CompiledTable:
    with refused_at(partial(place_of_table, cls)):
        kind = type_of(cls, cls.__name__)
        check_ids(kind, tables, cls.__name__)
        _refuse_misfit_defaults(cls, tables)
        plans = {name: plan_index(index, cls) for name, index in cls.__indexes__.items()}
        return CompiledTable(DocumentCodec(cls, tables), plans)


def _refuse_misfit_defaults(cls: TableMeta, tables: Tables) -> None:
    for item in structs.fields(cls):  # type: ignore[arg-type]  # a Struct at run time
        made = item.default_factory
        default = item.default if made is NODEFAULT else cast("Any", made)()
        if default is not NODEFAULT and item.name not in SYSTEM_FIELDS:
            refuse_misfit_default(default, item.type, f"{cls.__name__}.{item.name}", tables)


def _index_manifests(table: CompiledTable) -> tuple[IndexManifest, ...]:
    return tuple(
        IndexManifest(
            name, tuple(field.stored_path for field in plan.fields), plan.index.unique, plan.defaults
        )
        for name, plan in sorted(table.indexes.items())
    )


def _compile_function(name: str, item: RegisteredFunction, tables: Tables) -> CompiledFunction:
    with refused_at(lambda _: place_of_function(item.declared)):
        return _compile_fitting(name, item, tables)


def _compile_fitting(name: str, item: RegisteredFunction, tables: Tables) -> CompiledFunction:
    declared = item.declared
    parameters = list(inspect.signature(declared).parameters.values())
    if not parameters:
        raise invalid_bundle(f"{name}: its first parameter is the ctx: `def {item.__name__}(ctx: ...)`")
    hints = _hints(name, declared, tables)
    ctx = hints.get(parameters[0].name)
    _refuse_ctx(name, item.kind, ctx)
    if "return" not in hints:
        raise invalid_bundle(f"{name} needs a return annotation; `-> None` if it returns nothing")
    action = item if isinstance(item, ActionFunction | StreamFunction) else None
    returns = hints["return"] if action is None else piece_annotation(name, action, hints["return"])
    return CompiledFunction(
        name,
        item.kind,
        item.internal,
        item.function,
        ArgumentsCodec(name, parameters[1:], hints, tables),
        ResultCodec(name, returns, tables),
        inspect.cleandoc(declared.__doc__ or ""),
        isinstance(item, StreamFunction),
        action is not None and action.cancel_with_caller,
    )


def _refuse_ctx(name: str, kind: FunctionKind, ctx: Any) -> None:
    """Refuse a function that takes the ctx of another kind."""
    if not isinstance(ctx, type):
        return
    if kind == "query" and issubclass(ctx, MutationCtx):
        raise invalid_bundle(f"{name} is a query and cannot take a {ctx.__name__}; use @mutation")
    if kind == "action" and issubclass(ctx, QueryCtx):
        raise invalid_bundle(
            f"{name} is an action and cannot take a {ctx.__name__}: it has no database. Take an ActionCtx,"
            " and read and write with ctx.run_query and ctx.run_mutation"
        )
    if kind != "action" and issubclass(ctx, ActionCtx):
        raise invalid_bundle(f"{name} is a {kind} and cannot take a {ctx.__name__}; use @action")


def _hints(name: str, declared: Any, tables: Tables) -> dict[str, Any]:
    """Return the resolved annotations; a table imported for type checkers only is found by its class name."""
    try:
        try:
            return typing.get_type_hints(declared, include_extras=True)
        except NameError:
            return typing.get_type_hints(declared, localns=tables.class_names(), include_extras=True)
    except Exception as error:
        raise invalid_bundle(f"{name}: its annotations cannot be read: {error}") from None
