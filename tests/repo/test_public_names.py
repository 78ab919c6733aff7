"""What users import. A name that leaves this list breaks somebody's code; one that joins it is a promise."""

from __future__ import annotations

import subprocess
import sys

import headwater
import pytest

AUTHORING = {"Id", "Index", "Meta", "Struct", "Table", "action", "field", "mutation", "query", "replace"}
CONTEXTS = {"ActionCtx", "Auth", "Database", "DatabaseReader", "Identity", "MutationCtx", "Query", "QueryCtx"}
PROVIDERS = {"jwt_provider", "oidc_provider"}
FUNCTIONS = {"ActionFunction", "MutationFunction", "QueryFunction", "StreamFunction"}
VALUES = {"ApplicationError", "HeadwaterError", "Int64", "Page", "PageOptions"}
CLIENT = {"BlockingClient", "Client", "ClientState", "LocalResults", "connect", "connect_blocking"}


def test_the_public_names_are_these() -> None:
    assert set(headwater.__all__) == AUTHORING | CONTEXTS | FUNCTIONS | PROVIDERS | VALUES | CLIENT
    assert list(headwater.__all__) == sorted(headwater.__all__)


@pytest.mark.parametrize("name", headwater.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(headwater, name) is not None


def test_nothing_else_is_public() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        headwater.no_such_name  # noqa: B018


def test_importing_it_loads_neither_client_nor_server() -> None:
    heavy = (
        "aiohttp",
        "asyncio",
        "headwater.client",
        "headwater_server",
        "headwater_storage",
        "lmdb",
    )
    program = f"import sys, headwater; print([name for name in {heavy!r} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert answer.stdout.strip() == "[]"
