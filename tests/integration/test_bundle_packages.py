"""Bundles with requirements on a real daemon and with the real pip: from wheels that they bring, from an index, and what cannot be had."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import io
import threading
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
from headwater.packing import pack
from support.daemon import RunningDaemon

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SOURCE = """
import greetings
from headwater import ActionCtx, QueryCtx, action, query

@query
def hello(ctx: QueryCtx) -> str: return greetings.hello()

@action
async def hello_outside(ctx: ActionCtx) -> str: return greetings.hello()
"""


def wheel(version: str, *, name: str = "greetings", requires: str = "", module: str | None = None) -> bytes:
    """A wheel of a package that greets and tells its version; a `.pth` that would run is in it."""
    info = f"{name}-{version}.dist-info"
    needs = f"Requires-Dist: {requires}\n" if requires else ""
    files = {
        f"{module or name}.py": f"def hello(): return 'hello from {version}'\n",
        f"{name}.pth": "import os; os.environ['RAN'] = '1'\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"]))
    return buffer.getvalue()


def bundle(folder: Path, requirements: str, source: str = SOURCE, **wheels: bytes) -> bytes:
    functions = folder / "functions"
    functions.mkdir(parents=True, exist_ok=True)
    (functions / "m.py").write_text(source)
    (functions / "requirements.txt").write_text(requirements)
    for name, data in wheels.items():
        (functions / "wheels").mkdir(exist_ok=True)
        (functions / "wheels" / f"{name.replace('__', '-')}-py3-none-any.whl").write_bytes(data)
    return pack(functions)


def deploy(daemon: RunningDaemon, packed: bytes) -> tuple[int, str]:
    answer = daemon.post("/api/admin/deploy", packed, Authorization=f"Headwater {daemon.key}")
    return answer.status, answer.text


def greeting(daemon: RunningDaemon) -> list[Any]:
    return [
        daemon.post("/api/function", {"path": f"m:{name}"}).json.get("value")
        for name in ("hello", "hello_outside")
    ]


@contextlib.contextmanager
def started(folder: Path, *options: str, **environment: str) -> Iterator[RunningDaemon]:
    daemon = RunningDaemon(folder, options)
    # What the machine's own pip is told must not decide what these tests see.
    daemon.environment |= {
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": "",
        **environment,
    }
    daemon.start()
    try:
        yield daemon
    finally:
        daemon.end()


def test_wheels_of_the_bundle_are_installed_and_outlive_a_restart(tmp_path: Path) -> None:
    with started(tmp_path / "daemon") as daemon:
        packed = bundle(tmp_path / "a", "greetings==1.0\n", **{"greetings__1.0": wheel("1.0")})
        assert deploy(daemon, packed)[0] == 200
        assert greeting(daemon) == ["hello from 1.0"] * 2
        daemon.kill()
        daemon.start()
        assert greeting(daemon) == ["hello from 1.0"] * 2
        again = bundle(tmp_path / "b", "greetings==2.0\n", **{"greetings__2.0": wheel("2.0")})
        assert deploy(daemon, again)[0] == 200
        assert greeting(daemon) == ["hello from 2.0"] * 2
        back = daemon.post("/api/admin/rollback", {}, Authorization=f"Headwater {daemon.key}")
        assert back.status == 200
        assert greeting(daemon) == ["hello from 1.0"] * 2


def test_bundles_that_ask_for_the_same_share_what_is_installed(tmp_path: Path) -> None:
    wheels = {"greetings__1.0": wheel("1.0")}
    with started(tmp_path / "daemon", "--deployed-bundles-kept", "2") as daemon:
        for number in range(2):
            packed = bundle(tmp_path / str(number), "greetings\n", SOURCE + f"# {number}\n", **wheels)
            assert deploy(daemon, packed)[0] == 200
        packages = daemon.data / "packages"
        assert len(list(packages.iterdir())) == 1
        for number in range(2):
            other = wheel(f"1.{number}")
            assert (
                deploy(
                    daemon,
                    bundle(tmp_path / f"o{number}", "greetings\n", **{f"greetings__1.{number}": other}),
                )[0]
                == 200
            )
        assert len(list(packages.iterdir())) == 2
        assert greeting(daemon) == ["hello from 1.1"] * 2


class Index:
    """A package index on loopback (PEP 503), with one package in it."""

    def __init__(self, data: bytes, name: str = "greetings-1.5-py3-none-any.whl") -> None:
        self.asked: list[str] = []
        self.stalls = threading.Event()
        self.goes_on = threading.Event()
        index = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index.asked.append(self.path)
                if index.stalls.is_set():
                    index.goes_on.wait(60)
                page = f'<a href="/files/{name}">{name}</a>'.encode()
                body = data if self.path.startswith("/files/") else page if "greetings" in self.path else b""
                self.send_response(200 if body else 404)
                self.send_header("Content-Type", "text/html" if body is page else "application/octet-stream")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(body)

            def log_message(self, *_: Any) -> None: ...

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/simple"

    def __enter__(self) -> Index:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.goes_on.set()
        self.server.shutdown()
        self.server.server_close()


def test_packages_come_from_the_index_that_pip_knows_once(tmp_path: Path) -> None:
    data = wheel("1.5")
    digest = hashlib.sha256(data).hexdigest()
    with (
        Index(data) as index,
        started(tmp_path / "daemon", PIP_INDEX_URL=index.url, PIP_NO_INDEX="0") as daemon,
    ):
        packed = bundle(tmp_path / "a", f"greetings==1.5 --hash=sha256:{digest}\n")
        assert deploy(daemon, packed)[0] == 200
        assert greeting(daemon) == ["hello from 1.5"] * 2
        asked = len(index.asked)
        assert asked > 0
        daemon.kill()
        daemon.start()
        assert greeting(daemon) == ["hello from 1.5"] * 2
        assert len(index.asked) == asked
        wrong = bundle(tmp_path / "b", f"greetings==1.5 --hash=sha256:{digest[::-1]}\n")
        status, told = deploy(daemon, wrong)
        assert (status, "invalid_bundle" in told, "HASH" in told.upper()) == (400, True, True)
        assert greeting(daemon) == ["hello from 1.5"] * 2


@pytest.mark.parametrize(
    ("requirements", "wheels", "told"),
    [
        ("nosuchpackage==9\n", {"greetings__1.0": wheel("1.0")}, "nosuchpackage"),
        ("greetings==1.0\n", {"greetings__1.0": wheel("1.0", requires="missing>=3")}, "missing"),
        ("greetings==1.0\n", {"greetings__1.0": wheel("1.0", requires="msgspec==0.1")}, "msgspec"),
        ("greetings==1.0\n", {"greetings__1.0": b"no zip"}, "greetings"),
        ("git+https://example.com/x\n", {}, "only names with versions and hashes"),
    ],
)  # fmt: skip
def test_what_cannot_be_installed_is_told_and_changes_nothing(
    tmp_path: Path, requirements: str, wheels: dict[str, bytes], told: str
) -> None:
    with started(tmp_path / "daemon") as daemon:
        status, answer = deploy(daemon, bundle(tmp_path, requirements, **wheels))
        assert (status, "invalid_bundle" in answer, told in answer) == (400, True, True), answer
        packages = daemon.data / "packages"
        assert not packages.exists() or not list(packages.iterdir())
        daemon.must_deploy("probe")


def test_an_index_that_does_not_answer_costs_the_deploy_and_nothing_else(tmp_path: Path) -> None:
    with (
        Index(wheel("1.5")) as index,
        started(
            tmp_path / "daemon", "--requirements-time-limit-s", "3", PIP_INDEX_URL=index.url, PIP_NO_INDEX="0"
        ) as daemon,
    ):
        daemon.must_deploy("probe")
        index.stalls.set()
        status, told = deploy(daemon, bundle(tmp_path, "greetings==1.5\n"))
        assert (status, "requirements_time_limit_s" in told) == (400, True), told
        assert daemon.post("/api/query", {"path": "probe:echo", "args": {"value": 1}}).json["value"] == 1


def test_too_much_is_refused(tmp_path: Path) -> None:
    with started(tmp_path / "daemon", "--requirements-limit-bytes", str(1 << 20)) as daemon:
        large = io.BytesIO(wheel("1.0"))
        with zipfile.ZipFile(large, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("much.bin", bytes(2 << 20))
        status, told = deploy(daemon, bundle(tmp_path, "greetings\n", **{"greetings__1.0": large.getvalue()}))
        assert (status, "requirements_limit_bytes" in told) == (400, True), told


def test_a_package_hides_nothing_of_the_server_and_runs_nothing_by_itself(tmp_path: Path) -> None:
    source = SOURCE.replace(
        "return greetings.hello()", "return f'{msgspec.__version__} {os.environ.get(\"RAN\")}'", 1
    )
    source = source.replace("import greetings", "import os\nimport greetings\nimport msgspec", 1)
    with started(tmp_path / "daemon") as daemon:
        wheels = {
            "hiding__1.0": wheel("1.0", name="hiding", module="msgspec"),
            "greetings__1.0": wheel("1.0"),
        }
        assert deploy(daemon, bundle(tmp_path, "hiding\ngreetings\n", source, **wheels))[0] == 200
        value = daemon.post("/api/query", {"path": "m:hello"}).json["value"]
        assert value.endswith(" None")
        assert not value.startswith("None")
