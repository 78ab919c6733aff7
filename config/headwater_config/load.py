"""Bring the settings together: file, then environment, then flags, each over the one before.

Nothing is read from the process: the caller hands over environment and flags, and names the file.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwater_config.declarations import declarations
from headwater_config.settings import ENVIRONMENT_PREFIX, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE_NAME = "headwater.toml"

NOT_SETTINGS = frozenset(
    {
        "HEADWATER_KEY",
        "HEADWATER_URL",
        "HEADWATER_CONFIG",
        "HEADWATER_CALL_LOG_WEBHOOK_SECRET",
        "HEADWATER_TRACES_HEADERS",
    }
)
"""Variables that are read elsewhere: no settings, which are printed, and no mistakes."""


class SettingsError(ValueError):
    """Settings that cannot be used; one line for each mistake, each naming where the value came from."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, and where each came from.

    Attributes:
        settings: Checked values.
        origins: By setting, in the order of declaration: `default`, `file …`, `environment …` or `flag …`.
    """

    settings: Settings
    origins: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Given:
    value: Any
    origin: str


def find_file(folder: Path, environ: Mapping[str, str], named: Path | None = None) -> Path | None:
    """Return the settings file: the one named, else that of HEADWATER_CONFIG, else `headwater.toml` if there is one."""
    if named is not None:
        return named
    if "HEADWATER_CONFIG" in environ:
        return Path(environ["HEADWATER_CONFIG"])
    usual = folder / FILE_NAME
    return usual if usual.exists() else None


def load(
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> Loaded:
    """Return the settings of a daemon.

    Args:
        flags: Values from the command line, by setting; texts are converted.
        environ: The process's environment; only names that begin with HEADWATER_ are looked at.
        file: TOML file with settings at its top level; must exist if given.

    Raises:
        SettingsError: An unknown name or a value that does not fit; says all of them at once.
    """
    mistakes: list[str] = []
    given: dict[str, _Given] = {}
    if file is not None:
        given |= _known(_from_file(file), mistakes)
    given |= _known(_from_environment(environ or {}), mistakes)
    given |= _known({name: _Given(value, _flag(name)) for name, value in (flags or {}).items()}, mistakes)
    declared = declarations(Settings)
    values: dict[str, Any] = {}
    for name, item in given.items():
        try:
            values[name] = declared[name].checked(item.value)
        except ValueError as error:
            mistakes.append(f"{item.origin}: {name} = {item.value!r}: {error}")
    if mistakes:
        raise SettingsError("\n".join(mistakes))
    origins = {name: given[name].origin if name in given else "default" for name in declared}
    return Loaded(Settings(**values), origins)


def _from_file(file: Path) -> dict[str, _Given]:
    try:
        values = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"{file}: the settings file cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(f"{file}: not a TOML file: {error}") from error
    return {name: _Given(value, f"file {file}") for name, value in values.items()}


def _from_environment(environ: Mapping[str, str]) -> dict[str, _Given]:
    return {
        variable.removeprefix(ENVIRONMENT_PREFIX).lower(): _Given(value, f"environment {variable}")
        for variable, value in environ.items()
        if variable.startswith(ENVIRONMENT_PREFIX) and variable not in NOT_SETTINGS
    }


def _known(given: dict[str, _Given], mistakes: list[str]) -> dict[str, _Given]:
    """Return what names settings; add a line to `mistakes` for all else."""
    declared = declarations(Settings)
    for name in given.keys() - declared.keys():
        near = get_close_matches(name, declared, n=1)
        ask = f'; did you mean "{near[0]}"?' if near else "; `headwater config` prints all settings"
        mistakes.append(f'{given[name].origin}: there is no setting "{name}"{ask}')
    mistakes.sort()
    return {name: item for name, item in given.items() if name in declared}


def _flag(name: str) -> str:
    return "flag --" + name.replace("_", "-")
