from __future__ import annotations

import io
import stat
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest
from headwater.packing import FILES_MAX, UNPACKED_BYTES_MAX
from headwater_protocol.errors import ApplicationError, RequestError
from headwater_server.worker.loader import load_package, unpack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PACKAGE = "bundle_under_test"


@pytest.fixture(autouse=True)
def _imports_left_as_they_were() -> Iterator[None]:
    finders, writing = list(sys.meta_path), sys.dont_write_bytecode
    yield
    sys.meta_path[:] = finders
    sys.dont_write_bytecode = writing
    for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
        del sys.modules[name]


def zipped(files: dict[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def refusal(bundle: bytes, folder: Path) -> str:
    with pytest.raises(RequestError) as caught:
        unpack(bundle, folder)
    assert caught.value.code == "invalid_bundle"
    assert not folder.exists()
    assert list(folder.parent.iterdir()) == []
    return caught.value.message


def load(files: dict[str, str], folder: Path) -> str:
    """Load a package of these files, which must fail; return why."""
    unpack(zipped({f"{PACKAGE}/{name}": text for name, text in files.items()}), folder)
    with pytest.raises(RequestError) as caught:
        load_package(PACKAGE, folder)
    assert caught.value.code == "invalid_bundle"
    return caught.value.message


def test_unpacks_and_takes_a_folder_that_is_there_already(tmp_path: Path) -> None:
    folder = tmp_path / "b"
    bundle = zipped({"app/__init__.py": "", "app/sub/x.py": "1", "requirements.txt": "# nothing\n\n"})
    assert unpack(bundle, folder) == ("app", None)
    assert (folder / "app/sub/x.py").read_text() == "1"
    assert unpack(bundle, folder) == ("app", None)
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("../evil.py", "evil"),
        ("app/../../evil.py", "evil"),
        ("/etc/evil.py", "evil"),
        ("app\\..\\evil.py", "app"),
        ("app/./evil.py", "evil"),
        ("app/" + "d/" * 30 + "evil.py", "app"),
        ("app/" + "x" * 500 + ".py", "xxx"),
        ("app/" + "x" * 300 + ".py", "255 bytes"),
        ("app/" + "ö" * 200 + "/a.py", "255 bytes"),
        ("evil.py", "beside"),
    ],
)
def test_refuses_names_that_lead_elsewhere(tmp_path: Path, name: str, named: str) -> None:
    assert named in refusal(zipped({"app/a.py": "", name: ""}), tmp_path / "b")


def test_refuses_links(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        entry = zipfile.ZipInfo("app/link")
        entry.create_system = 3
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    assert "app/link" in refusal(buffer.getvalue(), tmp_path / "b")


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({}, "none"),
        ({"a/x.py": "", "b/x.py": ""}, "a, b"),
        ({"json/x.py": ""}, "json"),
        ({"headwater_x/x.py": ""}, "headwater_x"),
        ({"app/x.py": "", "requirements.txt": "--index-url=x\n"}, "--index-url=x"),
        ({"app/x.py": "", "wheels/a.whl": ""}, "no requirements.txt"),
        ({"app/x.py": "", "wheels/a.txt": ""}, "app, wheels"),
        ({"app/x.py": "", "wheels/sub/a.whl": ""}, "app, wheels"),
        ({"app/x": "", "app/x/y.py": ""}, "app/x"),
        ({f"app/{i}.py": "" for i in range(FILES_MAX + 1)}, str(FILES_MAX)),
        ({"app/bomb": bytes(UNPACKED_BYTES_MAX + 1)}, str(UNPACKED_BYTES_MAX)),
    ],
)
def test_refuses_other_shapes(tmp_path: Path, files: dict[str, str | bytes], named: str) -> None:
    assert named in refusal(zipped(files), tmp_path / "b")


def test_refuses_a_file_that_is_there_twice(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("app/a.py", "harmless")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("app/a.py", "other")
    assert "twice" in refusal(buffer.getvalue(), tmp_path / "b")


def test_refuses_what_is_no_zip_or_a_damaged_one(tmp_path: Path) -> None:
    bundle = zipped({"app/a.py": "x = 1\n" * 100})
    for broken in (b"", b"PK\x03\x04", b"hello" * 100, bundle[:-30], bundle[:40] + b"\xff" * 9 + bundle[49:]):
        assert "zip" in refusal(broken, tmp_path / "b")


def test_a_file_whose_real_size_is_larger_than_said_is_refused(tmp_path: Path) -> None:
    bundle = bytearray(zipped({"app/a.py": bytes(100_000)}))
    for at in range(len(bundle) - 4):
        if bundle[at : at + 4] == (100_000).to_bytes(4, "little"):
            bundle[at : at + 4] = (10).to_bytes(4, "little")
    assert "zip" in refusal(bytes(bundle), tmp_path / "b")


def test_imports_every_module_and_writes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "b"
    files = {"__init__.py": "", "config.py": "name = 'mine'", "sub/__init__.py": "", "sub/deep.py": "x = 1"}
    unpack(zipped({f"{PACKAGE}/{name}": text for name, text in files.items()}), folder)
    before = sorted(folder.rglob("*"))
    module = load_package(PACKAGE, folder)
    assert module.config.name == "mine"
    assert sys.modules[f"{PACKAGE}.sub.deep"].x == 1
    assert str(folder) not in sys.path
    assert "config" not in sys.modules
    assert sorted(folder.rglob("*")) == before


def test_only_the_package_is_visible(tmp_path: Path) -> None:
    folder = tmp_path / "b"
    unpack(zipped({f"{PACKAGE}/__init__.py": ""}), folder)
    (folder / "stray.py").write_text("")
    load_package(PACKAGE, folder)
    with pytest.raises(ModuleNotFoundError):
        __import__("stray")


def test_an_import_error_is_told_with_the_place_in_the_bundle(tmp_path: Path) -> None:
    message = load({"__init__.py": "", "a.py": "x = 1\nimport no_such_module\n"}, tmp_path / "b")
    assert "no_such_module" in message
    assert f'File "{PACKAGE}/a.py", line 2' in message
    assert "importlib" not in message
    assert str(tmp_path) not in message


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("def f(:\n", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("1/0", "ZeroDivisionError"),
    ],
)
def test_whatever_a_module_raises_is_a_refusal(tmp_path: Path, text: str, named: str) -> None:
    assert named in load({"__init__.py": "", "a.py": text}, tmp_path / "b")


def test_an_error_of_the_api_is_told_in_its_own_words(tmp_path: Path) -> None:
    text = f"from headwater_protocol.errors import {ApplicationError.__name__} as E\nraise E('unknown type in x')"
    message = load({"__init__.py": "", "a.py": text}, tmp_path / "b")
    assert message.startswith("unknown type in x\n")


def test_a_folder_of_modules_that_is_no_package_is_named(tmp_path: Path) -> None:
    message = load({"__init__.py": "", "sub/a.py": ""}, tmp_path / "b")
    assert message == f"the bundle's folder {PACKAGE}/sub has modules but no __init__.py"


def test_refuses_to_hide_an_installed_module(tmp_path: Path) -> None:
    folder = tmp_path / "b"
    unpack(zipped({"msgspec/__init__.py": ""}), folder)
    with pytest.raises(RequestError, match="msgspec"):
        load_package("msgspec", folder)
