"""The TypeScript of the guides, the README and the package's README compiles, against the package as users get it.

A block that begins with a comment with a file's name is that file. Any other that imports something begins a
module, and those behind it go on with it. What a page takes as given stands in `GIVEN`. A signature that a page
declares is compared with that of the package.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest
from support.convex_clients.driven import FOLDER as CONVEX
from support.convex_clients.driven import node_program
from support.guides import GUIDES, write_files
from support.npm_package import unpacked

from tools.checkout import ROOT
from tools.node import Node, find_node
from tools.web import PACKAGE, installed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BLOCK = re.compile(r"^ *```tsx?\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"// ([\w./-]+\.tsx?)\n")
ERROR = re.compile(r"^(?P<file>[^(\n]+)\((?P<line>\d+),\d+\): error ", re.MULTILINE)
CALL = re.compile(r"\b(?:api\.\w+\.\w+|account\.\w+|new (?:Headwater|ConvexReact)Client)\b")
OPTIONS = {
    "target": "ES2022",
    "lib": ["ES2022", "DOM", "DOM.Iterable"],
    "module": "ESNext",
    "moduleResolution": "bundler",
    "strict": True,
    "noUncheckedIndexedAccess": True,
    "exactOptionalPropertyTypes": True,
    "noEmit": True,
    "types": [],
    "preserveSymlinks": True,
    "jsx": "react-jsx",
}
SIGNATURE = re.compile(r"^declare function (\w+)", re.MULTILINE)
# Pages whose Python makes the functions that their TypeScript calls, and the folder that it is in.
# All others call those of examples/chat, with what the guides to actions and to TypeScript add.
BUNDLES = {"react": "chat/functions", "rate-limits": "board"}
GIVEN = {
    "README": """import { useMutation, useQuery } from "headwater/react";
import { api, type Id } from "./api";
declare const channel: Id<"channels">;
""",
    "rate-limits": """import { useQuery } from "headwater/react";
import { useEffect, useState } from "react";
import { api } from "./api";
declare const author: string;
""",
    "sign-in": "declare const App: () => null;\n",
}


class Module(NamedTuple):
    """What a page says in one file."""

    page: str
    file: str
    text: str


def pages() -> dict[str, str]:
    """Return the text of every page that may have TypeScript, by a name that is a folder."""
    found = {
        "-".join(path.relative_to(GUIDES).with_suffix("").parts): path.read_text()
        for path in GUIDES.rglob("*.md")
    }
    return found | {
        "README": (ROOT / "README.md").read_text(),
        "package": (PACKAGE / "README.md").read_text(),
    }


def compared(text: str) -> str:
    """Return a module with lines that compile if the functions it declares are those of the package, both ways."""
    names = SIGNATURE.findall(text)
    lines = [
        line
        for name in names
        for line in (
            f"export const here_{name}: typeof {name} = real.{name};",
            f"export const there_{name}: typeof real.{name} = {name};",
        )
    ]
    if not lines:
        return text
    imports = 'import * as hooks from "headwater/react";\nimport * as server from "headwater/server";\n'
    return f"{text}{imports}const real = {{ ...hooks, ...server }};\n" + "\n".join(lines) + "\n"


def modules(page: str, text: str) -> Iterator[Module]:
    """Yield the modules that the blocks of a page make."""
    given, going_on = GIVEN.get(page, ""), ""
    for number, block in enumerate(BLOCK.findall(text)):
        named = FILE.match(block)
        if named is not None:
            yield Module(page, named[1].rpartition("/")[2], block)
        elif going_on and re.search(r"^import ", block, re.MULTILINE):
            yield Module(page, f"before_{number}.tsx", given + going_on)
            going_on = block
        else:
            going_on += block
    if going_on:
        yield Module(page, "last.tsx", f"{given}{going_on}export {{}};\n")


def write_apis(folder: Path) -> None:
    """Write `folder`/NAME.ts for each bundle: what `headwater codegen --ts` makes of it."""
    chat = folder / "bundles" / "chat" / "functions"
    shutil.copytree(
        ROOT / "examples" / "chat" / "functions", chat, ignore=shutil.ignore_patterns("__pycache__")
    )
    write_files("typescript", folder / "bundles" / "chat")
    write_files("actions", folder / "bundles" / "actions")
    for module in ("notes.py", "answers.py"):
        shutil.copy(folder / "bundles" / "actions" / "desk" / module, chat)
    bundles = {"chat": chat}
    for page, subfolder in BUNDLES.items():
        write_files(page, folder / "bundles" / page)
        bundles[page] = folder / "bundles" / page / subfolder
    for name, bundle in bundles.items():
        words = [sys.executable, "-m", "headwater.cli", "codegen", str(bundle), "--ts", "--out", f"{name}.ts"]
        subprocess.run(words, cwd=folder, check=True, timeout=110)


def refused(node: Node, folder: Path) -> tuple[set[tuple[str, int]], str]:
    """Return the files and lines that tsc refuses below a folder, and what it says."""
    config = {"compilerOptions": OPTIONS, "include": ["right/**/*", "wrong/**/*"]}
    (folder / "tsconfig.json").write_text(json.dumps(config))
    script = PACKAGE / "node_modules" / "typescript" / "bin" / "tsc"
    words = [str(node.program), str(script), "--pretty", "false", "-p", str(folder)]
    run = subprocess.run(
        words, cwd=folder, env=node.environment(), capture_output=True, text=True, timeout=110, check=False
    )
    found = {(match["file"], int(match["line"])) for match in ERROR.finditer(run.stdout)}
    assert bool(found) == bool(run.returncode), run.stdout + run.stderr
    return found, run.stdout


@pytest.fixture(scope="module")
def node() -> Node:
    found = find_node()
    if found is None:
        pytest.skip("there is no Node.js to run tsc with")
    assert installed(found, PACKAGE)
    node_program()  # installs the packages of Convex, of which a guide shows one
    return found


@pytest.mark.timeout(300)
def test_every_block_compiles_and_each_wrong_name_in_one_is_found(node: Node, tmp_path: Path) -> None:
    unpacked(node, tmp_path)
    (tmp_path / "node_modules" / "convex").symlink_to(CONVEX / "node_modules" / "convex")
    write_apis(tmp_path)
    misnamed = set()
    for page, text in pages().items():
        for module in modules(page, text):
            for kind in ("right", "wrong"):
                made = tmp_path / kind / page / module.file
                made.parent.mkdir(parents=True, exist_ok=True)
                assert not made.exists(), f"{page} has {module.file} twice"
                made.write_text(
                    compared(module.text) if kind == "right" else CALL.sub(r"\g<0>_", module.text)
                )
                shutil.copy(tmp_path / f"{page if page in BUNDLES else 'chat'}.ts", made.parent / "api.ts")
            for number, line in enumerate(module.text.splitlines(), 1):
                if CALL.search(line):
                    misnamed.add((f"wrong/{page}/{module.file}", number))
    found, said = refused(node, tmp_path)
    assert [place for place in found if not place[0].startswith("wrong/")] == [], said
    assert misnamed <= found, misnamed - found
    assert len(misnamed) > 40


def test_no_block_of_typescript_is_written_in_a_way_that_is_not_seen() -> None:
    for page, text in pages().items():
        assert len(re.findall(r"```(?:tsx?|typescript|jsx?|javascript)\b", text)) == len(
            BLOCK.findall(text)
        ), page
        indented = re.findall(r"(?:^|\n\n)((?: {4}.*\n)+)", text)
        assert [
            block for block in indented if re.search(r"\bapi\.\w|\bconst \w|\bawait client\.", block)
        ] == [], page


def test_each_hook_and_component_has_its_signature_on_one_page_that_the_index_names() -> None:
    index = (PACKAGE / "src" / "react" / "index.ts").read_text()
    exported = set(re.findall(r"\b(?<!type )((?:use|Headwater|Auth|Unauth)\w+)\b", index)) - {
        "AuthOfService",
        "AuthState",
    }
    listed = (GUIDES / "react-hooks.md").read_text()
    declared: list[str] = []
    for path in (GUIDES / "react-hooks").glob("*.md"):
        assert f"](react-hooks/{path.name})" in listed
        text = path.read_text()
        declared += SIGNATURE.findall(text)
        for part in ("- **Errors.**", "- **Unmount.**"):
            assert part in text, f"{path.name} says nothing of {part}"
    assert len(declared) == len(set(declared))
    assert len(exported) > 12
    assert exported <= set(declared), exported - set(declared)
