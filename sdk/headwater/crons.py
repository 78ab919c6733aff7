"""Crons: functions that run again and again, declared with `cron(...)` at the top of a bundle's modules.

A declaration is kept in the module that makes it, as a bundle is what its modules hold.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, cast

from headwater_protocol.cron_manifest import CronManifest
from headwater_protocol.errors import RequestError

from headwater.refusals import invalid_bundle
from headwater.scheduler import scheduled_call
from headwater.schedules import Schedule, crontab

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import ModuleType

    from headwater.calls import CompiledFunction
    from headwater.scheduler import Schedulable

P = ParamSpec("P")

_RECORD = "__headwater_crons__"
_NAME_CHARACTERS_MAX = 100
_CRONS_MAX = 1_000
_ARGUMENTS_BYTES_MAX = 65_536


@dataclass(frozen=True, slots=True)
class DeclaredCron:
    """A cron as a module declares it.

    Attributes:
        name: Its name.
        schedule: When it runs.
        function: What its decorator made of what runs.
        args: Positional arguments.
        kwargs: Keyword arguments.
    """

    name: str
    schedule: Schedule
    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def cron(
    name: str, schedule: Schedule | str, function: Schedulable[P], /, *args: P.args, **kwargs: P.kwargs
) -> None:
    """Declare that a function runs again and again, from the deploy of this bundle on.

    Args:
        name: Tells it from others; a later bundle that has the same name goes on with it.
        schedule: When, such as `every(minutes=10)` or `daily("03:30", time_zone="Europe/Berlin")`; or a cron
            expression, in UTC.
        function: A mutation or an action of this bundle, internal ones too. It has no identity.
        *args: Its arguments.
        **kwargs: Its arguments.

    Raises:
        RequestError: `invalid_bundle`.
    """
    caller = sys._getframe(1)
    if caller.f_code.co_name != "<module>":
        raise invalid_bundle("cron(...) is called at the top level of a module, not in a function")
    if not isinstance(name, str) or not 0 < len(name) <= _NAME_CHARACTERS_MAX or not name.isprintable():
        raise invalid_bundle(
            f"cron(...): expected a name of 1 to {_NAME_CHARACTERS_MAX} characters, got {name!r}"
        )
    if not isinstance(schedule, Schedule | str):
        raise invalid_bundle(
            f"cron({name!r}, ...): expected when, such as every(minutes=10), got {schedule!r}"
        )
    chosen = crontab(schedule) if isinstance(schedule, str) else schedule
    record: list[DeclaredCron] = caller.f_globals.setdefault(_RECORD, [])
    record.append(DeclaredCron(name, chosen, function, args, kwargs))


def crons_of(modules: Iterable[ModuleType]) -> list[DeclaredCron]:
    """Return what the modules of a bundle declared, by name.

    Raises:
        RequestError: `invalid_bundle`: two have one name, or there are too many.
    """
    found = [one for module in modules for one in vars(module).get(_RECORD, ())]
    if len(found) > _CRONS_MAX:
        raise invalid_bundle(f"{len(found)} crons are declared; at most {_CRONS_MAX} may be")
    by_name: dict[str, DeclaredCron] = {}
    for one in found:
        if by_name.setdefault(one.name, one) is not one:
            raise invalid_bundle(f"two crons are called {one.name!r}; rename one")
    return [by_name[name] for name in sorted(by_name)]


def compiled_cron(one: DeclaredCron, functions: Mapping[Any, CompiledFunction]) -> CronManifest:
    """Return a cron as the manifest has it, its arguments checked.

    Raises:
        RequestError: `invalid_bundle`.
    """
    try:
        made = scheduled_call(functions, one.function, one.args, one.kwargs, lambda _: None, 0.0)
    except (TypeError, RequestError) as error:
        said = str(error).replace("ctx.scheduler takes", "it takes")
        raise invalid_bundle(f"cron({one.name!r}, ...): {said}") from None
    if len(made.arguments) > _ARGUMENTS_BYTES_MAX:
        raise invalid_bundle(
            f"cron({one.name!r}, ...): its arguments have {len(made.arguments)} bytes; the limit is {_ARGUMENTS_BYTES_MAX}"
        )
    schedule = one.schedule
    return CronManifest(
        one.name, schedule.text, schedule.time_zone, made.function, cast("Any", made.kind), made.arguments
    )
