"""Forms as browsers send them: `application/x-www-form-urlencoded` and `multipart/form-data`.

Pure. What is no form is refused with RequestError, which a route that does not catch it answers as 400.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from headwater_protocol.errors import RequestError

from headwater.http_fields import Fields, Headers

if TYPE_CHECKING:
    from collections.abc import Mapping

FIELDS_MAX = 1000
_PART_HEAD_BYTES_MAX = 8192
_BOUNDARY = re.compile(r'boundary=(?:"([^"]{1,70})"|([^\s;,"]{1,70}))', re.IGNORECASE)
_PARAMETER = re.compile(r';\s*(name|filename)="((?:[^"\\]|\\.)*)"', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Upload:
    """A file in a form.

    Attributes:
        filename: As the sender calls it; never a path to write to.
        media_type: As the sender says, "" if they do not.
        content: Its bytes.
    """

    filename: str
    media_type: str
    content: bytes


class Form(Fields):
    """The fields of a form.

    Attributes:
        files: Its files by the names of their fields, the first of each name.
    """

    def __init__(self, pairs: list[tuple[str, str]], files: Mapping[str, Upload]) -> None:
        super().__init__(pairs)
        self.files = files


def parse_form(content_type: str, body: bytes) -> Form:
    """Read a form.

    Args:
        content_type: Of the request.
        body: All of it.

    Raises:
        RequestError: It is none, is cut short, or has too many fields.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/x-www-form-urlencoded":
        return Form(_urlencoded(body), {})
    if kind == "multipart/form-data":
        named = _BOUNDARY.search(content_type)
        if named is None:
            raise RequestError("the form's Content-Type names no boundary")
        return _multipart(body, (named[1] or named[2]).encode())
    raise RequestError(
        f"a form is application/x-www-form-urlencoded or multipart/form-data, not {kind[:100]!r}"
    )


def _urlencoded(body: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            body.decode("ascii"), keep_blank_values=True, max_num_fields=FIELDS_MAX, errors="strict"
        )
    except UnicodeDecodeError:
        raise RequestError("the form is not percent-encoded UTF-8") from None
    except ValueError:
        raise RequestError(f"the form has more than {FIELDS_MAX} fields") from None


def _multipart(body: bytes, boundary: bytes) -> Form:
    pieces = (b"\r\n" + body).split(b"\r\n--" + boundary, FIELDS_MAX + 2)
    if len(pieces) > FIELDS_MAX + 2:
        raise RequestError(f"the form has more than {FIELDS_MAX} fields")
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise RequestError("the form is cut short")
    pairs: list[tuple[str, str]] = []
    files: dict[str, Upload] = {}
    for piece in pieces[1:-1]:
        head, parted, content = piece.partition(b"\r\n\r\n")
        if not parted or len(head) > _PART_HEAD_BYTES_MAX:
            raise RequestError("a part of the form has no head of its own")
        headers = _part_headers(head)
        found = {
            name.lower(): re.sub(r"\\(.)", r"\1", value)
            for name, value in _PARAMETER.findall(headers.get("Content-Disposition", ""))
        }
        if "name" not in found:
            raise RequestError("a part of the form has no name")
        if "filename" in found:
            upload = Upload(found["filename"], headers.get("Content-Type", ""), content)
            files.setdefault(found["name"], upload)
        else:
            pairs.append((found["name"], _text(content)))
    return Form(pairs, files)


def _part_headers(head: bytes) -> Headers:
    lines = (line.partition(":") for line in _text(head).split("\r\n") if line.strip())
    return Headers([(name.strip(), value.strip()) for name, _, value in lines])


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise RequestError("the form is not UTF-8") from None
