"""Build the image where there is neither a Docker engine nor an image registry.

`buildah` builds the Dockerfile on a base that `debootstrap` makes, under the name that the Dockerfile asks for. The base
stands in for the official one, so this says nothing about what that one holds beyond a minimal Debian.
"""

from __future__ import annotations

import ssl
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
BASE = "docker.io/library/debian:bookworm-slim"
BASE_ARCHIVE = ROOT / ".cache" / "image-test" / "base.tar"
IMAGE = "localhost/headwater:test"


def say(text: str) -> None:
    """Print a line of progress."""
    print(f"image-test: {text}", flush=True)


def output_of(*words: str) -> str:
    """Run a command that must succeed; return what it prints."""
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


class Buildah:
    """Buildah with a store of its own, which goes with the folder it stands in."""

    def __init__(self, folder: Path) -> None:
        self._store = [
            "--root",
            str(folder / "store"),
            "--runroot",
            str(folder / "run"),
            "--storage-driver",
            "vfs",
        ]

    def words(self, command: str, *options: str) -> list[str]:
        """Return the command line."""
        return ["buildah", *self._store, command, *options]

    def __call__(self, command: str, *options: str) -> str:
        """Run it; return what it prints."""
        return output_of(*self.words(command, *options))

    def loud(self, command: str, *options: str) -> None:
        """Run it in the checkout, its output for all to see."""
        subprocess.run(self.words(command, *options), check=True, cwd=ROOT)


def make_base(buildah: Buildah, folder: Path) -> None:
    """Make a minimal Debian from this machine's own mirror, and keep it for the next time."""
    if not BASE_ARCHIVE.exists():
        say("making a minimal Debian with debootstrap (once)")
        mirror = output_of("apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages").split()[
            0
        ]
        tree = folder / "base"
        tree.mkdir()
        log = folder / "debootstrap.log"
        with log.open("w") as stream:
            words = ["debootstrap", "--variant=minbase", "bookworm", str(tree), mirror]
            if subprocess.run(words, stdout=stream, stderr=subprocess.STDOUT, check=False).returncode:
                sys.exit(log.read_text() + "\nimage-test: debootstrap failed")
        BASE_ARCHIVE.parent.mkdir(parents=True, exist_ok=True)
        output_of("tar", "--numeric-owner", "-C", str(tree), "-cf", f"{BASE_ARCHIVE}.new", ".")
        Path(f"{BASE_ARCHIVE}.new").rename(BASE_ARCHIVE)
    container = buildah("from", "scratch")
    buildah("add", container, str(BASE_ARCHIVE), "/")
    buildah("commit", "--format", "docker", "--rm", container, BASE)


def pip_files(folder: Path) -> dict[Path, str]:
    """Return the files, by their place in the build, that let its pip reach what the pip of this machine reaches.

    They are mounted for the build only; nothing of them is in the image.
    """
    lines = ["[global]"]
    for name in ("index-url", "proxy", "trusted-host"):
        words = [sys.executable, "-m", "pip", "config", "get", f"global.{name}"]
        answer = subprocess.run(words, capture_output=True, text=True, check=False)
        if answer.returncode == 0:
            lines.append(f"{name} = {answer.stdout.strip()}")
    files: dict[Path, str] = {}
    authorities = ssl.get_default_verify_paths().cafile
    if authorities:
        files[Path(authorities)] = "/run/build-authorities.crt"
        lines.append("cert = /run/build-authorities.crt")
    settings = folder / "pip.conf"
    settings.write_text("\n".join(lines) + "\n")
    return files | {settings: "/etc/pip.conf"}


def build(buildah: Buildah, folder: Path) -> str:
    """Build the Dockerfile; return the version it was given."""
    with (ROOT / "pyproject.toml").open("rb") as stream:
        version: str = tomllib.load(stream)["project"]["version"]
    say(f"building {IMAGE} {version}")
    mounts = [f"--volume={source}:{target}:ro" for source, target in pip_files(folder).items()]
    options = ["--isolation=chroot", "--format=docker", "--pull-never", f"--build-arg=VERSION={version}"]
    buildah.loud("build", *options, *mounts, "--tag", IMAGE, str(ROOT))
    return version
