"""Arguments of one function, from wire bytes to checked Python values.

Pure. The signature is made into a msgspec struct once; a call decodes straight into it.
"""

from __future__ import annotations

import copy
import inspect
import math
import re
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
from headwater_protocol.errors import RequestError
from headwater_protocol.values import Int64
from msgspec import inspect as kinds
from msgspec.structs import astuple

from headwater.annotations import check_ids, type_of, unwrapped
from headwater.checks import ARGUMENTS, TableOf, check_of, refuse_misfit_default
from headwater.json_schema import schema_of
from headwater.misfits import explained
from headwater.refusals import invalid_bundle, nearest
from headwater.values import MisfitError, check_any, check_depth, check_integers, decode_any, decoder, encode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headwater.annotations import Tables

_EXACT_INTEGER_MAX = 2**53
_TEXT_FOR_BYTES = "Expected `bytes`, got `str`"
_UNKNOWN = re.compile(r"Object contains unknown field `(.*?)`( - at .*)?", re.DOTALL).fullmatch
_MISSING = re.compile(r"Object missing required field `(.*?)`( - at .*)?", re.DOTALL).fullmatch
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class ArgumentsCodec:
    """Decodes and checks the arguments of one function.

    Attributes:
        schema: JSON schema of the arguments.
    """

    def __init__(
        self, name: str, parameters: list[inspect.Parameter], annotations: dict[str, Any], tables: Tables
    ) -> None:
        self._name = name
        self._names = [parameter.name for parameter in parameters]
        self._positional = sum(parameter.kind in _POSITIONAL for parameter in parameters)
        self._struct = self._make_struct(parameters, annotations)
        kind = type_of(self._struct, name)
        check_ids(kind, tables, name)
        for parameter in parameters:
            if parameter.default is not parameter.empty:
                where = f"{name}: argument `{parameter.name}`"
                refuse_misfit_default(parameter.default, annotations[parameter.name], where, tables)
        self._kind = kind
        self._tables = tables
        self._decode = decoder(self._struct).decode
        self._check = check_of(kind, ARGUMENTS, tables)
        schema = schema_of(kind, tables, sent=True)
        definition = schema["$defs"].pop("arguments")
        self.schema = {**definition, "$defs": schema["$defs"]} if schema["$defs"] else definition

    def _make_struct(
        self, parameters: list[inspect.Parameter], annotations: dict[str, Any]
    ) -> type[msgspec.Struct]:
        fields: list[Any] = []
        for parameter in parameters:
            where = f"{self._name}: argument `{parameter.name}`"
            if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
                raise invalid_bundle(
                    f"{where}: a function has a fixed list of arguments; take a list or dict instead"
                )
            if parameter.name not in annotations:
                raise invalid_bundle(f"{where} needs a type annotation")
            type_of(annotations[parameter.name], where)
            fields.append((parameter.name, annotations[parameter.name], *_default(parameter)))
        return msgspec.defstruct("arguments", fields, kw_only=True, forbid_unknown_fields=True, gc=False)

    def decode(self, content: bytes, table_of: TableOf) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the positional and keyword arguments of a call.

        Args:
            content: Encoded map.
            table_of: Names the table of an id.

        Raises:
            RequestError: `invalid_arguments`, naming function, path and what was expected.
        """
        try:
            check_depth(content)
            decoded = self._decode(content)
        except MisfitError as wrong:
            raise self._refused(str(wrong)) from None
        except msgspec.ValidationError:
            decoded = self._decode_integral(content)
        except (ValueError, RecursionError) as error:
            raise self._refused(f"not an encoded value: {error}") from None
        try:
            check_integers(content, decoded)
            if self._check is not None:
                self._check(decoded, table_of)
        except MisfitError as wrong:
            raise self._refused(str(wrong)) from None
        values = astuple(decoded)
        positional = self._positional
        if positional == len(values):
            return values, {}
        return values[:positional], dict(zip(self._names[positional:], values[positional:], strict=True))

    @property
    def fields(self) -> tuple[kinds.Field, ...]:
        """The parameters with their types."""
        assert isinstance(self._kind, kinds.StructType), "made in the constructor"
        return self._kind.fields

    def decode_texts(
        self, texts: Mapping[str, str], table_of: TableOf
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments that are the parts of an address: numbers and the like are read from their text.

        Raises:
            RequestError: `unknown_function`: one is not what it has to be, so nothing has this address.
        """
        try:
            decoded = msgspec.convert(texts, self._struct, strict=False)
            if self._check is not None:
                self._check(decoded, table_of)
        except (msgspec.ValidationError, MisfitError) as wrong:
            raise RequestError(f"nothing has this address: {wrong}", code="unknown_function") from None
        values = astuple(decoded)
        positional = self._positional
        return values[:positional], dict(zip(self._names[positional:], values[positional:], strict=True))

    def encode(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        """Return the wire form of a call from Python, as a client would send it.

        Raises:
            RequestError: `invalid_arguments`.
        """
        if len(args) > len(self._names):
            raise self._refused(f"it takes {len(self._names)} arguments, got {len(args)}")
        named = dict(zip(self._names, args, strict=False))
        if twice := named.keys() & kwargs.keys():
            raise self._refused(f"argument `{min(twice)}` is given twice")
        try:
            check_any({**named, **kwargs})
            return encode({**named, **kwargs})
        except (MisfitError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise self._refused(str(error)) from None

    def _decode_integral(self, content: bytes) -> Any:
        """Decode what was refused once more, integral floats and `Int64`s taken for ints where ints are expected.

        Clients whose only numbers are doubles send 10.0 for 10, or a BigInt. Only after a refusal, so that
        the others pay nothing for it.
        """
        try:
            return self._decode(encode(_with_integers(decode_any(content), self._kind)))
        except msgspec.ValidationError as error:
            raise self._refused(self._told(str(error))) from None
        except (ValueError, TypeError, RecursionError) as error:
            raise self._refused(f"not an encoded value: {error}") from None

    def _told(self, problem: str) -> str:
        """Return msgspec's words with what a caller needs beyond them."""
        if found := _UNKNOWN(problem):
            name, place = found.groups()
            known = ", ".join(f"`{name}`" for name in self._names) or "none"
            more = "" if place else f"{nearest(name, self._names)} (its arguments: {known})"
            return f"unknown argument `{name}`{more}{place or ''}"
        if found := _MISSING(problem):
            name, place = found.groups()
            return f"missing {'field' if place else 'argument'} `{name}`{place or ''}"
        told = explained(problem, self._kind, self._tables)
        # JSON has no bytes: the daemon makes them of text where that is base64
        return told.replace(_TEXT_FOR_BYTES, f"{_TEXT_FOR_BYTES} (over HTTP as JSON: base64)", 1)

    def _refused(self, problem: str) -> RequestError:
        return RequestError(f"{self._name}: {problem}", code="invalid_arguments")


def _default(parameter: inspect.Parameter) -> tuple[Any, ...]:
    default = parameter.default
    if default is parameter.empty:
        return ()
    if isinstance(default, list | dict | bytearray) or (
        isinstance(default, msgspec.Struct) and not _frozen(default)
    ):
        return (msgspec.field(default_factory=partial(copy.deepcopy, default)),)
    return (msgspec.field(default=default),)


def _frozen(value: msgspec.Struct) -> bool:
    return value.__struct_config__.frozen


def _with_integers(value: Any, kind: kinds.Type) -> Any:
    """Return a decoded value with integral floats, and `Int64`s, as ints wherever its type wants an int."""
    match unwrapped(kind):
        case kinds.IntType() if type(value) is Int64:
            return int(value)
        case kinds.IntType() | kinds.CustomType():
            exact = isinstance(value, float) and abs(value) <= _EXACT_INTEGER_MAX and value.is_integer()
            return int(value) if exact and (value or math.copysign(1, value) > 0) else value
        case kinds.UnionType(types=types):
            if isinstance(value, float) and any(
                isinstance(unwrapped(inner), kinds.FloatType) for inner in types
            ):
                return value
            for inner in types:
                value = _with_integers(value, inner)
        case kinds.ListType(item_type=item) | kinds.VarTupleType(item_type=item) if isinstance(value, list):
            return [_with_integers(part, item) for part in value]
        case kinds.TupleType(item_types=items) if isinstance(value, list) and len(items) == len(value):
            return [_with_integers(part, item) for part, item in zip(value, items, strict=True)]
        case kinds.DictType(value_type=item) if isinstance(value, dict):
            return {key: _with_integers(part, item) for key, part in value.items()}
        case (kinds.StructType() | kinds.DataclassType()) as struct if isinstance(value, dict):
            if isinstance(struct, kinds.StructType) and _is_another(value, struct):
                return value
            fields = {field.encode_name: field.type for field in struct.fields}
            return {
                key: _with_integers(part, fields[key]) if key in fields else part
                for key, part in value.items()
            }
    return value


def _is_another(value: dict[str, Any], struct: kinds.StructType) -> bool:
    """Tell whether a decoded value says that it stands for another member of a union."""
    return struct.tag_field is not None and value.get(struct.tag_field, struct.tag) != struct.tag
