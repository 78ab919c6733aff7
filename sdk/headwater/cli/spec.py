"""`headwater spec`: what a bundle declares, for other programs: all of it as JSON, or its HTTP interface as OpenAPI."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated

import typer

from headwater.cli.codegen import CheckOption, FolderArgument, OutOption, make
from headwater.cli.deployment import KeyFileOption, UrlOption  # noqa: TC001 - typer reads annotations at run time
from headwater.openapi import openapi

if TYPE_CHECKING:
    from headwater_protocol.manifest import Manifest

OpenApiOption = Annotated[
    bool,
    typer.Option("--openapi", help="Write an OpenAPI 3.1 document of the functions that clients may call."),
]


def spec(
    context: typer.Context,
    folder: FolderArgument = None,
    as_openapi: OpenApiOption = False,
    out: OutOption = None,
    check: CheckOption = False,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
) -> None:
    """Write the functions, tables, schemas and documentation of a bundle as JSON. Reading from a server needs the deployment's key."""
    make(context, _openapi_text if as_openapi else _spec_text, folder, out, url, key_file, check=check)


def _spec_text(manifest: Manifest) -> str:
    return _text(json.loads(manifest.to_json()))


def _openapi_text(manifest: Manifest) -> str:
    return _text(openapi(manifest, version("headwater")))


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"
