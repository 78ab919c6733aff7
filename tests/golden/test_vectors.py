"""The checked-in vectors are what the code makes, and what it takes back."""

from __future__ import annotations

import json
import math
import re
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from headwater_protocol import codec, messages, values
from headwater_protocol.deltas import apply_delta
from headwater_protocol.errors import ERROR_CODES, RequestError
from headwater_protocol.frames import FrameDecoder
from headwater_protocol.messages import Version

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "protocol" / "vectors"


@pytest.fixture
def maker(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import make_vectors

    return make_vectors


def load(name: str) -> list[dict[str, Any]]:
    vectors: list[dict[str, Any]] = json.loads((VECTORS / name).read_text())
    assert vectors
    return vectors


def message_of(described: Any) -> Any:
    """Build a message from its description, without the code that made it."""
    if isinstance(described, list):
        return tuple(message_of(item) for item in described)
    if not isinstance(described, dict):
        return described
    if "hex" in described:
        return bytes.fromhex(described["hex"])
    named = {name: message_of(item) for name, item in described.items() if name != "type"}
    for version in ("start", "end"):
        if version in named:
            named[version] = Version(*named[version])
    return getattr(messages, described["type"])(**named)


def value_of(described: Any) -> Any:
    match described:
        case {"hex": str(text)}:
            return bytes.fromhex(text)
        case {"int": str(text)}:
            return int(text)
        case {"int64": str(text)}:
            return values.Int64(text)
        case {"float": str(text)}:
            return float(text)
        case {"datetime": str(text)}:
            return datetime.fromisoformat(text)
        case {"dict": list(items)}:
            return {key: value_of(item) for key, item in items}
        case list():
            return [value_of(item) for item in described]
    return described


def test_files_are_what_the_tool_makes(maker: ModuleType) -> None:
    for path, text in maker.files().items():
        assert path.read_text() == text, f"{path}: run tools/make_vectors.py"
    assert {path.name for path in VECTORS.iterdir()} == {
        path.name for path in maker.files() if path.parent == VECTORS
    }


@pytest.mark.parametrize("side", ["client", "server"])
def test_messages(side: str) -> None:
    decode = codec.decode_client_message if side == "client" else codec.decode_server_message
    seen = set()
    for vector in load(f"{side}_messages.json"):
        data = bytes.fromhex(vector["hex"])
        message = message_of(vector["message"])
        assert decode(data) == message, vector["name"]
        assert codec.encode_message(message) == data, vector["name"]
        if isinstance(message, messages.Transition):
            changes = [(change.query, codec.encode_change_body(change.body)) for change in message.changes]
            assert codec.encode_transition(message.start, message.end, changes) == data, vector["name"]
        seen.add(type(message).__name__)
    listed = json.loads((ROOT / "protocol" / "messages.json").read_text())[side]
    assert seen == set(listed), "every message has a vector"


def test_values() -> None:
    for vector in load("values.json"):
        data, value = bytes.fromhex(vector["hex"]), value_of(vector["value"])
        unpacked = values.unpack_value(data)
        values.scan_value(data)
        assert type(unpacked) is type(value), vector["name"]
        assert unpacked == value or (math.isnan(unpacked) and math.isnan(value)), vector["name"]
        assert values.pack_value(value) == data, vector["name"]


def test_deltas() -> None:
    for vector in load("deltas.json"):
        old, new = (values.unpack_value(bytes.fromhex(vector[part])) for part in ("old", "new"))
        assert apply_delta(old, bytes.fromhex(vector["operations"])) == new, vector["name"]


def test_frames() -> None:
    for vector in load("frames.json"):
        assert FrameDecoder(1000).feed(bytes.fromhex(vector["frame"])) == [bytes.fromhex(vector["message"])]


def test_bad_input_has_the_listed_code(maker: ModuleType) -> None:
    for vector in load("bad.json"):
        error = maker.check_bad(vector["kind"], bytes.fromhex(vector["hex"]))
        assert error.code == vector["code"], vector["name"]
        assert ":" in error.message or error.code == "frame_too_large", "names what is wrong"


SPEC = (ROOT / "protocol" / "SPEC.md").read_text()
LISTED = json.loads((ROOT / "protocol" / "messages.json").read_text())
_PART_NAMES = {"ErrorBody": "Error"}


def test_spec_lists_every_error() -> None:
    for entry in ERROR_CODES.values():
        close = entry.close_code or "–"
        row = f"| `{entry.code}` | {entry.message} | {entry.retry.value} | {entry.http_status} | {close} |"
        assert row in SPEC, row
    assert set(re.findall(r"^\| `(\w+)` \| [^|]* \| (?:never|same|after)", SPEC, re.M)) == set(ERROR_CODES)


def differences(spec: str) -> list[str]:
    """Return where the page's messages and parts are not those of the list, which the code made."""
    wrong: list[str] = []
    shown: set[str] = set()
    for name, message in (LISTED["client"] | LISTED["server"] | LISTED["changes"]).items():
        names = "".join(f", {field['name']}" for field in message["fields"])
        head = f"`[{message['number']}{names}]` **{name}**"
        shown.add(head)
        row = spec.partition(head)[2].partition("\n")[0]
        if head not in spec:
            wrong.append(f"no {head}")
        elif name not in LISTED["changes"] and "as above" not in row and "the same" not in row:
            wrong += [f"{name}: {field}" for field in message["fields"] if not says(row, field)]
    written = {
        f"{head} **{name}**" for head, name in re.findall(r"^\| (`\[\d[^`]*`) \*\*(\w+)\*\*", spec, re.M)
    }
    wrong += [f"not in the list: {head}" for head in written - shown]
    for name, part in LISTED["parts"].items():
        names = ", ".join(field["name"] + "†" * field.get("optional", False) for field in part["fields"])
        if f"{_PART_NAMES.get(name, name)} is `[{names}]`" not in spec:
            wrong.append(f"no part {name}: {names}")
    return wrong


def says(row: str, field: dict[str, Any]) -> bool:
    """Tell whether a row gives a field its type, and says that it may be nil or left out."""
    kind = _PART_NAMES.get(field["type"], field["type"])
    name = field["name"]
    if f"Version {name}" in row or re.search(rf"{name} \({kind}\)", row):
        return True
    mark = "†" if field.get("optional") else ""
    found = re.search(rf"\b{name}{mark}(?:, \w+)*: {kind}(.*)", row)
    return found is not None and bool(re.match(r",? or nil", found[1])) == bool(field.get("nil"))


def test_spec_lists_every_message_as_the_code_has_it() -> None:
    assert differences(SPEC) == []


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("`[6, nonce]` **Ping**", "`[10, nonce]` **Ping**"),
        ("[1, versions, session, last_ts", "[1, session, versions, last_ts"),
        ("incarnation: bin or nil, from", "incarnation: bin, from"),
        ("remove: array of uint", "remove: array of text"),
        ("forget_below†: uint", "forget_below: uint"),
        ("journal†, digest†]`", "journal, digest]`"),
        (
            "`[4, request, name, arguments, window, traceparent]` **Action**",
            "`[10, x]` **Other** | no |\n| `[4, request, name, arguments, window, traceparent]` **Action**",
        ),
        ("`[3, error]` **Failed**", "`[3, error, more]` **Failed**"),
    ],
)
def test_a_page_that_differs_is_found(right: str, wrong: str) -> None:
    assert right in SPEC
    assert differences(SPEC.replace(right, wrong))


@pytest.mark.parametrize("vector", load("convex_values.json"), ids=lambda vector: vector["name"])
def test_values_have_the_json_that_convex_clients_take(vector: dict[str, Any]) -> None:
    from headwater_server.convex.values import encoded_value, json_text

    content = bytes.fromhex(vector["hex"])
    if "code" in vector:
        with pytest.raises(RequestError) as misfit:
            json_text(content)
        assert misfit.value.code == vector["code"]
        return
    text = json_text(content).decode()
    assert text == vector["json"]
    assert encoded_value(json.loads(text)).hex() == vector.get("back", vector["hex"])
