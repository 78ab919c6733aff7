"""The manifest survives JSON, and what is no manifest is refused where it differs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from headwater_protocol.errors import ProtocolError
from headwater_protocol.manifest import (
    FunctionManifest,
    IndexManifest,
    Manifest,
    ProviderManifest,
    TableManifest,
    canonical_json,
)

MANIFEST = Manifest(
    (
        TableManifest(
            "users",
            '{"type":"object"}',
            (IndexManifest("by_name", ("name", "a.b"), True, {"name": b"\xa1x"}),),
        ),
    ),
    (FunctionManifest("users:me", "query", False, {"type": "object"}, {"type": "null"}, "Who I am."),),
    (ProviderManifest("jwt", "https://id.example", "app", "https://id.example/keys", ("ES256",), ("web",)),),
)


def test_it_comes_back_from_json() -> None:
    assert Manifest.from_json(MANIFEST.to_json()) == MANIFEST
    assert Manifest.from_json(MANIFEST.to_json().decode()) == MANIFEST
    assert Manifest.from_json(Manifest().to_json()) == Manifest()


def test_one_from_before_there_were_providers_has_none() -> None:
    parsed = json.loads(MANIFEST.to_json())
    del parsed["providers"]
    assert Manifest.from_json(json.dumps(parsed)).providers == ()


def test_equal_manifests_give_equal_bytes() -> None:
    assert canonical_json({"b": 1, "a": [None, "ü"]}) == '{"a":[null,"ü"],"b":1}'
    assert (
        Manifest.from_json(json.dumps(json.loads(MANIFEST.to_json()), indent=2)).to_json()
        == MANIFEST.to_json()
    )


@pytest.mark.parametrize(
    ("path", "value", "place"),
    [
        (["version"], 2, "expected version 1, got 2"),
        (["tables"], None, "manifest.tables: expected a list"),
        (["tables", 0], [], r"manifest.tables\[0\]: expected an object"),
        (["tables", 0, "name"], 5, r"manifest.tables\[0\].name: expected text"),
        (["tables", 0, "shape"], {}, r"manifest.tables\[0\].shape: expected text"),
        (["tables", 0, "indexes", 0, "fields"], [], r"indexes\[0\].fields: expected at least one"),
        (["tables", 0, "indexes", 0, "fields"], [1], r"indexes\[0\].fields: expected at least one"),
        (["tables", 0, "indexes", 0, "unique"], 1, r"indexes\[0\].unique: expected true or false"),
        (["tables", 0, "indexes", 0, "defaults"], {"name": 5}, r"indexes\[0\].defaults: expected base64"),
        (["tables", 0, "indexes", 0, "defaults"], {"name": "%"}, r"indexes\[0\].defaults: expected base64"),
        (
            ["tables", 0, "indexes", 0, "defaults"],
            {"name": "wQ=="},
            r"indexes\[0\].defaults\['name'\]: value: ",
        ),
        (
            ["tables", 0, "indexes", 0, "defaults"],
            {"name": "xwEJeA=="},
            r"defaults\['name'\]: value: .*extension",
        ),
        (["tables", 0, "indexes", 0, "defaults"], {"name": "gcQBYQE="}, r"\['name'\]: expected text keys"),
        (["functions", 0, "kind"], "cron", r"functions\[0\].kind: expected query, mutation or action"),
        (["functions", 0, "kind"], [], r"functions\[0\].kind: expected query, mutation or action"),
        (["functions", 0, "arguments"], "x", r"functions\[0\].arguments: expected an object"),
        (["providers"], None, "manifest.providers: expected a list"),
        (
            ["providers", 0, "kind"],
            "saml",
            r"providers\[0\].kind: expected one of oidc, jwt, deployment, login, got 'saml'",
        ),
        (["providers", 0, "keys"], None, r"providers\[0\].keys: expected text"),
        (["providers", 0, "algorithms", 0], 5, r"providers\[0\].algorithms: expected a list of texts"),
        (["functions", 0, "internal"], None, r"functions\[0\].internal: expected true or false"),
    ],
)
def test_what_is_no_manifest_is_refused(path: list[Any], value: Any, place: str) -> None:
    parsed = json.loads(MANIFEST.to_json())
    inner = parsed
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    with pytest.raises(ProtocolError, match=place):
        Manifest.from_json(json.dumps(parsed))


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="manifest: "):
        Manifest.from_json(data)
