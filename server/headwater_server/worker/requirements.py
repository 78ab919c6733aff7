"""What a bundle needs of other packages: its `requirements.txt`, and the wheels that it brings along.

Pure. The packages lie in a folder that is named by what was asked for, so that bundles which ask for the same share
one, and it is installed once.
"""

from __future__ import annotations

import re
import sys
import sysconfig
from dataclasses import dataclass
from hashlib import blake2b

from headwater.packing import REQUIREMENTS, invalid_bundle

PACKAGES_FOLDER = "packages"
"""In the data directory: a folder for each set of requirements."""

LINES_MAX = 1_000
_SHOWN_MAX = 200
_COMMENT = re.compile(r"(^|\s)#.*$")
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_TEXT = r"(?:(?!\s-)[^;@/])*"  # no option begins in it
_LINE = re.compile(
    rf"{_NAME}(?:\s*\[[^\]@/]*\])?\s*(?:[<>=!~(]{_TEXT})?(?:;{_TEXT})?(?:\s--hash[= ][a-z0-9]+:[0-9a-f]+)*"
)


@dataclass(frozen=True, slots=True)
class Requirements:
    """What is asked for.

    Attributes:
        lines: Requirements, one a line, in the form of pip, hashes included.
        wheels: File name and digest of each wheel of the bundle. With any, nothing comes from an index.
    """

    lines: tuple[str, ...]
    wheels: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, text: bytes, wheels: dict[str, bytes]) -> Requirements | None:
        """Return what a bundle asks for; None if that is nothing.

        Args:
            text: Its `requirements.txt`.
            wheels: What it brings along, by file name.

        Raises:
            RequestError: `invalid_bundle`: a line is not a plain requirement.
        """
        joined = re.sub(r"\\\r?\n", " ", text.decode("utf-8", "replace"))
        stripped = [_COMMENT.sub("", line).strip() for line in joined.splitlines()]
        lines = tuple(" ".join(line.split()) for line in stripped if line)
        if len(lines) > LINES_MAX:
            raise invalid_bundle(f"the bundle's {REQUIREMENTS} has more than {LINES_MAX} requirements")
        for line in lines:
            if _LINE.fullmatch(line) is None:
                raise invalid_bundle(
                    f"the bundle's {REQUIREMENTS} asks for {line[:_SHOWN_MAX]!r}; only names with versions and hashes may"
                    " stand there, as in `httpx==0.28.1`: no options, addresses or paths"
                )
        if wheels and not lines:
            raise invalid_bundle(f"the bundle has wheels and no {REQUIREMENTS} that asks for them")
        if not lines:
            return None
        digests = {name: blake2b(data, digest_size=16).hexdigest() for name, data in wheels.items()}
        return cls(lines, tuple(sorted(digests.items())))

    @property
    def name(self) -> str:
        """What the folder of their packages is called: 32 hex characters, other ones for another Python."""
        state = blake2b(digest_size=16, person=b"headwater-reqs")
        surroundings = (f"{sys.version_info[0]}.{sys.version_info[1]}", sysconfig.get_platform())
        for part in (*surroundings, *self.lines, *[text for wheel in self.wheels for text in wheel]):
            state.update(f"{len(part)}:{part}".encode())
        return state.hexdigest()
