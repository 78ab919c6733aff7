"""What an exception that ended a call is for its caller: a code, texts that can be encoded and are bounded, a trace."""

from __future__ import annotations

import importlib
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headwater_protocol.errors import ApplicationError, HeadwaterError, InternalError

from headwater.refusals import encodable
from headwater.values import MisfitError, check_any, encode

if TYPE_CHECKING:
    from types import TracebackType

_TRACE_CHARACTERS_MAX = 16_384
_MESSAGE_CHARACTERS_MAX = 16_384
_FOLDER = str(Path(__file__).parent)


@dataclass(frozen=True, slots=True)
class CallFailure:
    """Why a call has no result.

    Attributes:
        code: A code of the error table.
        message: What happened; for `internal_error` not meant for clients in production.
        data: Encoded data of an application error, else None.
        trace: Where in the bundle it happened, "" if that says nothing more.
    """

    code: str
    message: str
    data: bytes | None = None
    trace: str = ""


def failure_of(error: BaseException) -> CallFailure:
    """Return what an exception that ended a call means for its caller: texts that can be encoded and are bounded."""
    trace = trace_of(error)
    if isinstance(error, ApplicationError):
        try:
            check_any(error.data)
            return CallFailure(error.code, bounded(error.message), encode(error.data))
        except (MisfitError, TypeError, ValueError, OverflowError, RecursionError) as unfit:
            message = bounded(f"the data of an ApplicationError: {unfit}")
            return CallFailure(InternalError.code, message, None, trace)
    if isinstance(error, HeadwaterError):
        return CallFailure(error.code, bounded(error.message), None, trace)
    return CallFailure(InternalError.code, bounded(said(error)), None, trace)


def said(error: BaseException) -> str:
    """Return type and text of an exception, which user code may have defined."""
    try:
        return f"{type(error).__name__}: {error}"
    except MemoryError:
        raise
    except Exception:
        return f"{type(error).__name__}, whose text cannot be had"


def bounded(message: str) -> str:
    """Return a text that can be encoded, cut where it is very long."""
    cut = message if len(message) <= _MESSAGE_CHARACTERS_MAX else message[:_MESSAGE_CHARACTERS_MAX] + "…"
    return encodable(cut)


def trace_of(error: BaseException) -> str:
    """Return the traceback from the first line of the bundle on, "" if it never got there."""
    start = _first_foreign(error.__traceback__)
    if start is None:
        return ""
    text = "".join(traceback.format_exception(type(error), error, start))
    return encodable(text if len(text) <= _TRACE_CHARACTERS_MAX else "…" + text[-_TRACE_CHARACTERS_MAX:])


def _first_foreign(frames: TracebackType | None) -> TracebackType | None:
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(
        (_FOLDER, "<frozen importlib", importlib.__file__)
    ):
        frames = frames.tb_next
    return frames
