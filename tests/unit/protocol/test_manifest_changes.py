from __future__ import annotations

from dataclasses import replace

from headwater_protocol.manifest import (
    FunctionManifest,
    IndexManifest,
    Manifest,
    ProviderManifest,
    TableManifest,
)
from headwater_protocol.manifest_changes import Change, changes_between

LIST = FunctionManifest("m:list", "query", False, {"type": "object"}, {"type": "array"})
SEND = FunctionManifest("m:send", "mutation", False, {"type": "object"}, {"type": "null"})
BY_TEXT = IndexManifest("by_text", ("text",))
NOTES = TableManifest("notes", "{}", (BY_TEXT,))
BEFORE = Manifest((NOTES,), (LIST, SEND))


def test_equal_manifests_have_no_changes_and_documentation_is_none() -> None:
    assert changes_between(BEFORE, BEFORE) == []
    assert changes_between(BEFORE, Manifest((NOTES,), (replace(LIST, doc="Newer."), SEND))) == []


def test_the_first_deploy_adds_all() -> None:
    assert changes_between(Manifest(), BEFORE) == [
        Change("added", "table", "notes"),
        Change("added", "index", "notes.by_text"),
        Change("added", "function", "m:list"),
        Change("added", "function", "m:send"),
    ]


def test_what_is_gone_is_told_with_what_becomes_of_it() -> None:
    assert changes_between(BEFORE, Manifest((), (LIST,))) == [
        Change("removed", "table", "notes", ("its documents are kept",)),
        Change("removed", "function", "m:send"),
    ]


def test_changes_name_what_has_changed() -> None:
    index = IndexManifest("by_text", ("text", "at"), unique=True)
    table = TableManifest("notes", '{"a":1}', (index, IndexManifest("by_at", ("at",))))
    functions = (
        replace(LIST, arguments={"type": "object", "x": 1}, returns={}),
        replace(SEND, kind="action", internal=True),
    )
    assert changes_between(BEFORE, Manifest((table,), functions)) == [
        Change("changed", "table", "notes", ("documents",)),
        Change("added", "index", "notes.by_at"),
        Change("changed", "index", "notes.by_text", ("fields", "unique")),
        Change("changed", "function", "m:list", ("arguments", "result")),
        Change("changed", "function", "m:send", ("mutation becomes action", "becomes internal")),
    ]
    back = changes_between(Manifest((table,), functions), BEFORE)
    assert Change("changed", "function", "m:send", ("action becomes mutation", "becomes public")) in back
    assert Change("removed", "index", "notes.by_at") in back


def test_changes_of_providers_are_told() -> None:
    one = ProviderManifest("oidc", "https://a.example", "app", "", ("RS256",))
    two = ProviderManifest("jwt", "own", "", "https://a.example/keys", ("RS256",))
    changed = replace(two, keys="https://b.example/keys", algorithms=("ES256",), authorized_parties=("web",))
    assert changes_between(Manifest(providers=(one, two)), Manifest(providers=(one, two))) == []
    assert changes_between(Manifest(providers=(one, two)), Manifest(providers=(changed,))) == [
        Change("removed", "provider", "https://a.example for app"),
        Change("changed", "provider", "own", ("keys", "algorithms", "authorized parties")),
    ]
    assert changes_between(Manifest(), Manifest(providers=(one,))) == [
        Change("added", "provider", "https://a.example for app")
    ]
