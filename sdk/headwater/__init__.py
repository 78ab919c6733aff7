"""What users import to write functions and to call them.

    from headwater import Id, Index, MutationCtx, QueryCtx, Table, mutation, query

`connect` loads the client when it is first used; a worker never needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headwater_protocol.errors import ApplicationError, HeadwaterError
from headwater_protocol.values import Int64
from msgspec import Meta, Struct, field

from headwater import webhooks
from headwater.actions import ActionCtx, ActionFunction, StreamFunction
from headwater.authoring import action, mutation, query
from headwater.context import MutationCtx, MutationFunction, QueryCtx, QueryFunction
from headwater.crons import cron
from headwater.database import Database, DatabaseReader
from headwater.documents import replace
from headwater.environment import Environment, Secret
from headwater.fields import Id
from headwater.forms import Form, Upload
from headwater.http_messages import Request, Response
from headwater.identity import Auth, Identity
from headwater.indexes import Index
from headwater.providers import jwt_provider, oidc_provider
from headwater.queries import Query
from headwater.results import Page, PageOptions
from headwater.routes import Cors, RouteFunction, route
from headwater.scheduler import ActionScheduler, Scheduler
from headwater.schedules import Schedule, crontab, daily, every, hourly, monthly, weekly
from headwater.schema import Table
from headwater.system_tables import CronJob, CronRun, JobError, ScheduledJob

if TYPE_CHECKING:
    from headwater.client.accounts import AccountClient
    from headwater.client.aio import Client, connect
    from headwater.client.blocking import BlockingClient, connect_blocking
    from headwater.client.local_results import LocalResults
    from headwater.client.states import ClientState

__all__ = [
    "AccountClient",
    "ActionCtx",
    "ActionFunction",
    "ActionScheduler",
    "ApplicationError",
    "Auth",
    "BlockingClient",
    "Client",
    "ClientState",
    "Cors",
    "CronJob",
    "CronRun",
    "Database",
    "DatabaseReader",
    "Environment",
    "Form",
    "HeadwaterError",
    "Id",
    "Identity",
    "Index",
    "Int64",
    "JobError",
    "LocalResults",
    "Meta",
    "MutationCtx",
    "MutationFunction",
    "Page",
    "PageOptions",
    "Query",
    "QueryCtx",
    "QueryFunction",
    "Request",
    "Response",
    "RouteFunction",
    "Schedule",
    "ScheduledJob",
    "Scheduler",
    "Secret",
    "StreamFunction",
    "Struct",
    "Table",
    "Upload",
    "action",
    "connect",
    "connect_blocking",
    "cron",
    "crontab",
    "daily",
    "every",
    "field",
    "hourly",
    "jwt_provider",
    "monthly",
    "mutation",
    "oidc_provider",
    "query",
    "replace",
    "route",
    "webhooks",
    "weekly",
]

_CLIENT = {
    "AccountClient": "headwater.client.accounts",
    "Client": "headwater.client.aio",
    "connect": "headwater.client.aio",
    "BlockingClient": "headwater.client.blocking",
    "connect_blocking": "headwater.client.blocking",
    "LocalResults": "headwater.client.local_results",
    "ClientState": "headwater.client.states",
}


def __getattr__(name: str) -> Any:
    """Load the client's names on first use."""
    module = _CLIENT.get(name)
    if module is None:
        raise AttributeError(f"module 'headwater' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(module), name)
