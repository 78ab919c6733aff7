"""Each kind of bad input gets one clear error that names the thing; the daemon goes on and nothing is half done."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import os
import socket
import struct
import zipfile
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from headwater.client.aio import connect
from headwater.client.transport import TransportClosedError, open_transport, parse_address
from headwater_protocol.codec import decode_server_message, encode_message
from headwater_protocol.errors import HeadwaterError, ProtocolError
from headwater_protocol.limits import VALUE_DEPTH_MAX
from headwater_protocol.messages import (
    AddQuery,
    Connect,
    FatalError,
    ModifyQuerySet,
    Mutation,
    MutationAnswer,
    Transition,
    Welcome,
)
from headwater_protocol.values import pack_value
from support.daemon import RunningDaemon, run_server, running, serve_command, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from headwater.client.transport import Transport

FRAME_LIMIT_BYTES = 256 * 1024
CONNECT_LIMIT_BYTES = 64 * 1024
WAIT_S = 15.0
USER_FAULTS = {"call_failed"}
TRANSPORTS = ["tcp", "websocket"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    folder = tmp_path_factory.mktemp("bad-input")
    with running(folder, "--frame-limit-bytes", str(FRAME_LIMIT_BYTES), deploy="probe") as daemon:
        yield daemon


@pytest.fixture
def daemon(served: RunningDaemon) -> Iterator[RunningDaemon]:
    """The daemon, which must be as good after each test as before it, and hold the same."""
    pid = served.process.pid if served.process else 0
    before = served.call("query", "probe:notes")
    yield served
    assert served.is_ready()
    assert served.process is not None
    assert served.process.pid == pid
    assert served.process.poll() is None
    assert served.call("query", "probe:notes") == before, "something was half done"
    assert served.call("query", "probe:typed", number=1, name="x") == [1, "x", 1.5]
    faults = [line for line in served.log_text().splitlines() if not is_ordinary(line)]
    assert not faults, "the daemon had an error of its own"


def is_ordinary(line: str) -> bool:
    """Tell whether a log line is one of the house, and no error but one of user code."""
    if not line.startswith("{"):
        return False
    fields = json.loads(line)
    return fields["level"] in ("debug", "info", "warning") or fields["event"] in USER_FAULTS


def url_of(daemon: RunningDaemon, transport: str) -> str:
    return daemon.tcp_url if transport == "tcp" else daemon.url


# ---------------------------------------------------------------------------------------------- calls

BAD_CALLS: list[tuple[str, str, dict[str, Any], str, list[str]]] = [
    ("query", "probe:nothing", {}, "unknown_function", ["probe:nothing"]),
    ("mutation", "nowhere:at_all", {}, "unknown_function", ["nowhere:at_all"]),
    ("query", "", {}, "unknown_function", ["''"]),
    ("mutation", "probe:notes", {}, "unknown_function", ["probe:notes", "query"]),
    ("query", "probe:keep", {"text": "x"}, "unknown_function", ["probe:keep", "mutation"]),
    ("query", "probe:hidden", {}, "unknown_function", ["probe:hidden"]),
    ("query", "probe:typed", {"number": "1", "name": "x"}, "invalid_arguments", ["number", "int", "str"]),
    ("query", "probe:typed", {"number": 1.5, "name": "x"}, "invalid_arguments", ["number", "int", "float"]),
    ("query", "probe:typed", {"number": True, "name": "x"}, "invalid_arguments", ["number", "int", "bool"]),
    ("query", "probe:typed", {"number": 1}, "invalid_arguments", ["name", "missing"]),
    ("query", "probe:typed", {"number": 1, "name": None}, "invalid_arguments", ["name", "str"]),
    ("query", "probe:typed", {"number": 1, "name": "x", "numbr": 2}, "invalid_arguments", ["numbr"]),
    ("mutation", "probe:keep", {"text": 5}, "invalid_arguments", ["text", "str", "int"]),
    ("query", "probe:find", {"note": "no id at all"}, "invalid_arguments", ["note"]),
    ("query", "probe:find", {"note": "0" * 33}, "invalid_arguments", ["note"]),
    ("mutation", "probe:misfit", {"stars": "many"}, "invalid_document", ["notes", "stars", "int", "str"]),
    ("mutation", "probe:refuse", {"text": "because"}, "application_error", []),
    (
        "mutation",
        "probe:stumble",
        {"text": "a stone"},
        "internal_error",
        ["stumbled over a stone", "request id"],
    ),
    ("mutation", "probe:open_file", {"path": "/tmp/never"}, "not_allowed_here", ["action"]),
]


@pytest.mark.parametrize(("kind", "name", "arguments", "code", "words"), BAD_CALLS)
async def test_a_wrong_call(
    daemon: RunningDaemon, kind: str, name: str, arguments: dict[str, Any], code: str, words: list[str]
) -> None:
    async with asyncio.timeout(WAIT_S):
        if name:
            async with connect(daemon.url) as client:
                with pytest.raises(HeadwaterError) as raised:
                    await (client.query if kind == "query" else client.mutation)(name, **arguments)
                check_error(raised.value.code, raised.value.message, code, words)
                assert await client.query("probe:typed", number=2, name="y") == [2, "y", 1.5]
        body = {"path": name, "args": arguments, "format": "json"}
        answer = await asyncio.to_thread(daemon.post, f"/api/{kind}", body)
    if name:
        assert answer.status == 200
        fields = answer.json
        assert fields["status"] == "error"
        check_error(fields["errorCode"], fields["errorMessage"], code, words)
    else:
        assert answer.status == 400
        check_error(answer.json["code"], answer.json["message"], "invalid_request", ["path"])


def check_error(code: str, message: str, expected: str, words: list[str]) -> None:
    assert code == expected, f"{code}: {message}"
    assert all(word in message for word in words), f"{message!r} does not name all of {words}"


async def test_a_unique_value_twice_and_a_document_that_is_gone(daemon: RunningDaemon) -> None:
    async with asyncio.timeout(WAIT_S), connect(daemon.url) as client:
        await client.mutation("probe:tag", name="once")
        with pytest.raises(HeadwaterError) as twice:
            await client.mutation("probe:tag", name="once")
        check_error(twice.value.code, twice.value.message, "unique_violation", ["tags", "by_name"])
        note = await client.mutation("probe:keep", text="gone soon")
        await client.mutation("probe:drop", note=note)
        with pytest.raises(HeadwaterError) as gone:
            await client.mutation("probe:drop", note=note)
        check_error(gone.value.code, gone.value.message, "document_not_found", [note])


# ---------------------------------------------------------------------------------------------- frames

SESSION = bytes(range(16))
GREETING = Connect((1,), SESSION, 0, None, "test")


def array32(count: int, *items: bytes) -> bytes:
    return b"\xdd" + struct.pack(">I", count) + b"".join(items)


BAD_FIRST_FRAMES: dict[str, tuple[bytes, str, list[str]]] = {
    "empty": (b"", "protocol_error", []),
    "no msgpack": (b"\xc1\xc1\xc1\xc1", "protocol_error", ["array"]),
    "http": (b"GET / HTTP/1.1\r\n\r\n", "protocol_error", ["array"]),
    "a map": (b"\x81\xa1a\x01", "protocol_error", ["array"]),
    "no message": (b"\x90", "protocol_error", ["number"]),
    "unknown message": (b"\x91\x7f", "protocol_error", ["127"]),
    "server message": (b"\x92\x26\xc0", "protocol_error", ["38"]),
    "cut off": (encode_message(GREETING)[:-3], "protocol_error", ["Connect"]),
    "something behind": (encode_message(GREETING) + b"\x00", "protocol_error", ["Connect", "1 bytes"]),
    "lying array": (array32(2**32 - 1, b"\x01"), "protocol_error", []),
    "lying list": (b"\x96\x01" + array32(2**32 - 1, b"\x01"), "protocol_error", ["Connect.versions"]),
    "lying bytes": (b"\x96\x01\x91\x01\xc6\xff\xff\xff\xff" + SESSION, "protocol_error", ["Connect.session"]),
    "lying text": (
        b"\x96\x01\x91\x01\xc4\x10" + SESSION + b"\x00\xc0\xdb\x7f\xff\xff\xffab",
        "protocol_error",
        ["client"],
    ),
    "deep": (b"\x91" * 60_000 + b"\xc0", "protocol_error", []),
    "deep behind": (
        b"\x97" + encode_message(GREETING)[1:] + b"\x91" * 60_000 + b"\xc0",
        "protocol_error",
        ["behind the known fields"],
    ),
    "wrong type": (b"\x96\x01\xa1x" + encode_message(GREETING)[3:], "protocol_error", ["Connect.versions"]),
    "short session": (
        encode_message(Connect((1,), b"short", 0, None, "test")),
        "protocol_error",
        ["Connect.session", "16 bytes", "got 5"],
    ),
    "not connect first": (encode_message(Mutation(1, "probe:keep", b"\x80")), "protocol_error", ["Connect"]),
    "future version": (
        encode_message(Connect((2, 99), SESSION, 0, None, "test")),
        "unsupported_version",
        ["2, 99", "speaks", "1"],
    ),
    "no version": (encode_message(Connect((), SESSION, 0, None, "test")), "unsupported_version", ["none"]),
    "oversized": (b"\x00" * (CONNECT_LIMIT_BYTES + 1), "frame_too_large", ["65537", "65536"]),
    "very oversized": (b"\x00" * (FRAME_LIMIT_BYTES - 1), "frame_too_large", ["65536"]),
}


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("case", BAD_FIRST_FRAMES)
async def test_a_bad_first_frame(daemon: RunningDaemon, transport: str, case: str) -> None:
    data, code, words = BAD_FIRST_FRAMES[case]
    async with asyncio.timeout(WAIT_S):
        async with opened(url_of(daemon, transport)) as wire:
            await wire.send(data)
            await expect_end(wire, code, words)


BAD_LATER_FRAMES: dict[str, tuple[bytes, str, list[str]]] = {
    "no msgpack": (b"\xff\xfe", "protocol_error", ["array"]),
    "connect again": (encode_message(GREETING), "protocol_error", ["Connect", "once"]),
    "request goes back": (
        encode_message(Mutation(5, "probe:echo", b"\x80")),
        "protocol_error",
        ["Mutation.request"],
    ),
    "query set from elsewhere": (
        encode_message(ModifyQuerySet(7, 8, (), ())),
        "protocol_error",
        ["ModifyQuerySet.base", "expected 0", "got 7"],
    ),
    "remove of nothing": (
        encode_message(ModifyQuerySet(0, 1, (), (3,))),
        "protocol_error",
        ["ModifyQuerySet.remove", "3"],
    ),
    "lying bytes": (b"\x94\x03\x06\xa1x\xc6\x7f\xff\xff\xffab", "protocol_error", ["Mutation.arguments"]),
    "text that is none": (
        b"\x94\x03\x06\xa2\xff\xff\xc4\x01\x80",
        "protocol_error",
        ["Mutation.name", "UTF-8"],
    ),
    "negative number": (b"\x94\x03\xff\xa1x\xc4\x01\x80", "protocol_error", ["Mutation.request", "-1"]),
    "oversized": (b"\x00" * (FRAME_LIMIT_BYTES + 1), "frame_too_large", [str(FRAME_LIMIT_BYTES)]),
}


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("case", BAD_LATER_FRAMES)
async def test_a_bad_later_frame(daemon: RunningDaemon, transport: str, case: str) -> None:
    data, code, words = BAD_LATER_FRAMES[case]
    async with asyncio.timeout(WAIT_S):
        async with greeted(url_of(daemon, transport)) as wire:
            await wire.send(encode_message(Mutation(5, "probe:nothing", b"\x80")))
            await answer_to(wire, 5)
            await wire.send(data)
            await expect_end(wire, code, words)


BAD_ARGUMENTS: dict[str, tuple[bytes, list[str]]] = {
    "deep": (b"\x81\xa5value" + b"\x91" * 100_000 + b"\xc0", ["inside one another"]),
    "one too deep": (b"\x81\xa5value" + b"\x91" * VALUE_DEPTH_MAX + b"\xc0", ["inside one another"]),
    "deep maps": (b"\x81\xa5value" + b"\x81\xa1a" * 50_000 + b"\xc0", ["inside one another"]),
    "lying array": (b"\x81\xa5value\xdd\xff\xff\xff\xff", []),
    "lying text": (b"\x81\xa5value\xdb\xff\xff\xff\xffab", []),
    "no map": (b"\x93\x01\x02\x03", []),
    "nothing": (b"", []),
    "no msgpack": (b"\xc1", []),
    "something behind": (b"\x81\xa5value\x01\x01", []),
    "key that is no text": (b"\x81\x05\x01", []),
}


@pytest.mark.parametrize("kind", ["query", "mutation"])
@pytest.mark.parametrize("case", BAD_ARGUMENTS)
async def test_arguments_that_are_none(daemon: RunningDaemon, kind: str, case: str) -> None:
    """They are routed unread and refused where they are needed; the connection goes on."""
    data, words = BAD_ARGUMENTS[case]
    async with asyncio.timeout(WAIT_S), greeted(daemon.tcp_url) as wire:
        if kind == "mutation":
            await wire.send(encode_message(Mutation(1, "probe:keep_any", data)))
            error = (await answer_to(wire, 1)).error
        else:
            query = AddQuery(1, "probe:echo", data)
            await wire.send(encode_message(ModifyQuerySet(0, 1, (query,), ())))
            error = (await change_of(wire, 1)).error
        assert error is not None
        check_error(error.code, error.message, "invalid_arguments", words)
        await wire.send(encode_message(Mutation(2, "probe:tag", pack_value({"name": f"{case} {kind}"}))))
        assert (await answer_to(wire, 2)).error is None


async def test_a_result_nested_too_deep(daemon: RunningDaemon) -> None:
    async with asyncio.timeout(WAIT_S), connect(daemon.url) as client:
        deepest = await client.query("probe:nested", depth=VALUE_DEPTH_MAX)
        assert repr(deepest).count("[") == VALUE_DEPTH_MAX
        for depth in (VALUE_DEPTH_MAX + 1, 300, 5_000):
            with pytest.raises(HeadwaterError) as raised:
                await client.query("probe:nested", depth=depth)
            check_error(raised.value.code, raised.value.message, "invalid_result", ["inside one another"])


async def test_a_text_frame(daemon: RunningDaemon) -> None:
    async with (
        asyncio.timeout(WAIT_S),
        aiohttp.ClientSession() as http,
        http.ws_connect(f"{daemon.url}/sync") as wire,
    ):
        await wire.send_str('{"type": "Connect"}')
        fatal = decode_server_message(await wire.receive_bytes())
        assert isinstance(fatal, FatalError)
        check_error(fatal.error.code, fatal.error.message, "protocol_error", ["binary", "text"])
        assert (await wire.receive()).type is aiohttp.WSMsgType.CLOSE
        assert wire.close_code == 1002


async def test_a_length_that_lies_before_any_of_it_comes(daemon: RunningDaemon) -> None:
    """The prefix alone is enough: nothing is kept or waited for."""

    def send_prefix() -> bytes:
        with socket.create_connection(("127.0.0.1", daemon.tcp_port), timeout=WAIT_S) as wire:
            wire.sendall(struct.pack(">I", 2**32 - 1))
            received = b""
            while data := wire.recv(4096):
                received += data
            return received

    received = await asyncio.to_thread(send_prefix)
    fatal = decode_server_message(received[4:])
    assert isinstance(fatal, FatalError)
    check_error(fatal.error.code, fatal.error.message, "frame_too_large", ["4294967295", "65536"])


async def test_plain_http_at_the_websocket(daemon: RunningDaemon) -> None:
    assert (await asyncio.to_thread(daemon.get, "/sync")).status == 426


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[Transport]:
    wire = await open_transport(parse_address(url), frame_limit_bytes=1 << 24)
    try:
        yield wire
    finally:
        await wire.close()


@contextlib.asynccontextmanager
async def greeted(url: str) -> AsyncIterator[Transport]:
    async with opened(url) as wire:
        await wire.send(encode_message(Connect((1,), os.urandom(16), 0, None, "test")))
        welcome = decode_server_message(await wire.receive())
        assert isinstance(welcome, Welcome)
        assert welcome.frame_limit_bytes == FRAME_LIMIT_BYTES
        yield wire


async def answer_to(wire: Transport, request: int) -> MutationAnswer:
    while True:
        message = decode_server_message(await wire.receive())
        if isinstance(message, MutationAnswer):
            assert message.request == request
            return message


async def change_of(wire: Transport, query: int) -> Any:
    while True:
        message = decode_server_message(await wire.receive())
        if isinstance(message, Transition) and message.changes:
            assert [change.query for change in message.changes] == [query]
            return message.changes[0].body


async def expect_end(wire: Transport, code: str, words: list[str]) -> None:
    """Read to the end of a connection: its last message says why."""
    last: FatalError | None = None
    reason = ""
    try:
        while True:
            message = decode_server_message(await wire.receive())
            last = message if isinstance(message, FatalError) else None
    except TransportClosedError as closed:
        reason = closed.reason
    except ProtocolError as error:
        raise AssertionError(f"the server sent what is no message: {error}") from None
    if last is None:  # a WebSocket frame above the library's own limit: only the close frame can say it
        assert (code, "1009" in reason) == ("frame_too_large", True), f"ended without a word: {reason}"
        return
    check_error(last.error.code, last.error.message, code, words)


# ---------------------------------------------------------------------------------------------- bundles

SCHEMA = "from headwater import Id, Index, Table\n\n\nclass Note(Table, name='notes'):\n    text: str\n    stars: int = 0\n"
CALLS = "from headwater import Id, MutationCtx, QueryCtx, mutation, query\n\nfrom .schema import *\n\n\n"


def zipped(files: dict[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def linked() -> bytes:
    entry = zipfile.ZipInfo("functions/schema.py")
    entry.create_system, entry.external_attr = 3, 0o120777 << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("functions/__init__.py", "")
        archive.writestr(entry, "/etc/passwd")
    return buffer.getvalue()


def package(schema: str = SCHEMA, calls: str = "") -> bytes:
    files = {"functions/__init__.py": "", "functions/schema.py": schema, "functions/calls.py": CALLS + calls}
    return zipped(files)  # type: ignore[arg-type]


BAD_BUNDLES: dict[str, tuple[bytes, list[str]]] = {
    "empty": (b"", ["zip"]),
    "no zip": (b"this is no zip", ["zip"]),
    "cut zip": (package()[:-40], ["zip"]),
    "nothing in it": (zipped({}), ["package"]),
    "path traversal": (
        zipped({"functions/__init__.py": "", "functions/../../evil.py": "x"}),
        ["../../evil.py"],
    ),
    "absolute path": (zipped({"functions/__init__.py": "", "/etc/evil.py": "x"}), ["/etc/evil.py"]),
    "link": (linked(), ["functions/schema.py", "plain file"]),
    "two packages": (zipped({"one/__init__.py": "", "two/__init__.py": ""}), ["one", "two"]),
    "standard library": (zipped({"json/__init__.py": ""}), ["json"]),
    "our own name": (zipped({"headwater/__init__.py": ""}), ["headwater"]),
    "a file beside": (zipped({"functions/__init__.py": "", "other.py": ""}), ["other.py"]),
    "requirements": (zipped({"functions/__init__.py": "", "requirements.txt": "-e .\n"}), ["-e ."]),
    "unknown module": (package(calls="import no_such_module\n"), ["no_such_module", "calls.py"]),
    "syntax": (package(calls="def broken(:\n"), ["SyntaxError", "calls.py"]),
    "raises": (package(calls="raise RuntimeError('on purpose')\n"), ["on purpose", "calls.py"]),
    "exits": (package(calls="raise SystemExit(3)\n"), ["SystemExit"]),
    "unknown table": (
        package(calls="@query\ndef find(ctx: QueryCtx, note: Id['Nowhere']) -> None:\n    return None\n"),
        ["Nowhere"],
    ),
    "unknown field in an index": (
        package(SCHEMA + "    by_y = Index('y')\n"),
        ["by_y", "'y'", "text", "stars"],
    ),
    "unknown index": (
        package(calls="@query\ndef find(ctx: QueryCtx) -> None:\n    return None\n\n\nNote.by_colour\n"),
        ["by_colour"],
    ),
    "two tables of one name": (
        package(SCHEMA + "\n\nclass Other(Table, name='notes'):\n    x: int\n"),
        ["notes"],
    ),
    "no annotation": (
        package(calls="@query\ndef find(ctx: QueryCtx, x) -> None:\n    return None\n"),
        ["find", "x"],
    ),
    "no return": (package(calls="@query\ndef find(ctx: QueryCtx):\n    return None\n"), ["find", "return"]),
    "async query": (
        package(calls="@query\nasync def find(ctx: QueryCtx) -> None:\n    return None\n"),
        ["find", "async"],
    ),
    "builtin name": (package(calls="@query\ndef list(ctx: QueryCtx) -> None:\n    return None\n"), ["list"]),
    "type without a form": (
        package(calls="@query\ndef find(ctx: QueryCtx, x: complex) -> None:\n    return None\n"),
        ["find", "complex"],
    ),
    "dies while it is imported": (package(calls="import os\nos._exit(7)\n"), []),
}


@pytest.mark.parametrize("case", BAD_BUNDLES)
def test_a_bad_bundle(daemon: RunningDaemon, case: str) -> None:
    content, words = BAD_BUNDLES[case]
    before = failed_deploys(daemon)
    answer = daemon.deploy(content)
    assert answer.status == 400, answer.text
    check_error(answer.json["code"], answer.json["message"], "invalid_bundle", words)
    assert failed_deploys(daemon) == before + 1


def failed_deploys(daemon: RunningDaemon) -> float:
    return daemon.metric('headwater_deploys_total{outcome="failed"}')


def test_a_bad_bundle_leaves_nothing_behind(daemon: RunningDaemon) -> None:
    active = daemon.must_deploy("probe")
    for case in ("path traversal", "syntax", "two packages"):
        assert daemon.deploy(BAD_BUNDLES[case][0]).status == 400
    names = {active, f"{active}.zip"}
    wait_until(lambda: {path.name for path in (daemon.data / "bundles").iterdir()} == names)
    assert not (daemon.folder / "evil.py").exists()
    assert not (daemon.data / "evil.py").exists()


# ---------------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize("path", ["/api/admin/deploy", "/api/admin/rotate-key"])
@pytest.mark.parametrize(
    "header", ["", "Headwater wrong-key", "Bearer {key}", "Headwater {key}x", "Headwater "]
)
def test_a_wrong_key(daemon: RunningDaemon, path: str, header: str) -> None:
    headers = {"Authorization": header.format(key=daemon.key)} if header else {}
    answer = daemon.post(path, package(), **headers)
    assert answer.status == 401
    check_error(answer.json["code"], answer.json["message"], "unauthenticated", ["key"])
    assert daemon.key not in answer.text


def test_a_wrong_key_does_not_open_an_open_door_further(daemon: RunningDaemon) -> None:
    body = {"path": "probe:hidden", "args": {}}
    for path in ("/api/query", "/api/mutation", "/api/function"):
        assert daemon.post(path, body, Authorization="Headwater wrong").status == 401
    right = daemon.post("/api/query", body, Authorization=f"Headwater {daemon.key}")
    assert right.json == {"status": "success", "value": "seen"}


# ---------------------------------------------------------------------------------------------- directories


def test_a_directory_of_a_newer_format_is_refused_untouched(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        assert daemon.terminate() == 0
        path = daemon.data / "format"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 999}))
        before = contents(daemon.data)
        done = run_server("serve", "--data", str(daemon.data), "--port", str(daemon.port), folder=tmp_path)
        assert done.returncode == 1
        assert done.stdout == ""
        for word in ("format_too_new", str(daemon.data), "999", "newer version"):
            assert word in done.stderr
        assert "Traceback" not in done.stderr
        assert contents(daemon.data) == before
        checked = run_server("doctor", "--data", str(daemon.data), folder=tmp_path)
        assert checked.returncode == 1
        assert "format_too_new" in checked.stdout
        assert contents(daemon.data) == before


def contents(folder: Path) -> dict[str, tuple[int, str]]:
    """Return size and digest of every file in a folder."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_second_daemon_on_a_directory_is_refused(daemon: RunningDaemon) -> None:
    words = serve_command(daemon.data)[3:]
    done = run_server(*words, "--port", "0", "--tcp-port", "0", folder=daemon.folder)
    assert done.returncode == 5
    assert "directory_in_use" in done.stderr
    assert str(daemon.data) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken(daemon: RunningDaemon, tmp_path: Path) -> None:
    words = serve_command(tmp_path / "data")[3:]
    done = run_server(*words, "--port", str(daemon.port), "--tcp-port", "0", folder=tmp_path)
    assert done.returncode == 1
    assert str(daemon.port) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--port", "70000"], "port"),
        (["--workers", "none"], "workers"),
        (["--no-such-setting", "1"], "no-such-setting"),
        (["--admin-key-file", "/no/such/file"], "/no/such/file"),
    ],
)
def test_a_wrong_setting(tmp_path: Path, words: list[str], named: str) -> None:
    done = run_server("serve", "--data", str(tmp_path / "data"), *words, folder=tmp_path)
    assert done.returncode in (1, 2)
    assert named in done.stderr
    assert "Traceback" not in done.stderr
