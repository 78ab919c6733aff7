"""Environment variables as a bundle declares them: a class whose fields have types, secret ones wrapped.

Pure. What is stored of a variable is text; its field's type says what becomes of it.
"""

from __future__ import annotations

import enum
import types
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Union, cast, dataclass_transform

import msgspec
from headwater_protocol.errors import HeadwaterError, InternalError
from headwater_protocol.manifest import VariableManifest
from headwater_protocol.variables import VariableRow
from msgspec import NODEFAULT, Struct, field, structs

from headwater.refusals import invalid_bundle
from headwater.source_places import place_of_table, refused_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    ReadRow = Callable[[str], bytes | None]
    """Returns the row of a variable, None if it is not set."""

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Secret(Generic[T_co]):
    """A value that does not show itself by mistake: printed, formatted or in a traceback it is `Secret(…)`."""

    __slots__ = ("_value",)

    def __init__(self, value: T_co) -> None:
        self._value = value

    def reveal(self) -> T_co:
        """Return it."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))


if TYPE_CHECKING:

    class _StructMeta(type):
        pass
else:
    _StructMeta = msgspec.StructMeta


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
class EnvironmentMeta(_StructMeta):
    """Makes classes of variables; see `Environment`."""

    def __new__(mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], /) -> Any:
        """Make a class: frozen, its fields given by name."""
        make = cast("Any", super().__new__)
        return make(mcls, name, bases, namespace, kw_only=True, frozen=True)


if TYPE_CHECKING:

    class Environment(metaclass=EnvironmentMeta):
        """Variables that a bundle needs."""

else:

    class Environment(Struct, metaclass=EnvironmentMeta):
        """Variables that a bundle needs: a field each, in small letters; the variable has the same name in capitals.

        class Env(Environment):
            api_key: Secret[str]
            retries: int = 3

        `ctx.env(Env)` gives them. One without a default must be set before a deploy.
        """


E = TypeVar("E", bound=Environment)


@dataclass(frozen=True, slots=True)
class Variable:
    """One field of such a class.

    Attributes:
        field: Its name.
        name: What the variable is called.
        kind: Type of its value.
        secret: Whether it is wrapped.
        required: Whether it has no default.
    """

    field: str
    name: str
    kind: Any
    secret: bool
    required: bool

    @property
    def shown(self) -> str:
        """Its type, for people."""
        inner = getattr(self.kind, "__name__", None) if isinstance(self.kind, type) else None
        text = inner or str(self.kind).replace("typing.", "")
        return f"secret {text}" if self.secret else text

    def manifest(self) -> VariableManifest:
        """Return what a deploy is told of it."""
        return VariableManifest(self.name, self.shown, self.secret, self.required)

    def value_of(self, text: str) -> Any:
        """Return what a text is as this field's value.

        Raises:
            ValueError: It does not fit; tells nothing of a secret one but its type.
        """
        try:
            value = _converted(text, self.kind)
        except msgspec.ValidationError as error:
            why = f"it does not fit `{self.shown}`" if self.secret else str(error)
            raise ValueError(why) from None
        return Secret(value) if self.secret else value


class _Compiled:
    """A class of variables, ready to be read."""

    def __init__(self, cls: type, variables: tuple[Variable, ...]) -> None:
        self.variables = variables
        self._cls = cls
        self._rows: tuple[bytes | None, ...] = ()
        self._made: Any = None

    def load(self, read: ReadRow, unseal: Callable[[str, bytes], str]) -> Any:
        """Return an instance; the one before if no row has changed."""
        rows = tuple(read(variable.name) for variable in self.variables)
        if self._made is None or rows != self._rows:
            values = {}
            for variable, row in zip(self.variables, rows, strict=True):
                if row is not None:
                    values[variable.field] = _read(variable, row, unseal)
                elif variable.required:
                    raise InternalError(f"the variable {variable.name} is not set; see `headwater env set`")
            self._made, self._rows = self._cls(**values), rows
        return self._made


class Environments:
    """The variables of a bundle.

    Args:
        classes: The classes that its modules declare.

    Attributes:
        unseal: Opens secrets; set by whoever has the key.

    Raises:
        RequestError: `invalid_bundle`.
    """

    def __init__(self, classes: Iterable[EnvironmentMeta] = ()) -> None:
        self._compiled: dict[Any, _Compiled] = {cls: _compiled(cls) for cls in classes}
        self._variables: dict[str, Variable] = {}
        for cls, compiled in self._compiled.items():
            for variable in compiled.variables:
                self._add(cls, variable)
        self.unseal: Callable[[str, bytes], str] = _no_key

    def _add(self, cls: type, variable: Variable) -> None:
        known = self._variables.setdefault(variable.name, variable)
        if known.shown != variable.shown:
            raise invalid_bundle(
                f"{cls.__name__}.{variable.field}: the variable {variable.name} is `{known.shown}` in another class,"
                f" `{variable.shown}` here"
            )
        if variable.required:
            self._variables[variable.name] = variable

    def __bool__(self) -> bool:
        return bool(self._variables)

    @property
    def has_secrets(self) -> bool:
        """Whether any is secret."""
        return any(variable.secret for variable in self._variables.values())

    def manifest(self) -> tuple[VariableManifest, ...]:
        """Return what a deploy is told of them."""
        return tuple(variable.manifest() for _, variable in sorted(self._variables.items()))

    def load(self, kind: type[E], read: ReadRow) -> E:
        """Return the variables of a class, as they are now."""
        compiled = self._compiled.get(kind)
        if compiled is None:
            raise TypeError(
                f"ctx.env takes a class of this bundle that is derived from Environment, got {kind!r}"
            )
        return cast("E", compiled.load(read, self.unseal))

    def problems(
        self, read: ReadRow, changes: Mapping[str, str | None], *, stored_in_clear: bool = True
    ) -> list[str]:
        """Return what does not fit what the bundle declares, a sentence each.

        Args:
            read: Reads what is stored.
            changes: What is to be set, by name, None: to be removed.
            stored_in_clear: Whether to refuse secrets that are stored in the clear.
        """
        found = []
        for name, variable in sorted(self._variables.items()):
            row = None if name in changes else read(name)
            try:
                stored = None if row is None else VariableRow.from_bytes(row)
                text = changes.get(name) if stored is None else stored.text(name, self.unseal)
                if stored is not None and stored_in_clear and variable.secret and stored.value is not None:
                    found.append(
                        f"{name} is a secret, and is stored in the clear: set it again with --secret"
                    )
                elif text is not None:
                    variable.value_of(text)
                elif variable.required:
                    found.append(f"{name} is not set; it is a {variable.shown}")
            except ValueError as error:
                found.append(f"{name}: {error}")
            except HeadwaterError as error:
                found.append(f"{name}: {error.message}")
        return found


def _read(variable: Variable, row: bytes, unseal: Callable[[str, bytes], str]) -> Any:
    try:
        return variable.value_of(VariableRow.from_bytes(row).text(variable.name, unseal))
    except ValueError as error:
        raise InternalError(f"the variable {variable.name}: {error}") from None


def _compiled(cls: Any) -> _Compiled:
    with refused_at(lambda message: place_of_table(cls, message)):
        try:
            hints = typing.get_type_hints(cls, include_extras=True)
        except Exception as error:
            raise invalid_bundle(f"{cls.__name__}: its annotations cannot be read: {error}") from None
        return _Compiled(cls, tuple(_variable(cls, item, hints[item.name]) for item in structs.fields(cls)))


def _variable(cls: type, item: structs.FieldInfo, hint: Any) -> Variable:
    where = f"{cls.__name__}.{item.name}"
    if not item.name.isascii() or item.name != item.name.lower() or not item.name[0].isalpha():
        raise invalid_bundle(
            f"{where}: write it in small letters; the variable has the same name in capitals"
        )
    kind, secret = _unwrapped(where, hint)
    try:
        msgspec.json.Decoder(kind)
    except (TypeError, RecursionError) as error:
        raise invalid_bundle(f"{where}: {error}") from None
    required = item.default is NODEFAULT and item.default_factory is NODEFAULT
    if item.default not in (NODEFAULT, None) and not isinstance(item.default, Secret):
        try:
            msgspec.convert(msgspec.to_builtins(item.default), kind)
        except (msgspec.ValidationError, TypeError) as error:
            raise invalid_bundle(f"{where}: its default does not fit: {error}") from None
    return Variable(item.name, item.name.upper(), kind, secret, required)


def _unwrapped(where: str, hint: Any) -> tuple[Any, bool]:
    """Return the type of a value, and whether it is a secret: `Secret[str]`, `Secret[str] | None`."""
    if hint is Secret:
        raise invalid_bundle(f"{where}: say what is secret: Secret[str]")
    if typing.get_origin(hint) is Secret:
        return typing.get_args(hint)[0], True
    if typing.get_origin(hint) in (Union, types.UnionType):
        parts = typing.get_args(hint)
        wrapped = [part for part in parts if part is Secret or typing.get_origin(part) is Secret]
        if wrapped:
            if len(parts) != 2 or types.NoneType not in parts:
                raise invalid_bundle(f"{where}: of a union the whole is secret: Secret[int | str]")
            return _unwrapped(where, wrapped[0])
    return hint, False


def _converted(text: str, kind: Any) -> Any:
    """Return a text as a type has it: itself where text fits, else what it spells, else what it is as JSON."""
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError as error:
        if isinstance(kind, type) and issubclass(kind, str | int | float | enum.Enum):
            raise
        try:
            return msgspec.json.decode(text, type=kind)
        except msgspec.ValidationError:
            raise
        except (msgspec.DecodeError, RecursionError):
            raise error from None


def _no_key(name: str, sealed: bytes) -> str:
    raise InternalError(f"the variable {name} is sealed, and nobody here has the key")
