"""Typed stubs of a bundle's functions for its Python clients, as the text of one module.

Pure. Equal manifests give equal text. Documents and structs become `TypedDict`s, as clients get them; ids
become a `NewType` of `str` for each table, so that an id of another table is found by type checkers.
"""

from __future__ import annotations

import builtins
import json
import keyword
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headwater_protocol.manifest import FunctionManifest, Manifest, canonical_json

from headwater.signatures import PAGE_FIELDS, REFERENCE, leaves_out, page_argument, reached, title_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_WIDTH = 100  # longer signatures and unions are laid out one below the other

_HEAD = '''\
"""Functions of a Headwater bundle, typed for its clients.

Made by `headwater codegen --python`; changes are lost when it is made again.

    await client.query(api.module.function, argument=value)
"""
'''
_IMPORTS = {
    "_dt": "import datetime as _dt",
    "_t": "import typing as _t",
    "_r": "from headwater.client import references as _r",
}


def python_stubs(manifest: Manifest) -> str:
    """Return the module that `headwater codegen --python` writes."""
    manifest = Manifest.from_json(manifest.to_json())  # from a folder or a server: the same order of fields
    called = [item for item in manifest.functions if not item.internal]
    spaces = _Namespace()
    names = _Names()
    for item in called:
        spaces.add(item.name)
    for name in spaces.shown_modules(_identifier).values():
        names.take(name)
    types = _Types(names)
    for table in manifest.tables:
        types.id_of(table.name)
    functions = []
    for item in called:
        stub = names.new("_" + re.sub(r"\W", "_", item.name.replace(":", "__")).lstrip("_"))
        functions.append(_function(item, stub, types))
        spaces.space_of(item.name).functions[item.name.partition(":")[2]] = stub
    body = "\n\n\n".join([*types.definitions(), *functions, *spaces.classes(_identifier)])
    ids = "\n".join(types.ids())
    imports = [line for name, line in _IMPORTS.items() if re.search(rf"\b{name}\.", ids + body)]
    parts = [_HEAD, "from __future__ import annotations\n", "\n".join(_grouped(imports))]
    return "\n".join(parts) + (f"\n\n{ids}" if ids else "") + (f"\n\n\n{body}" if body else "") + "\n"


def _grouped(imports: list[str]) -> Iterator[str]:
    """Yield the lines of imports, those of the standard library first."""
    for number, line in enumerate(imports):
        if number and line.startswith("from headwater"):
            yield ""
        yield line


class _Names:
    """Names of the module, each given once."""

    def __init__(self) -> None:
        self._taken = set(_IMPORTS)

    def take(self, name: str) -> None:
        self._taken.add(name)

    def new(self, wish: str) -> str:
        name, more = _identifier(wish), 2
        while name in self._taken:
            name, more = f"{_identifier(wish)}_{more}", more + 1
        self._taken.add(name)
        return name


def _identifier(text: str) -> str:
    name = re.sub(r"\W", "_", text)
    name = f"_{name}" if name[:1].isdigit() or not name else name
    return f"{name}_" if keyword.iskeyword(name) or hasattr(builtins, name) else name


# -------------------------------------------------------------------------------------------------- types


class _Types:
    """Python annotations of JSON schemas, and the named types that they need."""

    def __init__(self, names: _Names) -> None:
        self._names = names
        self._ids: dict[str, str] = {}
        self._structs: dict[tuple[str, str, bool], str] = {}
        self._texts: dict[str, str] = {}

    def ids(self) -> list[str]:
        return [f'{name} = _t.NewType("{name}", str)' for name in self._ids.values()]

    def definitions(self) -> list[str]:
        return list(self._texts.values())

    def id_of(self, table: str) -> str:
        if table not in self._ids:
            words = re.split(r"[\W_]+", table)
            self._ids[table] = self._names.new("".join(word[:1].upper() + word[1:] for word in words) + "Id")
        return self._ids[table]

    def annotation(self, schema: dict[str, Any], defs: dict[str, Any], *, sent: bool) -> str:
        """Return the annotation of a schema.

        Args:
            schema: What stands at this place.
            defs: What its references mean.
            sent: Whether it is an argument: fields with defaults may then be left out.
        """
        match schema:
            case {"$ref": str(reference)}:
                return self._struct(reference.removeprefix(REFERENCE), defs, sent=sent)
            case {"anyOf": list(alternatives)}:
                found = [self.annotation(item, defs, sent=sent) for item in alternatives]
                return " | ".join(dict.fromkeys(found))
            case {"enum": list(values)}:
                return f"_t.Literal[{', '.join(map(_literal, values))}]" if values else "_t.Never"
            case {"const": value}:
                return f"_t.Literal[{_literal(value)}]"
            case {"x-table": str(table)}:
                return self.id_of(table)
            case {"type": "array", "prefixItems": list(items)}:
                found = [self.annotation(item, defs, sent=sent) for item in items]
                return f"list[{' | '.join(dict.fromkeys(found)) or '_t.Never'}]"
            case {"type": "array", "items": dict(item)}:
                return f"list[{self.annotation(item, defs, sent=sent)}]"
            case {"type": "object", "additionalProperties": dict(item)}:
                return f"dict[str, {self.annotation(item, defs, sent=sent)}]"
        return _leaf(schema)

    def _struct(self, name: str, defs: dict[str, Any], *, sent: bool) -> str:
        """Return the name of a struct's type; what is sent has one of its own if anything may be left out of it."""
        found = reached(name, defs)
        optional = sent and leaves_out(found.values())
        key = name, canonical_json(found), optional
        if key not in self._structs:
            wish = title_of(name, defs[name]) + ("Input" if optional else "")
            self._structs[key] = mine = self._names.new(wish)
            self._texts[mine] = ""  # keeps its place before those it names
            self._texts[mine] = self._typed_dict(mine, defs[name], defs, sent=sent)
        return self._structs[key]

    def _typed_dict(self, name: str, definition: dict[str, Any], defs: dict[str, Any], *, sent: bool) -> str:
        required = set(definition["required"])
        fields = {
            key: (text if not sent or key in required else f"_t.NotRequired[{text}]")
            for key, schema in definition["properties"].items()
            for text in [self.annotation(schema, defs, sent=sent)]
        }
        if all(_is_plain(key) for key in fields):
            lines = [f"    {key}: {text}" for key, text in fields.items()] or ["    pass"]
            return "\n".join([f"class {name}(_t.TypedDict):", *lines])
        lines = [f"        {key!r}: {text!r}," for key, text in fields.items()]
        return "\n".join([f"{name} = _t.TypedDict(", f'    "{name}",', "    {", *lines, "    },", ")"])


def _is_plain(key: str) -> bool:
    return key.isidentifier() and not keyword.iskeyword(key) and not key.startswith("__")


def _leaf(schema: dict[str, Any]) -> str:
    match schema.get("type"):
        case "null":
            return "None"
        case "boolean":
            return "bool"
        case "integer":
            return "int"
        case "number":
            return "float"
        case "string" if schema.get("format") == "date-time":
            return "_dt.datetime"
        case "string":
            return "bytes" if "contentEncoding" in schema else "str"
    return "_t.Any"


# ---------------------------------------------------------------------------------------------- functions


def _function(item: FunctionManifest, stub: str, types: _Types) -> str:
    argument = page_argument(item.arguments)
    parameters = _parameters(item, types)
    returns = types.annotation(item.returns, item.returns.get("$defs", {}), sent=False)
    text = _definition(stub, parameters, returns, item.doc)
    row = _row(item, types)
    if argument is None or row is None:
        kind = "stream" if item.stream else item.kind
        return f'@_r.{kind}_reference("{item.name}")\n{text}'
    rest = {name: parameter for name, parameter in parameters.items() if name != argument}
    rows = _definition(f"{stub}__rows", rest, row, "")
    return f'{rows}\n\n\n@_r.paged_reference("{item.name}", "{argument}", {stub}__rows)\n{text}'


def _definition(name: str, parameters: dict[str, str], returns: str, doc: str) -> str:
    given = ", ".join(["*", *parameters.values()]) if parameters else ""
    head = f"def {name}({given}) -> {returns}:"
    if len(head) > _WIDTH and parameters:
        lines = "".join(f"    {parameter},\n" for parameter in ["*", *parameters.values()])
        head = f"def {name}(\n{lines}) -> {returns}:"
    shown = doc.replace("\\", "\\\\")
    if '"""' in shown or shown.endswith('"'):
        shown = shown.replace('"', '\\"')
    told = [f"    {line}".rstrip() for line in f'"""{shown}"""'.splitlines()] if doc else []
    return "\n".join([head, *told, "    _r.stub()"])


def _parameters(item: FunctionManifest, types: _Types) -> dict[str, str]:
    defs = item.arguments.get("$defs", {})
    required = set(item.arguments.get("required", []))
    found = {}
    for name, schema in item.arguments["properties"].items():
        text = f"{name}: {types.annotation(schema, defs, sent=True)}"
        found[name] = text if name in required else f"{text} = {_default(schema)}"
    return found


def _default(schema: dict[str, Any]) -> str:
    default = schema.get("default", ...)
    if isinstance(default, str) and any(map(_is_no_text, [schema, *schema.get("anyOf", [])])):
        return "_r.ABSENT"
    if default is None or isinstance(default, str | int):
        return _literal(default)
    if isinstance(default, float) and math.isfinite(default):
        return repr(default)
    return "_r.ABSENT"


def _is_no_text(schema: dict[str, Any]) -> bool:
    """Tell whether what JSON has as text is bytes or a time in Python."""
    return _leaf(schema) in ("bytes", "_dt.datetime")


def _literal(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _row(item: FunctionManifest, types: _Types) -> str | None:
    """Return the type of the rows of a function that returns pages, None for others."""
    defs = item.returns.get("$defs", {})
    definition = defs.get(item.returns.get("$ref", "").removeprefix(REFERENCE), {})
    if set(definition.get("properties", ())) != PAGE_FIELDS:
        return None
    return types.annotation(definition["properties"]["page"].get("items", {}), defs, sent=False)


@dataclass
class _Namespace:
    """Modules of the bundle as classes one inside the other.

    Attributes:
        functions: Names of stubs by names of functions.
        modules: By their names.
    """

    functions: dict[str, str] = field(default_factory=dict)
    modules: dict[str, _Namespace] = field(default_factory=dict)

    def add(self, name: str) -> None:
        """Make room for a function."""
        self.space_of(name).functions[name.partition(":")[2]] = ""

    def space_of(self, name: str) -> _Namespace:
        """Return the module of a function."""
        space = self
        for part in name.partition(":")[0].split("/"):
            space = space.modules.setdefault(part, _Namespace())
        return space

    def shown_modules(self, spelt: Callable[[str], str]) -> dict[str, str]:
        """Return what each module is called in the stubs."""
        return _shown(self.modules, spelt, set(_IMPORTS))

    def classes(self, spelt: Callable[[str], str], indent: str = "") -> Iterator[str]:
        """Yield the text of each module's class."""
        shown = self.shown_modules(spelt)
        for name, space in sorted(self.modules.items()):
            inner = set(space.shown_modules(_attribute).values())
            functions = _shown(space.functions, _attribute, inner)
            lines = [
                f"{indent}    {functions[key]} = {stub}" for key, stub in sorted(space.functions.items())
            ]
            texts = [f"\n{text}" for text in space.classes(_attribute, f"{indent}    ")]
            yield "\n".join([f"{indent}class {shown[name]}:", *lines, *texts])


def _attribute(name: str) -> str:
    return f"{name}_" if keyword.iskeyword(name) else name


def _shown(names: Iterable[str], spelt: Callable[[str], str], taken: set[str]) -> dict[str, str]:
    """Return a spelling for each name, no two alike; names that may stay as they are come first."""
    found = {}
    for name in sorted(names, key=lambda name: (spelt(name) != name, name)):
        shown = spelt(name)
        while shown in taken:
            shown += "_"
        taken.add(shown)
        found[name] = shown
    return found
