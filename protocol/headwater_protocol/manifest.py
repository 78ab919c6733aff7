"""What a deployed bundle declares: tables with their indexes, functions, routes, crons, variables, and whose tokens it takes.

Pure. Made by the worker that loaded the bundle, read by the deploy, the command line and
generators; it crosses processes as JSON.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from headwater_protocol.cron_manifest import CronManifest, cron_in, cron_out
from headwater_protocol.errors import ProtocolError, RequestError
from headwater_protocol.manifest_fields import flag_at as _flag
from headwater_protocol.manifest_fields import list_at as _list
from headwater_protocol.manifest_fields import object_at as _object
from headwater_protocol.manifest_fields import text_at as _text
from headwater_protocol.manifest_fields import texts_at as _texts
from headwater_protocol.route_manifest import RouteManifest, route_in, route_out
from headwater_protocol.values import check_value, scan_value, unpack_value

FunctionKind = Literal["query", "mutation", "action"]
ProviderKind = Literal["oidc", "jwt", "deployment", "login"]
MANIFEST_VERSION = 1


@dataclass(frozen=True, slots=True)
class IndexManifest:
    """One index of a table.

    Attributes:
        name: Unique among the table's indexes.
        fields: Dotted paths into the stored document; the creation time follows by itself.
        unique: Whether two documents may not have the same fields.
        defaults: What is read where a document does not have a field, encoded, by its dotted path or that of
            what it is in; without what is not the same each time.
    """

    name: str
    fields: tuple[str, ...]
    unique: bool = False
    defaults: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TableManifest:
    """One table.

    Attributes:
        name: As in the schema.
        shape: JSON schema of its documents as canonical text: equal texts mean that bytes
            stored under one may be taken for bytes stored under the other.
        indexes: Its indexes, by name.
    """

    name: str
    shape: str
    indexes: tuple[IndexManifest, ...] = ()


@dataclass(frozen=True, slots=True)
class FunctionManifest:
    """One function.

    Attributes:
        name: What clients call, `module:function`.
        kind: `query`, `mutation` or `action`.
        internal: Only other functions and holders of the deployment's key may call it.
        arguments: JSON schema of its arguments, an object.
        returns: JSON schema of its result; of an action that streams, of each piece.
        doc: Its docstring, "" if there is none.
        stream: Whether it is an action that streams.
    """

    name: str
    kind: FunctionKind
    internal: bool
    arguments: dict[str, Any]
    returns: dict[str, Any]
    doc: str = ""
    stream: bool = False


@dataclass(frozen=True, slots=True)
class ProviderManifest:
    """One provider: an issuer whose tokens say who a caller is.

    Attributes:
        kind: `oidc` publishes where its keys are; of `jwt` they are declared; `deployment` is the one that runs the
            bundle, which knows issuer, audience and keys itself: here they are "". `login` is as `oidc`, for those who
            sign in at the bundle's accounts with it; its tokens say nothing of a caller.
        issuer: What its tokens have as `iss`, to the letter.
        audience: What they must have as `aud`, or among it; "" takes any.
        keys: Where its keys are: an address, or the key set itself as canonical JSON; "" for `oidc` and `login`.
        algorithms: How they may be signed.
        authorized_parties: Of which one must be their `azp`; none takes any.
    """

    kind: ProviderKind
    issuer: str
    audience: str
    keys: str
    algorithms: tuple[str, ...]
    authorized_parties: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What it is called for people: its issuer, and the audience if that is checked."""
        if self.kind == "deployment":
            return "accounts of this deployment"
        if self.kind == "login":
            return f"sign-in with {self.issuer} as {self.audience}"
        return f"{self.issuer} for {self.audience}" if self.audience else self.issuer


@dataclass(frozen=True, slots=True)
class VariableManifest:
    """One environment variable that the functions read.

    Attributes:
        name: What it is called.
        kind: Its type, for people.
        secret: Whether it is to be stored sealed.
        required: Whether it must be set.
    """

    name: str
    kind: str
    secret: bool
    required: bool


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything that a bundle declares, each sorted by name."""

    tables: tuple[TableManifest, ...] = ()
    functions: tuple[FunctionManifest, ...] = ()
    providers: tuple[ProviderManifest, ...] = ()
    routes: tuple[RouteManifest, ...] = ()
    crons: tuple[CronManifest, ...] = ()
    variables: tuple[VariableManifest, ...] = ()

    def to_json(self) -> bytes:
        """Return it as JSON; equal manifests give equal bytes."""
        return canonical_json(
            {
                "version": MANIFEST_VERSION,
                "tables": [
                    {
                        "name": table.name,
                        "shape": table.shape,
                        "indexes": [_index_out(index) for index in table.indexes],
                    }
                    for table in self.tables
                ],
                "functions": [
                    {
                        "name": function.name,
                        "kind": function.kind,
                        "internal": function.internal,
                        "arguments": function.arguments,
                        "returns": function.returns,
                        "doc": function.doc,
                        **({"stream": True} if function.stream else {}),
                    }
                    for function in self.functions
                ],
                "providers": [_provider_out(provider) for provider in self.providers],
                **({"routes": [route_out(route) for route in self.routes]} if self.routes else {}),
                **({"crons": [cron_out(cron) for cron in self.crons]} if self.crons else {}),
                **({"variables": [asdict(one) for one in self.variables]} if self.variables else {}),
            }
        ).encode()

    @classmethod
    def from_json(cls, data: bytes | str) -> Manifest:
        """Read what `to_json` wrote.

        Raises:
            ProtocolError: It is not a manifest of this version; says where.
        """
        try:
            parsed = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ProtocolError(f"manifest: not JSON: {error}") from None
        top = _object(parsed, "manifest")
        if top.get("version") != MANIFEST_VERSION:
            raise ProtocolError(f"manifest: expected version {MANIFEST_VERSION}, got {top.get('version')!r}")
        return cls(
            tuple(
                _table_in(item, f"manifest.tables[{i}]")
                for i, item in enumerate(_list(top, "tables", "manifest"))
            ),
            tuple(
                _function_in(item, f"manifest.functions[{i}]")
                for i, item in enumerate(_list(top, "functions", "manifest"))
            ),
            tuple(
                _provider_in(item, f"manifest.providers[{i}]")
                for i, item in enumerate(_list(top, "providers", "manifest") if "providers" in top else ())
            ),
            tuple(
                route_in(item, f"manifest.routes[{i}]")
                for i, item in enumerate(_list(top, "routes", "manifest") if "routes" in top else ())
            ),
            tuple(
                cron_in(item, f"manifest.crons[{i}]")
                for i, item in enumerate(_list(top, "crons", "manifest") if "crons" in top else ())
            ),
            tuple(
                _variable_in(item, f"manifest.variables[{i}]")
                for i, item in enumerate(_list(top, "variables", "manifest") if "variables" in top else ())
            ),
        )


def canonical_json(value: Any) -> str:
    """Return JSON text that is the same for equal values: sorted keys, no spaces."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _index_out(index: IndexManifest) -> dict[str, Any]:
    found = {"name": index.name, "fields": list(index.fields), "unique": index.unique}
    if index.defaults:
        found["defaults"] = {path: base64.b64encode(value).decode() for path, value in index.defaults.items()}
    return found


def _table_in(value: Any, where: str) -> TableManifest:
    table = _object(value, where)
    return TableManifest(
        _text(table, "name", where),
        _text(table, "shape", where),
        tuple(
            _index_in(item, f"{where}.indexes[{i}]") for i, item in enumerate(_list(table, "indexes", where))
        ),
    )


def _index_in(value: Any, where: str) -> IndexManifest:
    index = _object(value, where)
    fields = _list(index, "fields", where)
    if not fields or not all(isinstance(path, str) for path in fields):
        raise ProtocolError(f"{where}.fields: expected at least one dotted path, got {fields!r}")
    defaults = _object(index.get("defaults", {}), f"{where}.defaults")
    try:
        decoded = {path: base64.b64decode(value, validate=True) for path, value in defaults.items()}
    except (TypeError, ValueError, binascii.Error):
        raise ProtocolError(f"{where}.defaults: expected base64, got {defaults!r:.200}") from None
    for path, value in decoded.items():  # they come to stand in the catalog, and are read at each start
        try:
            scan_value(value)
            check_value(unpack_value(value))
        except (ProtocolError, RequestError) as wrong:
            raise ProtocolError(f"{where}.defaults[{path!r:.200}]: {wrong.message}") from None
    return IndexManifest(_text(index, "name", where), tuple(fields), _flag(index, "unique", where), decoded)


def _function_in(value: Any, where: str) -> FunctionManifest:
    function = _object(value, where)
    kind: Any = function.get("kind")
    if kind not in get_args(FunctionKind):
        raise ProtocolError(f"{where}.kind: expected query, mutation or action, got {kind!r}")
    return FunctionManifest(
        _text(function, "name", where),
        kind,
        _flag(function, "internal", where),
        _object(function.get("arguments"), f"{where}.arguments"),
        _object(function.get("returns"), f"{where}.returns"),
        _text(function, "doc", where),
        "stream" in function and _flag(function, "stream", where),
    )


def _provider_out(provider: ProviderManifest) -> dict[str, Any]:
    return {
        "kind": provider.kind,
        "issuer": provider.issuer,
        "audience": provider.audience,
        "keys": provider.keys,
        "algorithms": list(provider.algorithms),
        "authorized_parties": list(provider.authorized_parties),
    }


def _provider_in(value: Any, where: str) -> ProviderManifest:
    provider = _object(value, where)
    kind: Any = provider.get("kind")
    if kind not in get_args(ProviderKind):
        raise ProtocolError(
            f"{where}.kind: expected one of {', '.join(get_args(ProviderKind))}, got {kind!r}"
        )
    return ProviderManifest(
        kind,
        _text(provider, "issuer", where),
        _text(provider, "audience", where),
        _text(provider, "keys", where),
        _texts(provider, "algorithms", where),
        _texts(provider, "authorized_parties", where),
    )


def _variable_in(value: Any, where: str) -> VariableManifest:
    variable = _object(value, where)
    return VariableManifest(
        _text(variable, "name", where),
        _text(variable, "kind", where),
        _flag(variable, "secret", where),
        _flag(variable, "required", where),
    )
