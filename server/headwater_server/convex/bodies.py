"""What became of queries, as JSON: made once of each change and then shared by all clients that get it.

Pure. Bounded in bytes; what has gone is made again.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import msgspec
import orjson
from headwater_protocol.errors import LocalProtocolError, RequestError
from headwater_protocol.messages import ErrorBody, Failed, Removed, Value

from headwater_server.convex.failures import told
from headwater_server.convex.messages import REMOVED, updated_text
from headwater_server.convex.values import json_text

_ENTRY_BYTES = 300
_decode = msgspec.msgpack.Decoder(list[Any]).decode


class JsonBodies:
    """JSON of encoded change bodies, the most recently used ones.

    Args:
        held_bytes_max: Bytes of both that are held.
    """

    def __init__(self, held_bytes_max: int) -> None:
        self._held_bytes_max = held_bytes_max
        self._texts: OrderedDict[bytes, bytes] = OrderedDict()
        self.held_bytes = 0

    def text(self, body: bytes) -> bytes:
        """Return the JSON object of a change body, all of it but the query's number."""
        text = self._texts.get(body)
        if text is not None:
            self._texts.move_to_end(body)
            return text
        text = self._texts[body] = _text_of(body)
        self.held_bytes += len(body) + len(text) + _ENTRY_BYTES
        while self.held_bytes > self._held_bytes_max and len(self._texts) > 1:
            old_body, old_text = self._texts.popitem(last=False)
            self.held_bytes -= len(old_body) + len(old_text) + _ENTRY_BYTES
        return text


def _text_of(body: bytes) -> bytes:
    match _decode(body):
        case [Value.KIND, bytes() as content, _, (bytes() | None) as journal]:
            try:
                return updated_text(json_text(content), journal)
            except RequestError as misfit:
                return _failed_text(ErrorBody(misfit.code, misfit.message))
        case [Failed.KIND, [code, message, data]]:
            return _failed_text(ErrorBody(code, message, data))
        case [Removed.KIND]:
            return REMOVED
    raise LocalProtocolError("a delta for a client that takes whole results")


def _failed_text(error: ErrorBody) -> bytes:
    failure = told(error)
    fields: dict[str, Any] = {
        "type": "QueryFailed",
        "errorMessage": failure.message,
        "logLines": [],
        "journal": None,
    }
    text = orjson.dumps(fields)
    return text if failure.data is None else text[:-1] + b',"errorData":' + failure.data + b"}"
