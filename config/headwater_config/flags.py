"""The settings as flags of a command line, made from their declaration."""

from __future__ import annotations

import argparse
from typing import Any

from headwater_config.descriptions import descriptions


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add one flag for each setting; those not given leave nothing behind in the namespace."""
    group = None
    for name, item in descriptions().items():
        if item.group or group is None:
            group = parser.add_argument_group(item.group)
        text = f"{item.text}{f' ({item.unit})' if item.unit else ''}. Default: {item.default}.".replace(
            "%", "%%"
        )
        if item.kind == "yes or no":
            action = argparse.BooleanOptionalAction
            group.add_argument(item.flag, dest=name, action=action, default=argparse.SUPPRESS, help=text)
        else:
            group.add_argument(
                item.flag,
                dest=name,
                metavar=name.rsplit("_", 1)[-1].upper(),
                default=argparse.SUPPRESS,
                help=text,
            )


def given_flags(namespace: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that stood on the command line, as `load` takes them."""
    return {name: value for name, value in vars(namespace).items() if name in descriptions()}
