"""Routes as authors write them: what is refused at load, with their lines; requests, answers, forms."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from headwater.bundle import Bundle
from headwater.forms import parse_form
from headwater.http_fields import Headers
from headwater.http_messages import Request, RequestHead, Response
from headwater_protocol.errors import HeadwaterError, RequestError
from headwater_protocol.manifest import Manifest
from headwater_protocol.values import Int64
from support.bundles import imported, write_package

if TYPE_CHECKING:
    from pathlib import Path

HEAD = "from __future__ import annotations\nfrom headwater import *\n\nclass Item(Table, name='items'):\n    n: int\n\n"


def load(tmp_path: Path, source: str) -> Bundle:
    write_package(tmp_path, {"a": HEAD + source}, header="")
    with imported(tmp_path, "bundle") as package:
        return Bundle.load(package)


@pytest.mark.parametrize(
    ("source", "told", "line"),
    [
        ("@route('GET', '/a')\nasync def f(ctx: ActionCtx, request: Request, x: int) -> Response: ...", "no parameter `x`", 7),
        ("@route('GET', '/{x}')\nasync def f(ctx: ActionCtx, request: Request) -> Response: ...", "takes none", 7),
        ("@route('GET', '/{x}')\nasync def f(ctx: ActionCtx, request: Request, x: list[int]) -> Response: ...", "part of the path", 7),
        ("@route('GET', '/{x}')\nasync def f(ctx: ActionCtx, request: Request, x: int | None) -> Response: ...", "part of the path", 7),
        ("@route('GET', '/{x:rest}')\nasync def f(ctx: ActionCtx, request: Request, x: int) -> Response: ...", "is a `str`", 7),
        ("@route('GET', '/{x}')\nasync def f(ctx: ActionCtx, request: Request, x: int = 1) -> Response: ...", "no default", 7),
        ("@route('GET', '/{x}')\nasync def f(ctx: ActionCtx, request: Request, x) -> Response: ...", "annotation", 7),
        ("@route('GET', '/a')\nasync def f(ctx: QueryCtx, request: Request) -> Response: ...", "ActionCtx", 7),
        ("@route('GET', '/a')\nasync def f(ctx: ActionCtx, request: str) -> Response: ...", "request: Request", 7),
        ("@route('GET', '/a')\nasync def f(ctx: ActionCtx, request: Request) -> str: ...", "-> Response", 7),
        ("@route('GET', '/a')\nasync def f(ctx: ActionCtx, request: Request): ...", "-> Response", 7),
        ("@route('GET', '/a')\nasync def f(ctx: ActionCtx) -> Response: ...", "a ctx and a request", 7),
        ("@route('GET', '/a')\ndef f(ctx: ActionCtx, request: Request) -> Response: ...", "async def", 7),
        ("@route('FETCH', '/a')\nasync def f(ctx: ActionCtx, request: Request) -> Response: ...", "one of GET", 7),
        ("@route('GET', 'a')\nasync def f(ctx: ActionCtx, request: Request) -> Response: ...", "begins with /", 7),
        ("Cors(origins=['app.example.com'])", "is no origin", 7),
        ("Cors(origins=['https://app.example.com/'])", "is no origin", 7),
        ("Cors(origins='https://app.example.com')", "list of origins", 7),
        ("Cors(origins='*', credentials=True)", "have to be named", 7),
        ("Cors(origins='*', headers=['a b'])", "no name of a header", 7),
    ],
)  # fmt: skip
def test_a_route_that_cannot_be_is_refused_with_its_line(
    tmp_path: Path, source: str, told: str, line: int
) -> None:
    with pytest.raises(RequestError) as refused:
        load(tmp_path, source)
    assert refused.value.code == "invalid_bundle"
    assert told in refused.value.message
    assert f'a.py", line {line}' in refused.value.message, refused.value.message


def test_two_routes_for_the_same_requests_are_refused_with_both_lines(tmp_path: Path) -> None:
    source = """
@route("GET", "/a/{x}")
async def one(ctx: ActionCtx, request: Request, x: str) -> Response: ...

@route("GET", "/a/{y}")
async def two(ctx: ActionCtx, request: Request, y: int) -> Response: ...
"""
    with pytest.raises(RequestError) as refused:
        load(tmp_path, source)
    assert "GET /a/{y} and GET /a/{x}" in refused.value.message
    assert "line 8, in one" in refused.value.message
    assert "line 11, in two" in refused.value.message


def test_the_manifest_lists_the_routes(tmp_path: Path) -> None:
    source = """
api = route.with_cors(Cors(origins=["https://app.example.com"]))

@api("POST", "/b/{item}")
async def post(ctx: ActionCtx, request: Request, item: Id[Item]) -> Response:
    '''What it does.'''

@route("GET", "/a")
async def get(ctx: ActionCtx, request: Request) -> Response: ...

@query
def q(ctx: QueryCtx) -> int: return 1
"""
    manifest = load(tmp_path, source).manifest()
    assert [(item.label, item.name, item.doc) for item in manifest.routes] == [
        ("GET /a", "a:get", ""),
        ("POST /b/{item}", "a:post", "What it does."),
    ]
    cors = manifest.routes[1].cors
    assert cors is not None
    assert cors.origins == ("https://app.example.com",)
    assert list(manifest.routes[1].parameters["properties"]) == ["item"]
    assert [item.name for item in manifest.functions] == ["a:q"], "clients cannot call routes"
    assert Manifest.from_json(manifest.to_json()) == manifest


# ---------------------------------------------------------------------------------------- requests


class Pieces:
    def __init__(self, *pieces: bytes) -> None:
        self.left = list(pieces)

    async def next(self) -> bytes | None:
        return self.left.pop(0) if self.left else None


def request(*pieces: bytes, content_type: str = "", query: str = "") -> Request:
    head = RequestHead("POST", "/", query, (("content-type", content_type), ("X-A", "1"), ("x-a", "2")), "")
    return Request(head, Pieces(*pieces))


def test_headers_and_parameters_have_several_values_of_a_name() -> None:
    found = request(query="a=1&b=%C3%BC&a=2&empty=&bad=%ff")
    assert (found.headers["x-A"], found.headers.get_all("X-a")) == ("1", ["1", "2"])
    assert "content-TYPE" in found.headers
    assert dict(found.query) == {"a": "1", "b": "ü", "empty": "", "bad": "\N{REPLACEMENT CHARACTER}"}
    assert found.query.get_all("a") == ["1", "2"]


def test_a_body_is_read_once_and_kept() -> None:
    async def reads() -> None:
        whole = request(b"ab", b"c")
        assert await whole.body() == b"abc" == await whole.body()
        assert [piece async for piece in whole.stream()] == [b"abc"]
        parts = request(b"ab", b"c")
        assert [piece async for piece in parts.stream()] == [b"ab", b"c"]
        with pytest.raises(RuntimeError, match="once"):
            await parts.body()

    asyncio.run(reads())


@pytest.mark.parametrize(
    ("sent", "kind", "expected"),
    [
        (b'{"a": [1]}', Any, {"a": [1]}),
        (b"[1, 2]", list[int], [1, 2]),
        (b'["x"]', list[int], None),
        (b"{", Any, None),
        (b"", Any, None),
        (b"\xff", str, None),
        (b"[" * 100_000, Any, None),
    ],
)
def test_json_is_checked(sent: bytes, kind: Any, expected: Any) -> None:
    if expected is not None:
        assert asyncio.run(request(sent).json(kind)) == expected
        return
    with pytest.raises(RequestError) as refused:
        asyncio.run(request(sent).json(kind))
    assert refused.value.code == "invalid_request"


@pytest.mark.parametrize(
    ("sent", "content_type", "expected"),
    [
        ("ü".encode(), "", "ü"),
        (b"\xfc", "text/plain; charset=ISO-8859-1", "ü"),
        (b"\xfc", "text/plain", None),
        (b"x", "text/plain; charset=unicode_escape", None),
        (b"x", "text/plain; charset=zip", None),
        (b"x", "text/plain; charset=nonsense", None),
    ],
)
def test_text_has_the_charset_it_says(sent: bytes, content_type: str, expected: str | None) -> None:
    if expected is not None:
        assert asyncio.run(request(sent, content_type=content_type).text()) == expected
        return
    with pytest.raises(RequestError):
        asyncio.run(request(sent, content_type=content_type).text())


# ------------------------------------------------------------------------------------------- forms

URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=xyz"


def part(head: str, content: bytes) -> bytes:
    return b"--xyz\r\n" + head.encode() + b"\r\n\r\n" + content + b"\r\n"


def test_forms_are_read() -> None:
    form = parse_form(URLENCODED + "; charset=utf-8", b"a=1&a=2&b=x+y%26&c=")
    assert (form["a"], form.get_all("a"), form["b"], form["c"], form.files) == (
        "1",
        ["1", "2"],
        "x y&",
        "",
        {},
    )
    body = (
        part('Content-Disposition: form-data; name="a"', b"1")
        + part('content-disposition: form-data; name="f"; filename="x\\"y.bin"\r\nContent-Type: image/png', b"\x00\r\n--xy\r\n")
        + b"--xyz--\r\n"
    )  # fmt: skip
    form = parse_form('multipart/form-data; boundary="xyz"', body)
    assert dict(form) == {"a": "1"}
    file = form.files["f"]
    assert (file.filename, file.media_type, file.content) == ('x"y.bin', "image/png", b"\x00\r\n--xy\r\n")


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("", b"a=1"),
        ("text/plain", b"a=1"),
        ("multipart/form-data", b"--xyz--"),
        (MULTIPART, b""),
        (MULTIPART, part('Content-Disposition: form-data; name="a"', b"1")),
        (MULTIPART, part("Content-Type: text/plain", b"1") + b"--xyz--"),
        (MULTIPART, b"--xyz\r\nno head\r\n--xyz--"),
        (MULTIPART, part('Content-Disposition: form-data; name="a"', b"\xff") + b"--xyz--"),
        (MULTIPART, part('Content-Disposition: form-data; name="a"', b"") * 1100 + b"--xyz--"),
        (URLENCODED, b"a=%ff"),
        (URLENCODED, "ü=1".encode()),
        (URLENCODED, b"a=1&" * 1100),
    ],
)
def test_what_is_no_form_is_refused(content_type: str, body: bytes) -> None:
    with pytest.raises(RequestError) as refused:
        parse_form(content_type, body)
    assert refused.value.code == "invalid_request"


# ----------------------------------------------------------------------------------------- answers


class Thing(msgspec.Struct):
    a: int


@pytest.mark.parametrize(
    ("body", "content", "media_type"),
    [
        (None, b"", None),
        (b"\xff", b"\xff", "application/octet-stream"),
        ("ü", "ü".encode(), "text/plain; charset=utf-8"),
        ({"a": [1, None]}, b'{"a":[1,null]}', "application/json"),
        (Thing(1), b'{"a":1}', "application/json"),
        ([Int64(5)], b"[5]", "application/json"),
        (False, b"false", "application/json"),
    ],
)
def test_answers_are_encoded_by_their_kind(body: Any, content: bytes, media_type: str | None) -> None:
    made = Response(body)
    assert (made.content, made.headers.get("content-type"), made.status) == (content, media_type, 200)
    assert Response(body, headers={"CONTENT-type": "x/y"}).headers.get_all("Content-Type") == ["x/y"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-A", "a\r\nb"),
        ("X-A", "a\nb"),
        ("X-A", "a\rb"),
        ("X-A", "a\0b"),
        ("X-A", "ü"),
        ("X-A", "\u010a"),
        ("X A", "a"),
        ("X-A\r\n", "a"),
        ("", "a"),
        ("Content-Length", "1"),
        ("transfer-encoding", "chunked"),
        ("CONNECTION", "close"),
        ("X-A", 1),
        ("X-A", "a" * 20_000),
    ],
)
def test_headers_that_cannot_be_sent_are_refused_where_they_are_made(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        Response("x", headers={name: value})
    assert not isinstance(refused.value, HeadwaterError)


@pytest.mark.parametrize("status", [100, 101, 199, 600, True, "200", 0])
def test_a_status_that_is_none_is_refused(status: Any) -> None:
    with pytest.raises(ValueError, match="status"):
        Response(status=status)


def test_answers_without_a_body_have_none_and_what_json_has_not_is_refused() -> None:
    assert Response(status=204).content == b""
    with pytest.raises(ValueError, match="204"):
        Response("x", status=204)
    with pytest.raises(TypeError, match="object"):
        Response(object())
    assert Response.redirect("/x").headers == Headers({"Location": "/x"})
