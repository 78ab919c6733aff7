"""`make image-test`: build the image as a registry would have it built, and use it as an operator would.

Needs root and Debian's `buildah` and `debootstrap`. The daemon runs as the image's user, gets a bundle and a document,
is killed, runs again on the same data and must still have both.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools.image_build import IMAGE, ROOT, Buildah, build, make_base, output_of, say

if TYPE_CHECKING:
    from collections.abc import Iterator

USER_ID = 10001
START_LIMIT_S = 60.0


def check_image(image: dict[str, Any], version: str) -> None:
    """See that the image says of itself what operators and orchestrators look for."""
    config = image["config"]
    assert config["Labels"]["org.opencontainers.image.version"] == version
    assert config["User"] == "headwater"
    assert list(config["Volumes"]) == ["/data"]
    assert config["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"]["Test"][0] == "CMD"


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def descendants(pid: int) -> list[int]:
    """Return the processes below `pid`, parents first."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        parents.setdefault(parent, []).append(int(stat.parent.name))
    found = list(parents.get(pid, []))
    for child in found:
        found += parents.get(child, [])
    return found


def is_daemon(pid: int) -> bool:
    """Say whether a process is the daemon: by its words, and running as the image's user."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        owner = Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return False
    return owner == USER_ID and b"headwater_server" in words and b"serve" in words


def await_health(process: subprocess.Popen[bytes], url: str) -> None:
    """Wait until the daemon says that it is ready."""
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the daemon ended with {process.returncode} instead of starting"
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
                assert json.load(answer)["status"] == "ready"
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
    raise TimeoutError(f"the daemon was not ready within {START_LIMIT_S:.0f} s")


@contextmanager
def running(buildah: Buildah, container: str, image: dict[str, Any], data: Path, port: int) -> Iterator[int]:
    """Start the image's own command as the image's own user; yield the daemon's pid, and end it by SIGTERM."""
    config = image["config"]
    command = [*config["Entrypoint"], *config["Cmd"]]
    options = ["--isolation=chroot", "--volume", f"{data}:/data", "--env", f"HEADWATER_PORT={port}"]
    words = buildah.words("run", *options, "--env", "HEADWATER_TCP_PORT=0", container, "--", *command)
    process = subprocess.Popen(words)
    try:
        await_health(process, f"http://127.0.0.1:{port}")
        buildah("run", *options, container, "--", *config["Healthcheck"]["Test"][1:])
        yield next(filter(is_daemon, descendants(process.pid)))
    finally:
        for pid in filter(is_daemon, descendants(process.pid)):
            os.kill(pid, signal.SIGTERM)
        process.wait(30)


def headwater(port: int, data: Path, command: str, *words: str) -> Any:
    """Run the command line of this checkout against the daemon; return the JSON it prints."""
    program = [str(Path(sys.executable).with_name("headwater")), command, *words]
    options = ["--url", f"http://127.0.0.1:{port}", "--key-file", str(data / "admin-key"), "--json"]
    return json.loads(output_of(*program, *options))


def use(buildah: Buildah, folder: Path) -> None:
    """Deploy, write, kill -9, start again, read."""
    image = json.loads(buildah("inspect", "--type", "image", IMAGE))["Docker"]
    data, port = folder / "data", free_port()
    data.mkdir(mode=0o700)
    os.chown(data, USER_ID, USER_ID)
    container = buildah("from", "--pull-never", IMAGE)
    buildah("config", "--volume", "/data-", container)  # or buildah puts one of its own over ours
    with running(buildah, container, image, data, port) as daemon:
        headwater(port, data, "deploy", str(ROOT / "examples" / "chat" / "functions"))
        channel = headwater(port, data, "run", "messages:open_channel", "name=general")
        headwater(port, data, "run", "messages:send", f"channel={channel}", "author=ada", "body=hello")
        say("deployed and wrote; killing the daemon")
        os.kill(daemon, signal.SIGKILL)
    with running(buildah, container, image, data, port):
        messages = headwater(port, data, "run", "messages:list", f"channel={channel}")
        assert [(row["author"], row["body"]) for row in messages] == [("ada", "hello")], messages
    say("started again on the same data: bundle and document are there")


def main() -> None:
    """Build, check, use, clean up."""
    missing = [name for name in ("buildah", "debootstrap") if shutil.which(name) is None]
    if missing:
        sys.exit(f"image-test: needs {' and '.join(missing)}: apt install {' '.join(missing)}")
    if os.geteuid() != 0:
        sys.exit("image-test: debootstrap and chroot isolation need root")
    folder = Path(tempfile.mkdtemp(prefix="headwater-image-"))
    try:
        buildah = Buildah(folder)
        make_base(buildah, folder)
        version = build(buildah, folder)
        check_image(json.loads(buildah("inspect", "--type", "image", IMAGE))["Docker"], version)
        use(buildah, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    say("passed")


if __name__ == "__main__":
    main()
