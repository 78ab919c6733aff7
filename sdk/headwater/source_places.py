"""Where in the author's files a refused function or table stands, written as Python writes it.

Pure but for reading source files, once something has been refused.
"""

from __future__ import annotations

import inspect
import re
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import headwater_protocol
from headwater_protocol.errors import RequestError

from headwater.refusals import invalid_bundle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

_FOLDER = str(Path(__file__).parent)
_OTHERS = (_FOLDER, str(Path(headwater_protocol.__file__).parent), "<")  # "<": importlib, made functions


@contextmanager
def refused_at(place: Callable[[str], str]) -> Iterator[None]:
    """Add to a refusal where its cause stands.

    Args:
        place: Is given the message, returns a line; "" if nobody knows.
    """
    try:
        yield
    except RequestError as error:
        raise invalid_bundle(f"{error.message}\n{place(error.message)}".rstrip()) from None


def place_of_function(declared: Any) -> str:
    """Return the line of a function as it was written."""
    code = declared.__code__
    return _line(declared.__module__, code.co_firstlineno, declared.__name__)


def place_of_table(cls: type, message: str) -> str:
    """Return the line of the field or index that a message begins with, else that of the class."""
    try:
        lines, first = inspect.getsourcelines(cls)
    except (OSError, TypeError):
        return ""
    named = re.match(rf"{cls.__name__}\.(\w+)", message)
    field = re.compile(rf"\s+{named[1]}\s*[:=]" if named else r"\s*class\s")
    place = next((number for number, line in enumerate(lines) if field.match(line)), 0)
    return _line(cls.__module__, first + place, cls.__name__)


def place_of_error(frames: TracebackType | None) -> str:
    """Return the last line of a traceback that is not ours, "" if there is none."""
    found = ""
    while frames is not None:
        code = frames.tb_frame.f_code
        if not code.co_filename.startswith(_OTHERS) and "importlib" not in code.co_filename:
            module = frames.tb_frame.f_globals.get("__name__", "")
            found = _line(module, frames.tb_lineno, code.co_name)
        frames = frames.tb_next
    return found


def _line(module: str, number: int, name: str) -> str:
    """Return a line with the file as it is called from the folder that holds the bundle's package."""
    file = module.replace(".", "/")
    loaded = sys.modules.get(module)
    file += "/__init__.py" if hasattr(loaded, "__path__") else ".py"
    return f'  File "{file}", line {number}, in {name}'
