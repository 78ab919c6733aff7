"""Errors of the authoring API, said the same way everywhere.

Pure.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from headwater_protocol.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterable

_LIKENESS = 0.7  # below this a suggestion rather confuses


def invalid_bundle(message: str) -> RequestError:
    """Return the error of a bundle that cannot be used."""
    return RequestError(message, code="invalid_bundle")


def invalid_document(message: str) -> RequestError:
    """Return the error of a document that does not fit its table."""
    return RequestError(message, code="invalid_document")


def encodable(text: str) -> str:
    """Return a text of unknown origin so that it can cross the wire: lone surrogates, which UTF-8 lacks, escaped.

    They are no rarity: Python itself makes them, of file names that are no UTF-8.
    """
    return text.encode("utf-8", "backslashreplace").decode()


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean ...?" if a known name resembles `name`, else ""."""
    found = get_close_matches(name, list(known), n=1, cutoff=_LIKENESS)
    return f"; did you mean `{found[0]}`?" if found else ""
