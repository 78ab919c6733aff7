"""What `npm pack` puts into the package: all that its exports need, its licence and README, and nothing else."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING

import pytest
from support.npm_package import unpacked

from tools.checkout import ROOT
from tools.node import Node, find_node
from tools.web import PACKAGE, installed

if TYPE_CHECKING:
    from pathlib import Path

RELATIVE = re.compile(r"""(?:from|import)\s*\(?\s*["'](\.{1,2}/[^"']+)["']""")


@pytest.fixture(scope="module")
def node() -> Node:
    found = find_node()
    if found is None:
        pytest.skip("there is no Node.js to run npm with")
    assert installed(found, PACKAGE)
    return found


@pytest.fixture(scope="module")
def package(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked(node, tmp_path_factory.mktemp("npm"))


def described(package: Path) -> dict[str, dict[str, dict[str, str]]]:
    found: dict[str, dict[str, dict[str, str]]] = json.loads((package / "package.json").read_text())
    return found


def test_it_holds_what_was_compiled_of_each_source_and_its_papers(package: Path) -> None:
    held = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}
    source = PACKAGE / "src"
    names = [re.sub(r"\.tsx?$", "", path.relative_to(source).as_posix()) for path in source.rglob("*.ts*")]
    made = {f"dist/{name}{ending}" for name in names for ending in (".js", ".d.ts")}
    assert [name for name in held if "test" in name or "bench" in name] == []
    assert held == {"package.json", "README.md", "LICENSE", *made}
    assert (package / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert (package / "README.md").read_text() == (PACKAGE / "README.md").read_text()


def test_no_file_names_one_that_is_not_there(package: Path) -> None:
    named = 0
    for path in [*package.rglob("*.js"), *package.rglob("*.d.ts")]:
        text = path.read_text()
        assert "sourceMappingURL" not in text, path
        for target in RELATIVE.findall(text):
            named += 1
            ending = ".d.ts" if path.name.endswith(".d.ts") else ".js"
            assert (path.parent / re.sub(r"\.js$", ending, target)).is_file(), f"{path}: {target}"
    assert named > 100


def test_each_export_is_there_and_loads_as_its_types_say(package: Path, node: Node) -> None:
    exports = described(package)["exports"]
    assert set(exports) == {".", "./accounts", "./react", "./server"}
    for target in exports.values():
        assert (package / target["types"]).is_file()
        assert (package / target["default"]).is_file()
    names = [
        "headwater" + export[1:] for export in exports if export != "./react"
    ]  # which needs React itself
    lines = "\n".join(f'import * as m{at} from "{name}"; told(m{at});' for at, name in enumerate(names))
    script = package.parents[1] / "load.mjs"
    script.write_text(f"const told = (m) => console.log(Object.keys(m).length > 0);\n{lines}\n")
    run = subprocess.run(
        [str(node.program), str(script)], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.stdout.split() == ["true"] * len(names), run.stderr


@pytest.mark.parametrize(("module", "resolution"), [("ESNext", "bundler"), ("NodeNext", "NodeNext")])
def test_the_types_of_each_export_are_found(package: Path, node: Node, module: str, resolution: str) -> None:
    folder = package.parents[1] / resolution
    folder.mkdir()
    options = {"module": module, "moduleResolution": resolution, "strict": True, "noEmit": True, "types": []}
    options |= {"target": "ES2022", "lib": ["ES2022", "DOM"], "jsx": "react-jsx"}
    (folder / "tsconfig.json").write_text(json.dumps({"compilerOptions": options}))
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "right.ts").write_text(
        'import { HeadwaterClient } from "headwater";\n'
        'import { AccountClient } from "headwater/accounts";\n'
        'import { useQuery } from "headwater/react";\n'
        'import { fetchQuery } from "headwater/server";\n'
        "export const all = [HeadwaterClient, AccountClient, useQuery, fetchQuery] as const;\n"
    )
    (folder / "wrong.ts").write_text(
        'import { HeadwaterClient } from "headwater";\nexport const port: string = new HeadwaterClient(4510);\n'
        'export * from "headwater/session";\n'
    )
    script = PACKAGE / "node_modules" / "typescript" / "bin" / "tsc"
    words = [str(node.program), str(script), "--pretty", "false", "-p", str(folder)]
    run = subprocess.run(
        words, cwd=folder, env=node.environment(), capture_output=True, text=True, timeout=110, check=False
    )
    refused = set(re.findall(r"^(\w+\.ts)\((\d+),", run.stdout, re.MULTILINE))
    assert refused == {("wrong.ts", "2"), ("wrong.ts", "3")}, run.stdout
