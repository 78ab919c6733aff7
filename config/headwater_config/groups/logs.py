"""The daemon's own log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from headwater_config.declarations import About


@dataclass(frozen=True, kw_only=True)
class LogsSettings:
    """The daemon's own log."""

    log_format: Annotated[
        Literal["json", "human", "auto"],
        About(
            "Form of the daemon's log lines; `auto` is `human` on a terminal and `json` elsewhere",
            why="Set `json` when a collector reads standard error of a terminal.",
            group="Logs",
        ),
    ] = "auto"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        About("Least level of a log line", why="`debug` while looking for a fault."),
    ] = "info"
