"""Types of a bundle's functions for its TypeScript clients, as the text of one file.

Pure. Equal manifests give equal text. At run time the file is one call: references are made from the path by
which they are reached.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from headwater_protocol.manifest import FunctionManifest, Manifest

from headwater.signatures import page_argument
from headwater.typescript_types import Types, block, comment, property_name

if TYPE_CHECKING:
    from collections.abc import Iterator

_WIDTH = 110  # arguments of longer functions stand one below the other
_PAGE_ARGUMENT = "options"  # what a client takes it to be called if nothing is said

_HEAD = """\
/* eslint-disable */
/**
 * Functions of a Headwater bundle, typed for its clients.
 *
 * Made by `headwater codegen --ts`; changes are lost when it is made again.
 *
 *     useQuery(api.module.function, { argument: value })
 */
"""
_IMPORTS = ("FunctionReference", "Page", "PageOptions", "Value")


def typescript_api(manifest: Manifest) -> str:
    """Return the file that `headwater codegen --ts` writes."""
    manifest = Manifest.from_json(manifest.to_json())  # from a folder or a server: the same order of fields
    types = Types()
    modules = _Module()
    called = [item for item in manifest.functions if not item.internal]
    for item in called:
        modules.add(item.name, _function(item, types))
    documents = [
        f"readonly {property_name(table.name)}: {types.document(table.name, json.loads(table.shape))}"
        for table in manifest.tables
    ]
    parts = [
        "/** The id of a document of a table. */\nexport type Id<Table extends keyof Docs> = AnyId<Table>;",
        f"/** What documents look like, by table. */\nexport interface Docs {_body(documents)}",
        "/** A document of a table. */\nexport type Doc<Table extends keyof Docs> = Docs[Table];",
        *types.definitions(),
        f"/** What clients may call. */\nexport interface Api {_body(list(modules.members()))}",
        f"/** The functions by their names: `api.module.function`. */\nexport const api = makeApi<Api>({_options(called)});",
    ]
    text = "\n\n".join(parts)
    needed = [f"type {name}" for name in _IMPORTS if re.search(rf"\b{name}\b", text)]
    imports = ["type Id as AnyId", *needed, "makeApi"]
    return f'{_HEAD}\nimport {{ {", ".join(imports)} }} from "headwater";\n\n{text}\n'


def _body(members: list[str]) -> str:
    return block(members) if members else "{}"


def _function(item: FunctionManifest, types: Types) -> str:
    """Return the type of one function and, above it, what is said of it."""
    returns = types.type_of(item.returns, item.returns.get("$defs", {}), sent=False)
    fields = list(types.fields(item.arguments, item.arguments.get("$defs", {}), sent=True))
    arguments = f"{{ {'; '.join(text for _, text in fields)} }}"
    long = len(item.name) + len(arguments) + len(returns) > _WIDTH
    if not fields or long or any(doc for doc, _ in fields):
        arguments = block([doc + text for doc, text in fields])
    name = property_name(item.name.partition(":")[2])
    kind = "stream" if item.stream else item.kind
    return f'{comment(item.doc)}{name}: FunctionReference<"{kind}", {arguments}, {returns}>'


def _options(called: list[FunctionManifest]) -> str:
    """Return what the client must be told of the functions: names of page options that are not the usual one."""
    found = {item.name: page_argument(item.arguments) for item in called}
    told = {name: given for name, given in found.items() if given not in (None, _PAGE_ARGUMENT)}
    return json.dumps(told, ensure_ascii=False) if told else ""


@dataclass
class _Module:
    """Modules of the bundle, one inside the other.

    Attributes:
        functions: Types by names of functions.
        modules: By their names.
    """

    functions: dict[str, str] = field(default_factory=dict)
    modules: dict[str, _Module] = field(default_factory=dict)

    def add(self, name: str, text: str) -> None:
        """Add a function by its whole name."""
        path, _, last = name.partition(":")
        place = self
        for part in path.split("/"):
            place = place.modules.setdefault(part, _Module())
        place.functions[last] = text

    def members(self) -> Iterator[str]:
        """Yield the fields of its type; a function may be called like a module beside it, and is both then."""
        for name in sorted({*self.functions, *self.modules}):
            inner = _body(list(self.modules[name].members())) if name in self.modules else None
            if inner is None:
                yield self.functions[name]
            elif name in self.functions:
                yield f"{self.functions[name]} & {inner}"
            else:
                yield f"{property_name(name)}: {inner}"
