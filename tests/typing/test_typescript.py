"""The generated TypeScript as tsc sees it: right programs pass, wrong lines are found where they stand.

A line that must be refused ends in `// error`. Any functions at all give a file that compiles.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from headwater.typescript_api import typescript_api
from headwater_protocol.manifest import Manifest, TableManifest, canonical_json
from support.manifests import RandomFunctions

from tools.node import Node, find_node
from tools.web import PACKAGE, installed

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"
BUNDLES = {
    "chat": EXAMPLES / "chat" / "functions",
    "departures": EXAMPLES / "departures" / "functions",
    "right": HERE / "right",
}
FOUND = re.compile(r"^(?P<file>[\w.]+)\((?P<line>\d+),\d+\): error ", re.MULTILINE)
# As in a new Vite project, but for the place of the package, and stricter.
OPTIONS = {
    "target": "ES2022",
    "lib": ["ES2022", "DOM"],
    "module": "ESNext",
    "moduleResolution": "bundler",
    "strict": True,
    "noUncheckedIndexedAccess": True,
    "exactOptionalPropertyTypes": True,
    "noEmit": True,
    "types": [],
    "jsx": "react-jsx",
    "paths": {
        "headwater": [str(PACKAGE / "src" / "index.ts")],
        "headwater/*": [str(PACKAGE / "src" / "*" / "index.ts")],
        "react/*": [str(PACKAGE / "node_modules" / "@types" / "react" / "*")],
    },
}

Found = dict[str, set[int]]


@pytest.fixture(scope="module")
def node() -> Node:
    found = find_node()
    if found is None:
        pytest.skip("there is no Node.js to run tsc with")
    assert installed(found, PACKAGE)
    return found


def tsc(node: Node, folder: Path) -> tuple[Found, str]:
    """Return the lines that tsc refuses in each file of a folder, and what it says."""
    (folder / "tsconfig.json").write_text(
        json.dumps({"compilerOptions": OPTIONS, "include": ["*.ts", "*.tsx"]})
    )
    script = PACKAGE / "node_modules" / "typescript" / "bin" / "tsc"
    words = [str(node.program), str(script), "--pretty", "false", "-p", str(folder)]
    run = subprocess.run(
        words, cwd=folder, env=node.environment(), capture_output=True, text=True, timeout=110, check=False
    )
    assert run.returncode in (0, 1, 2), run.stdout + run.stderr
    found: Found = defaultdict(set)
    for match in FOUND.finditer(run.stdout):
        found[match["file"]].add(int(match["line"]))
    assert bool(found) == bool(run.returncode), run.stdout + run.stderr
    return found, run.stdout


def expected() -> Found:
    lines: Found = defaultdict(set)
    for path in (HERE / "typescript").glob("*.ts*"):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if line.endswith("// error"):
                lines[path.name].add(number)
    return lines


def test_tsc_finds_the_wrong_lines_and_no_other(node: Node, tmp_path: Path) -> None:
    for path in (HERE / "typescript").glob("*.ts*"):
        shutil.copy(path, tmp_path)
    for name, bundle in BUNDLES.items():
        words = [sys.executable, "-m", "headwater.cli", "codegen", str(bundle), "--ts"]
        subprocess.run([*words, "--out", f"{name}_api.ts"], cwd=tmp_path, check=True, timeout=110)
    found, said = tsc(node, tmp_path)
    assert found == expected(), said
    assert sum(map(len, found.values())) > 40


def test_the_types_of_any_functions_compile(node: Node, tmp_path: Path) -> None:
    row = {"$ref": "#/$defs/Date", "$defs": {"Date": {"type": "object", "properties": {}, "required": []}}}
    row["$defs"]["Date"]["properties"]["_id"] = {"type": "string", "x-table": "rows"}
    rows = TableManifest("rows", canonical_json(row))
    for seed in range(60):
        some = RandomFunctions(seed)
        named = {item.name: item for item in (some.function() for _ in range(6))}
        manifest = Manifest((rows,), tuple(item for _, item in sorted(named.items())))
        text = typescript_api(manifest)
        assert text == typescript_api(Manifest.from_json(manifest.to_json()))
        (tmp_path / f"any_{seed}.ts").write_text(text)
    found, said = tsc(node, tmp_path)
    assert found == {}, said


def test_a_file_that_is_no_typescript_is_seen(node: Node, tmp_path: Path) -> None:
    (tmp_path / "broken.ts").write_text(typescript_api(Manifest()) + "\nexport type Row = { a b };\n")
    assert tsc(node, tmp_path)[0]
