"""Reads bodies of OTLP requests in JSON, a line each, with OpenTelemetry's own messages, and prints their spans.

Runs with a Python of its own that has them. What those do not know, or what is of another type, is an error. Ids are
hex in OTLP's JSON and base64 in that of protobuf; all else is the same.
"""

from __future__ import annotations

import base64
import json
import sys
from typing import Any

from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

ID_BYTES = {"traceId": 16, "spanId": 8, "parentSpanId": 8}


def in_base64(value: Any) -> Any:
    if isinstance(value, list):
        return [in_base64(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {}
    for key, item in value.items():
        if key in ID_BYTES:
            raw = bytes.fromhex(item)
            assert item == item.lower(), item
            assert len(raw) == ID_BYTES[key], item
            assert any(raw), item
            found[key] = base64.b64encode(raw).decode()
        else:
            found[key] = in_base64(item)
    return found


def plain(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))


def attributes(found: Any) -> dict[str, Any]:
    return {item.key: plain(item.value) for item in found}


def told(resource: Any, scope: Any, span: Any) -> dict[str, Any]:
    return {
        "resource": attributes(resource.attributes),
        "scope": [scope.name, scope.version],
        "trace": span.trace_id.hex(),
        "span": span.span_id.hex(),
        "parent": span.parent_span_id.hex(),
        "name": span.name,
        "kind": span.kind,
        "start": span.start_time_unix_nano,
        "end": span.end_time_unix_nano,
        "attributes": attributes(span.attributes),
        "error": span.status.message if span.status.code == 2 else "",
        "links": [[link.trace_id.hex(), link.span_id.hex()] for link in span.links],
        "sampled": bool(span.flags & 1),
    }


def main() -> None:
    for line in sys.stdin:
        request = ParseDict(in_base64(json.loads(line)), ExportTraceServiceRequest())
        request = ExportTraceServiceRequest.FromString(request.SerializeToString())
        spans = [
            told(of.resource, within.scope, span)
            for of in request.resource_spans
            for within in of.scope_spans
            for span in within.spans
        ]
        print(json.dumps(spans), flush=True)


if __name__ == "__main__":
    main()
