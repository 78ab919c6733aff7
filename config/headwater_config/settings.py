"""Every setting, once: its type, default, unit, bounds, and why one would change it.

They stand in `groups/`, a module for each heading of the reference page and of `--help`. Code below the daemon's
composition root never sees `Settings`; it receives the small options object of its own part.
"""

from __future__ import annotations

from dataclasses import dataclass

from headwater_config.groups.actions import ActionsSettings
from headwater_config.groups.addresses import AddressesSettings
from headwater_config.groups.call_logs import CallLogsSettings
from headwater_config.groups.clients import ClientsSettings
from headwater_config.groups.functions import FunctionsSettings
from headwater_config.groups.logs import LogsSettings
from headwater_config.groups.observing import ObservingSettings
from headwater_config.groups.routes import RoutesSettings
from headwater_config.groups.schedules import SchedulesSettings
from headwater_config.groups.sign_in import SignInSettings
from headwater_config.groups.storage import StorageSettings
from headwater_config.groups.variables import VariablesSettings
from headwater_config.groups.where import WhereSettings

ENVIRONMENT_PREFIX = "HEADWATER_"


@dataclass(frozen=True, kw_only=True)
class Settings(  # the last base's fields come first
    VariablesSettings,
    ObservingSettings,
    CallLogsSettings,
    LogsSettings,
    StorageSettings,
    RoutesSettings,
    ActionsSettings,
    SignInSettings,
    SchedulesSettings,
    AddressesSettings,
    ClientsSettings,
    FunctionsSettings,
    WhereSettings,
):
    """The daemon's settings. `load` makes one of checked values and knows where each came from."""
