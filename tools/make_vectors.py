"""Write `protocol/messages.json`, `protocol/vectors/` and SPEC.md's table of errors.

    python tools/make_vectors.py           writes them
    python tools/make_vectors.py --check   says whether they are what the code makes

Deterministic. In the files bytes are `{"hex": …}`, and of values what JSON cannot say is
`{"float": …}`, `{"int": …}`, `{"int64": …}`, `{"datetime": …}`.
"""

from __future__ import annotations

import json
import sys
from dataclasses import MISSING, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from headwater_protocol import codec, deltas, messages, values
from headwater_protocol.errors import ERROR_CODES, ProtocolError, RequestError
from headwater_protocol.frames import FrameDecoder, frame
from headwater_protocol.limits import CONNECT_FRAME_BYTES
from headwater_server.convex.values import encoded_value, json_text
from vector_samples import BAD, CLIENT, DELTAS, ROWS, SERVER, VALUES

PROTOCOL = Path(__file__).parents[1] / "protocol"


def check_bad(kind: str, data: bytes) -> ProtocolError:
    """Return the error that bad input of a kind meets; deltas are applied to `ROWS`."""
    take: dict[str, Any] = {
        "client": codec.decode_client_message,
        "server": codec.decode_server_message,
        "value": values.unpack_value,
        "delta": lambda operations: deltas.apply_delta(ROWS, operations),
        "frame": FrameDecoder(CONNECT_FRAME_BYTES).feed,
    }
    try:
        take[kind](data)
    except ProtocolError as error:
        return error
    raise AssertionError(f"{kind} {data.hex()} was taken")


def described(item: Any) -> Any:
    """Return a message, or a part of one, as JSON can hold it."""
    if isinstance(item, bytes):
        return {"hex": item.hex()}
    if isinstance(item, tuple):
        return [described(part) for part in item]
    if hasattr(item, "__dataclass_fields__"):
        named = {field.name: described(getattr(item, field.name)) for field in fields(item)}
        return {"type": type(item).__name__, **named}
    return item


def described_value(value: Any) -> Any:
    """Return a value as JSON can hold it without loss."""
    match value:
        case bytes():
            return {"hex": value.hex()}
        case values.Int64():
            return {"int64": str(int(value))}
        case int() if not isinstance(value, bool) and abs(value) > 2**53:
            return {"int": str(value)}
        case float():
            return {"float": repr(value)}
        case datetime():
            return {"datetime": value.astimezone(UTC).isoformat(timespec="microseconds")}
        case list():
            return [described_value(item) for item in value]
        case dict():
            return {"dict": [[key, described_value(item)] for key, item in value.items()]}
    return value


def message_list() -> dict[str, Any]:
    """Return every message and part of one, with its fields in wire order."""

    def rows(cls: type) -> list[dict[str, Any]]:
        if cls is messages.Version:
            return [_row(name, "int") for name in messages.Version._fields]
        return [
            _row(field.name, str(field.type), optional=field.default is not MISSING) for field in fields(cls)
        ]

    def union(members: Any, number: str) -> dict[str, Any]:
        return {
            cls.__name__: {"number": getattr(cls, number), "fields": rows(cls)} for cls in get_args(members)
        }

    parts = (messages.Version, messages.ErrorBody, messages.AddQuery, messages.Change)
    return {
        "client": union(messages.ClientMessage, "TAG"),
        "server": union(messages.ServerMessage, "TAG"),
        "changes": union(messages.ChangeBody, "KIND"),
        "parts": {cls.__name__: {"fields": rows(cls)} for cls in parts},
    }


def _row(name: str, annotation: str, *, optional: bool = False) -> dict[str, Any]:
    """Return one field: its type in msgpack's words, whether nil may stand for it, whether it may be left out."""
    kind = annotation.removesuffix(" | None")
    is_list = kind.startswith("tuple[")
    kind = kind.removeprefix("tuple[").removesuffix(", ...]")
    kind = {"int": "uint", "str": "text", "bytes": "bin"}.get(kind, kind)
    row: dict[str, Any] = {"name": name, "type": f"array of {kind}" if is_list else kind}
    if annotation.endswith(" | None"):
        row["nil"] = True
    if optional:
        row["optional"] = True
    return row


def spec_with_errors(spec: str) -> str:
    """Return SPEC.md with the table of errors as the code has it."""
    head = "| code | message | retry | HTTP | close |\n| --- | --- | --- | --- | --- |\n"
    before, rest = spec.split(head)
    rows = "".join(
        f"| `{row.code}` | {row.message} | {row.retry.value} | {row.http_status} | {row.close_code or '–'} |\n"
        for row in ERROR_CODES.values()
    )
    return before + head + rows + rest[rest.index("\n## ") :]


def _message_vectors(named: dict[str, Any]) -> list[Any]:
    return [
        {"name": name, "hex": codec.encode_message(message).hex(), "message": described(message)}
        for name, message in named.items()
    ]


def _convex_vector(name: str, value: Any) -> dict[str, Any]:
    """Return a value as Convex's clients are sent it, and what becomes of it when they send it back."""
    content = values.pack_value(value)
    try:
        text = json_text(content)
    except RequestError as misfit:
        return {"name": name, "hex": content.hex(), "code": misfit.code}
    back = encoded_value(json.loads(text))
    same = {} if back == content else {"back": back.hex()}
    return {"name": name, "hex": content.hex(), "json": text.decode(), **same}


def _delta_vector(name: str, old: Any, operations: Any) -> dict[str, Any]:
    new = deltas.apply_delta(old, values.pack_value(operations))
    packed = {part: values.pack_value(value).hex() for part, value in (("old", old), ("new", new))}
    return {"name": name, "operations": values.pack_value(operations).hex(), **packed}


def files() -> dict[Path, str]:
    """Return every file with its text."""
    contents: dict[str, Any] = {
        "messages.json": message_list(),
        "vectors/client_messages.json": _message_vectors(CLIENT),
        "vectors/server_messages.json": _message_vectors(SERVER),
        "vectors/values.json": [
            {"name": name, "hex": values.pack_value(value).hex(), "value": described_value(value)}
            for name, value in VALUES.items()
        ],
        "vectors/convex_values.json": list(map(_convex_vector, VALUES, VALUES.values())),
        "vectors/deltas.json": [_delta_vector(name, *pair) for name, pair in DELTAS.items()],
        "vectors/bad.json": [
            {"name": name, "kind": kind, "hex": data.hex(), "code": check_bad(kind, data).code}
            for name, (kind, data) in BAD.items()
        ],
        "vectors/frames.json": [
            {"name": name, "message": data.hex(), "frame": frame(data).hex()}
            for name, data in {"short": b"\x92\x06\x01", "empty": b"", "longer": bytes(300)}.items()
        ],
    }
    made = {PROTOCOL / name: json.dumps(data, indent=1) + "\n" for name, data in contents.items()}
    return {**made, PROTOCOL / "SPEC.md": spec_with_errors((PROTOCOL / "SPEC.md").read_text())}


def main() -> int:
    """Write the files, or compare them."""
    stale = [path for path, text in files().items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(f"{path} is not what tools/make_vectors.py makes", file=sys.stderr)
        return bool(stale)
    for path in stale:
        path.parent.mkdir(exist_ok=True)
        path.write_text(files()[path])
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
