"""The React quick start, done as it is written: its files, its commands, its page in a browser.

Only the ports are others, as somebody may listen on the usual ones, and the environment of the checkout is there already.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest
from support.daemon import free_port

from tools.checkout import ROOT
from tools.node import Node, find_node
from tools.web import PACKAGE, installed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGE = ROOT / "docs" / "guides" / "react.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"(?:# |// |<!-- )(chat/\S+)(?: -->)?\n")
LASTING = ("dev functions", "npx vite")
PATIENCE_S = 90
NOT_AGAIN = {'make -C "$HEADWATER" setup', 'npm --prefix "$HEADWATER/clients/typescript" ci'}


@pytest.fixture
def node() -> Node:
    found = find_node()
    if found is None:
        pytest.skip("there is no Node.js")
    assert installed(found, PACKAGE)
    return found


@pytest.mark.timeout(400)
def test_the_quick_start_works_as_it_is_written(node: Node, tmp_path: Path) -> None:
    server, web = str(free_port()), str(free_port())
    text = PAGE.read_text().replace("localhost:4510", f"localhost:{server}")
    text = text.replace("dev functions", f"dev functions --port {server} --tcp-port 0")
    text = text.replace("npx vite\n", f"npx vite --port {web} --strictPort\n")
    environment = {**node.environment(), "HEADWATER": str(ROOT), "npm_config_prefer_offline": "true"}
    with ExitStack() as running:
        for language, content in BLOCK.findall(text):
            named = FILE.match(content)
            if named is not None:
                (tmp_path / named[1]).write_text(content[named.end() :])
                continue
            assert language == "sh", content
            lines = "\n".join(line for line in content.splitlines() if line not in NOT_AGAIN)
            if any(word in content for word in LASTING):
                running.enter_context(lasting(lines, tmp_path, environment))
            else:
                subprocess.run(
                    ["sh", "-ec", lines], cwd=tmp_path, env=environment, check=True, timeout=PATIENCE_S * 2
                )
        assert "export const api" in (tmp_path / "chat/web/src/api.ts").read_text()
        browser = shutil.which("chromium")
        if browser is None:
            pytest.skip("all but the page was tried: there is no Chromium")
        script = PACKAGE / "node_modules" / ".open_chat.mjs"  # where it finds its package
        shutil.copy(ROOT / "tests" / "docs" / "open_chat.mjs", script)
        assert node.run(script, f"http://localhost:{web}", browser, folder=PACKAGE) == 0


@contextmanager
def lasting(lines: str, folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """Run commands whose last goes on; wait until it says where it listens, and interrupt it in the end."""
    log = folder / f"log-{time.monotonic_ns()}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["sh", "-ec", lines],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        deadline_s = time.monotonic() + PATIENCE_S
        while not re.search(r"watching|localhost:", log.read_text(errors="replace")):
            assert process.poll() is None, log.read_text(errors="replace")
            assert time.monotonic() < deadline_s, log.read_text(errors="replace")
            time.sleep(0.05)
        yield
    finally:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        sys.stdout.write(log.read_text(errors="replace"))
