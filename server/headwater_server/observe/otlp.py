"""Spans as OTLP has them in JSON. Pure.

Ids are in hex and 64-bit integers are text, as the specification of OTLP says, which differs there from the usual
JSON of protobuf.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from headwater_server.observe.traces import Attribute, Span, SpanContext

_STATUS_ERROR = 2
_SAMPLED = 1


def encode_spans(spans: Iterable[Span], resource: Mapping[str, Attribute], version: str) -> bytes:
    """Return the body of a request that exports spans.

    Args:
        spans: Which have ended.
        resource: Attributes of who made them.
        version: Of Headwater.
    """
    scope = {"name": "headwater", "version": version}
    return orjson.dumps(
        {
            "resourceSpans": [
                {
                    "resource": {"attributes": _attributes(resource)},
                    "scopeSpans": [{"scope": scope, "spans": [_span(span) for span in spans]}],
                }
            ]
        }
    )


def _span(span: Span) -> dict[str, Any]:
    told: dict[str, Any] = {
        **_ids(span.context),
        "name": span.name,
        "kind": int(span.kind),
        "startTimeUnixNano": str(span.start_ns),
        "endTimeUnixNano": str(span.end_ns),
        "attributes": _attributes(span.attributes),
        "flags": _SAMPLED,
    }
    if span.parent:
        told["parentSpanId"] = span.parent.hex()
    if span.links:
        told["links"] = _links(span.links)
    if span.error:
        told["attributes"].append({"key": "error.type", "value": {"stringValue": span.error}})
        told["status"] = {"code": _STATUS_ERROR, "message": span.error}
    return told


def _ids(context: SpanContext) -> dict[str, str]:
    return {"traceId": context.trace_id.hex(), "spanId": context.span_id.hex()}


def _links(links: Sequence[SpanContext]) -> list[dict[str, Any]]:
    return [{**_ids(context), "flags": _SAMPLED} for context in links]


def _attributes(attributes: Mapping[str, Attribute]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in attributes.items()]


def _value(value: Attribute) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    return {"stringValue": value}
