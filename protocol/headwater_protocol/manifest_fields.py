"""Fields of a manifest's JSON, each checked to be of its type.

Pure. All raise ProtocolError, which says where in the manifest.
"""

from __future__ import annotations

from typing import Any

from headwater_protocol.errors import ProtocolError


def object_at(value: Any, where: str) -> dict[str, Any]:
    """Return a value that has to be an object."""
    if not isinstance(value, dict):
        raise ProtocolError(f"{where}: expected an object, got {type(value).__name__}")
    return value


def list_at(holder: dict[str, Any], name: str, where: str) -> list[Any]:
    """Return the list of that name."""
    value = holder.get(name)
    if not isinstance(value, list):
        raise ProtocolError(f"{where}.{name}: expected a list, got {type(value).__name__}")
    return value


def text_at(holder: dict[str, Any], name: str, where: str) -> str:
    """Return the text of that name."""
    value = holder.get(name)
    if not isinstance(value, str):
        raise ProtocolError(f"{where}.{name}: expected text, got {type(value).__name__}")
    return value


def texts_at(holder: dict[str, Any], name: str, where: str) -> tuple[str, ...]:
    """Return the list of texts of that name."""
    found = list_at(holder, name, where)
    if not all(isinstance(item, str) for item in found):
        raise ProtocolError(f"{where}.{name}: expected a list of texts, got {found!r}")
    return tuple(found)


def flag_at(holder: dict[str, Any], name: str, where: str) -> bool:
    """Return the truth value of that name."""
    value = holder.get(name)
    if not isinstance(value, bool):
        raise ProtocolError(f"{where}.{name}: expected true or false, got {type(value).__name__}")
    return value
