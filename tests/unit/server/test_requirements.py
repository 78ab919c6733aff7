from __future__ import annotations

import pytest
from headwater_protocol.errors import RequestError
from headwater_server.worker.requirements import LINES_MAX, Requirements

DIGEST = "a1" * 32


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("httpx", ["httpx"]),
        ("# why\n\n  httpx==0.28.1   # pinned\r\nrich>=13,<15\n", ["httpx==0.28.1", "rich>=13,<15"]),
        ("uvicorn[standard]~=0.30", ["uvicorn[standard]~=0.30"]),
        ('tomli ; python_version < "3.11"', ['tomli ; python_version < "3.11"']),
        ("a.b-c_d (>=1)", ["a.b-c_d (>=1)"]),
        (f"x==1 \\\n    --hash=sha256:{DIGEST} \\\n  --hash=sha256:{DIGEST}\n", [f"x==1 --hash=sha256:{DIGEST} --hash=sha256:{DIGEST}"]),
    ],
)  # fmt: skip
def test_plain_requirements_are_taken(text: str, lines: list[str]) -> None:
    found = Requirements.parse(text.encode(), {})
    assert found is not None
    assert list(found.lines) == lines


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://example.com/simple", "-r other.txt", "-e .", ".", "./a.whl", "/etc/passwd", "a @ https://example.com/a.whl",
        "git+https://example.com/a", "https://example.com/a.whl", "httpx==1 --pre", "httpx --no-deps", "httpx; x --pre", "-", "ä==1", "a b",
        "$HOME", "${TOKEN}==1", "httpx==1 -e x", "\x00",
    ],
)  # fmt: skip
def test_options_addresses_and_paths_are_refused(line: str) -> None:
    with pytest.raises(RequestError) as caught:
        Requirements.parse(f"httpx\n{line}\n".encode(), {})
    assert caught.value.code == "invalid_bundle"
    assert repr(line)[1:-1] in caught.value.message


def test_nothing_asked_for_is_nothing() -> None:
    assert Requirements.parse(b"", {}) is None
    assert Requirements.parse(b"# none yet\n\n", {}) is None
    with pytest.raises(RequestError, match="no requirements"):
        Requirements.parse(b"", {"a-1-py3-none-any.whl": b""})
    with pytest.raises(RequestError, match=f"more than {LINES_MAX}"):
        Requirements.parse(b"a\n" * (LINES_MAX + 1), {})


def test_what_is_asked_for_names_the_folder() -> None:
    def name(text: str, **wheels: bytes) -> str:
        found = Requirements.parse(text.encode(), wheels)
        assert found is not None
        return found.name

    assert name("a==1\nb==2") == name("# why\na==1\n\nb==2 # x\n")
    names = [
        name("a==1"),
        name("a==2"),
        name("a==1\nb"),
        name("a==1", a=b"1"),
        name("a==1", a=b"2"),
        name("a==1", b=b"1"),
    ]
    assert len(set(names)) == len(names)
