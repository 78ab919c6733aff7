"""What is told of calls beside the logs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from headwater_config.declarations import About


@dataclass(frozen=True, kw_only=True)
class ObservingSettings:
    """What is told of calls beside the logs."""

    rerun_causes_kept: Annotated[
        int,
        About(
            "Causes for which live queries were run again that `headwater explain` can tell, of all queries together",
            why="Raise it where the queries that one looks into are rerun seldom among many others; each takes about 300 bytes.",
            unit="causes",
            ge=0,
            le=1_000_000,
            group="Observing",
        ),
    ] = 4_096
