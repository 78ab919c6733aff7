"""What users import. A name that leaves this list breaks somebody's code; one that joins it is a promise."""

from __future__ import annotations

import subprocess
import sys

import headwater
import headwater.testing
import pytest

from tools.checkout import imports, modules

AUTHORING = {"Id", "Index", "Meta", "Struct", "Table", "action", "field", "mutation", "query", "replace"}
JOBS = {"ActionScheduler", "CronJob", "CronRun", "JobError", "Schedule", "ScheduledJob", "Scheduler"}
CRONS = {"cron", "crontab", "daily", "every", "hourly", "monthly", "weekly"}
ENVIRONMENT = {"Environment", "Secret"}
CONTEXTS = {"ActionCtx", "Auth", "Database", "DatabaseReader", "Identity", "MutationCtx", "Query", "QueryCtx"}
PROVIDERS = {"jwt_provider", "oidc_provider"}
FUNCTIONS = {"ActionFunction", "MutationFunction", "QueryFunction", "StreamFunction"}
ROUTES = {"Cors", "Form", "Request", "Response", "RouteFunction", "Upload", "route", "webhooks"}
VALUES = {"ApplicationError", "HeadwaterError", "Int64", "Page", "PageOptions"}
CLIENT = {
    "AccountClient",
    "BlockingClient",
    "Client",
    "ClientState",
    "LocalResults",
    "connect",
    "connect_blocking",
}


def test_the_public_names_are_these() -> None:
    assert set(headwater.__all__) == (
        AUTHORING | ENVIRONMENT | CONTEXTS | FUNCTIONS | PROVIDERS | ROUTES | JOBS | CRONS | VALUES | CLIENT
    )
    assert list(headwater.__all__) == sorted(headwater.__all__)


def test_the_names_of_the_testing_kit_are_these() -> None:
    assert headwater.testing.__all__ == ["Caller", "Deployment", "Fetched", "PendingMutation", "Watch"]
    assert all(hasattr(headwater.testing, name) for name in headwater.testing.__all__)


def test_nothing_else_imports_the_testing_kit() -> None:
    """It alone of `headwater` needs the server's packages, and is for tests."""
    found = [
        module.path
        for module in modules()
        if not module.name.startswith("headwater.testing")
        and any(name.startswith("headwater.testing") for name in imports(module))
    ]
    assert found == []


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
        "headwater.testing",
        "headwater_server",
        "headwater_storage",
        "lmdb",
    )
    program = f"import sys, headwater; print([name for name in {heavy!r} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert answer.stdout.strip() == "[]"
