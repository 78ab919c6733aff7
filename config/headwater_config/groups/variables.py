"""Environment variables of the deployment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from headwater_config.declarations import MIB, About


@dataclass(frozen=True, kw_only=True)
class VariablesSettings:
    """Environment variables of the deployment."""

    environment_key_file: Annotated[
        Path | None,
        About(
            "File with the key that secret environment variables are sealed with; outside the data directory",
            why="Without it the file is called like the data directory with `.key` behind it, and made for the first secret. Keep a"
            " copy where backups of the data are not.",
            group="Environment variables",
        ),
    ] = None
    environment_limit_variables: Annotated[
        int,
        About(
            "Environment variables that there may be",
            why="All are in the memory of each process that runs actions.",
            unit="variables",
            ge=0,
            le=10_000,
        ),
    ] = 512
    environment_name_limit_characters: Annotated[
        int,
        About("Length of a name", why="For names out of other systems.", unit="characters", ge=1, le=150),
    ] = 64
    environment_value_limit_bytes: Annotated[
        int,
        About("Size of a value", why="For certificates and the like.", unit="bytes", ge=1, le=MIB),
    ] = 16 * 1024
