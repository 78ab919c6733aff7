"""Crons in a real daemon: declared by a bundle, run, read, changed by a deploy, and no time twice over a kill."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from support.daemon import BUNDLES, RunningDaemon, running, wait_until

if TYPE_CHECKING:
    from pathlib import Path

CRONS = """
from headwater import CronJob, QueryCtx, cron, daily, every, query

from . import work

cron("tick", every(seconds=1), work.take_effect, name="tick")
cron("act", every(seconds=1), work.act, name="acted")
cron("nightly", daily("03:30", time_zone="Europe/Berlin"), work.refuse, name="x")


@query
def crons(ctx: QueryCtx) -> list[CronJob]:
    return ctx.db.query(CronJob.by_name).collect()
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "functions"
    shutil.copytree(BUNDLES / "jobs" / "functions", folder)
    (folder / "crons.py").write_text(CRONS)
    return folder


def spec(source: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "headwater.cli", "spec", str(source)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def cron(daemon: RunningDaemon, name: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = daemon.call("query", "crons:crons")
    return next(one for one in found if one["name"] == name)


def test_crons_run_and_a_deploy_changes_them(source: Path, tmp_path: Path) -> None:
    with running(tmp_path / "daemon", "--workers", "2", "--action-workers", "1") as daemon:
        answer = daemon.deploy(source)
        added = [change["name"] for change in answer.json["changes"] if change["what"] == "cron"]
        assert added == ["act", "nightly", "tick"]
        wait_until(lambda: daemon.call("query", "work:count", name="tick") >= 2)
        wait_until(lambda: daemon.call("query", "work:count", name="acted") >= 1)
        wait_until(lambda: cron(daemon, "tick")["runs"][0]["state"] == "success")
        nightly = cron(daemon, "nightly")
        assert (nightly["schedule"], nightly["time_zone"], nightly["runs"]) == (
            "30 3 * * *",
            "Europe/Berlin",
            [],
        )
        run = cron(daemon, "tick")["runs"][0]
        assert daemon.call("query", "work:job", job=run["job"])["cron"] == cron(daemon, "tick")["_id"]
        (source / "crons.py").write_text(
            CRONS.replace("daily", "weekly")
            .replace('"03:30"', '"friday"')
            .replace('cron("tick", every(seconds=1)', 'cron("tick", every(hours=1)')
            .replace('cron("act"', 'cron("other"')
        )
        changes = {change["name"]: change for change in daemon.deploy(source).json["changes"]}
        assert {name: change["sign"] for name, change in changes.items()} == {
            "act": "removed",
            "nightly": "changed",
            "other": "added",
            "tick": "changed",
        }
        assert cron(daemon, "tick")["runs"], "what came of its runs is told further on"
        count = daemon.call("query", "work:count", name="tick")
        wait_until(lambda: len(cron(daemon, "other")["runs"]) >= 2)
        assert daemon.call("query", "work:count", name="tick") <= count + 1, "one may have been under way"


def test_no_time_of_a_cron_is_lost_or_doubled_over_kills(source: Path, tmp_path: Path) -> None:
    with running(tmp_path / "daemon", "--workers", "2", "--cron-runs-kept", "100", deploy=source) as daemon:
        for count in (1, 3, 5):
            wait_until(lambda count=count: daemon.call("query", "work:count", name="tick") >= count)
            daemon.kill()
            assert daemon.doctor() == []
            daemon.start()
        wait_until(lambda: cron(daemon, "tick")["runs"][-1]["state"] == "success")
        runs = cron(daemon, "tick")["runs"]
        ran = [one for one in runs if one["state"] == "success"]
        assert all(one["state"] in ("success", "skipped", "started") for one in runs)
        dues = [one["due_ms"] for one in ran]
        assert dues == sorted(set(dues))
        first, last = dues[0], dues[-1]
        skipped = sum(one["skipped"] for one in runs if one["due_ms"] <= last)
        assert round((last - first) / 1000) + 1 == len(ran) + skipped, (
            "each second has run or is told to be skipped"
        )
        counted = daemon.call("query", "work:count", name="tick")
        assert len(ran) <= counted <= len(ran) + 3


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('cron("x", every(seconds=1), work.count, name="x")', "work:count is a query; schedule a @mutation"),
        (
            'cron("x", every(seconds=1), work.take_effect, nam="x")',
            "unknown argument `nam`; did you mean `name`?",
        ),
        ('cron("x", "0 0 * *", work.take_effect, name="x")', "expected five fields"),
        ('cron("x", every(), work.take_effect, name="x")', "got 0 s"),
        (
            'cron("tick", every(seconds=1), work.take_effect, name="x")',
            "two crons are called 'tick'; rename one",
        ),
        ('cron("", every(seconds=1), work.take_effect, name="x")', "expected a name"),
        ('cron("x", 60, work.take_effect, name="x")', "expected when, such as every(minutes=10), got 60"),
        ('cron("x", every(seconds=1), print)', "it takes a @mutation or @action of this bundle"),
        ('def f(): cron("x", every(seconds=1), work.act, name="x")\nf()', "at the top level of a module"),
    ],
)
def test_what_is_no_cron_is_refused_with_the_bundle(source: Path, line: str, said: str) -> None:
    (source / "crons.py").write_text(f"{CRONS}\n{line}\n")
    done = spec(source)
    assert done.returncode != 0
    assert said in " ".join(done.stderr.split())


def test_the_spec_tells_crons(source: Path) -> None:
    done = spec(source)
    assert done.returncode == 0, done.stderr
    found = {one["name"]: one for one in json.loads(done.stdout)["crons"]}
    assert found["nightly"]["schedule"] == "30 3 * * *"
    assert found["nightly"]["function"] == "work:refuse"
