"""Where the log of calls goes by settings: file, webhook, console; and what stands still there holds up nobody."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from headwater_server.observe.call_log import CallEvent, Dropped, EventFilter, WaitingRoom
from headwater_server.observe.call_writers import Descriptor, RotatingFile, WriterThread
from support.collector import SECRET, Collector, collecting, webhook_options
from support.daemon import RunningDaemon, running, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as server:
        yield server


# ------------------------------------------------------------------------------------------------- a webhook


def test_batches_are_signed_and_sent_again_until_they_are_taken(collector: Collector, tmp_path: Path) -> None:
    collector.refusals = 2
    with running(tmp_path / "daemon", *webhook_options(collector, tmp_path), deploy="logs") as daemon:
        daemon.call("query", "says:look", name="w")
        wait_until(lambda: len(collector.batches) >= 3)
        (event,) = collector.events
        assert event["lines"][0]["text"] == "looking for w"
        deliveries = {headers["headwater-delivery"] for headers, _ in collector.batches}
        assert len(deliveries) == 1, "so that a receiver knows what it has had already"
        for headers, body in collector.batches:
            timestamp = headers["headwater-timestamp"]
            made = hmac.new(SECRET.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
            assert hmac.compare_digest(made, headers["headwater-signature"])
            assert int(timestamp) > 1_600_000_000
        command = Path(f"/proc/{daemon.process.pid}/cmdline").read_bytes() if daemon.process else b""
        for text in daemon.log_text(), command.decode(), collector.batches[0][1].decode():
            assert SECRET not in text
        assert "token=hush" not in daemon.log_text()
        assert "503" in daemon.log_text()
        assert daemon.terminate() == 0


def test_a_server_that_stands_still_holds_up_no_call_and_what_it_missed_is_told(
    collector: Collector, tmp_path: Path
) -> None:
    options = webhook_options(
        collector, tmp_path, "--call-log-waiting-events", "20", "--call-log-webhook-time-limit-s", "300"
    )
    collector.goes_on.clear()
    with running(tmp_path / "daemon", *options, deploy="logs") as daemon:
        for number in range(300):
            daemon.call("mutation", "says:add", name=str(number))
        assert not collector.batches
        dropped = 'headwater_call_log_dropped_total{destination="webhook"}'
        missed = daemon.metric(dropped)
        assert missed > 0
        collector.goes_on.set()
        wait_until(lambda: any(event["type"] == "dropped" for event in collector.events))
        daemon.call("mutation", "says:add", name="the last")
        wait_until(lambda: collector.events[-1].get("lines", [{}])[0].get("text") == "adding the last")
        told = sum(event["count"] for event in collector.events if event["type"] == "dropped")
        assert told == missed == daemon.metric(dropped)
        assert told + sum(event["type"] == "call" for event in collector.events) == 301


def test_a_server_that_redirects_or_is_not_there_is_given_up_after_some_attempts(
    collector: Collector, tmp_path: Path
) -> None:
    collector.redirects = True
    options = webhook_options(collector, tmp_path, "--call-log-webhook-attempts-limit", "2")
    with running(tmp_path / "daemon", *options, deploy="logs") as daemon:
        daemon.call("query", "says:hush")
        dropped = 'headwater_call_log_dropped_total{destination="webhook"}'
        wait_until(lambda: daemon.metric(dropped) == 1)
        assert len(collector.batches) == 2, "what it redirects to is not asked"
        assert "307" in daemon.log_text()


@pytest.mark.parametrize(
    ("url", "secret", "said"),
    [
        ("http://logs.example/x", SECRET, "must begin with https://"),
        ("ftp://127.0.0.1/x", SECRET, "is not an address"),
        ("https://logs.example/x", None, "HEADWATER_CALL_LOG_WEBHOOK_SECRET"),
        ("https://logs.example/x", "short", "shorter than 24"),
    ],
)
def test_a_webhook_that_is_not_safe_is_refused_at_the_start(
    tmp_path: Path, url: str, secret: str | None, said: str
) -> None:
    daemon = RunningDaemon(tmp_path, ("--call-log-webhook-url", url))
    if secret is not None:
        daemon.environment["HEADWATER_CALL_LOG_WEBHOOK_SECRET"] = secret
    daemon.launch()
    assert daemon.wait_end() == 1
    assert said in daemon.log_text()
    assert not daemon.data.exists()


def test_a_secret_from_the_environment_is_kept_from_user_code(collector: Collector, tmp_path: Path) -> None:
    daemon = RunningDaemon(tmp_path, ("--call-log-webhook-url", collector.url))
    daemon.environment["HEADWATER_CALL_LOG_WEBHOOK_SECRET"] = SECRET
    try:
        daemon.start()
        daemon.must_deploy("logs")
        daemon.call("query", "says:hush")
        wait_until(lambda: collector.batches)
        for pid in [*daemon.worker_pids(), daemon.zygote_pid()]:
            assert SECRET.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
    finally:
        daemon.end()


# --------------------------------------------------------------------------------------------------- a file


def test_the_file_is_changed_when_it_is_full_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "calls.log"
    options = (
        "--call-log-file",
        str(file),
        "--call-log-file-limit-bytes",
        "4096",
        "--call-log-files-kept",
        "2",
    )
    with running(tmp_path / "daemon", *options, deploy="logs") as daemon:
        for _ in range(30):
            daemon.call("query", "says:look", name="f")
        assert daemon.terminate() == 0
        daemon.start()
        daemon.call("query", "says:look", name="after the restart")
        wait_until(lambda: "after the restart" in file.read_text())
    names = ["calls.log.2", "calls.log.1", "calls.log"]
    assert sorted(path.name for path in tmp_path.glob("calls.log*")) == sorted(names)
    ids = [json.loads(line)["id"] for name in names for line in (tmp_path / name).read_text().splitlines()]
    assert ids == sorted(set(ids))
    assert len(ids) > 8
    for name in names:
        assert (tmp_path / name).stat().st_size <= 4096
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


def test_a_file_that_cannot_be_written_is_told_once_and_calls_go_on(tmp_path: Path) -> None:
    options = ("--call-log-file", str(tmp_path / "nowhere" / "calls.log"))
    with running(tmp_path / "daemon", *options, deploy="logs") as daemon:
        daemon.call("query", "says:hush")
        wait_until(lambda: "call_log_not_written" in daemon.log_text())
        (tmp_path / "nowhere").mkdir()
        daemon.call("query", "says:look", name="now")
        file = tmp_path / "nowhere" / "calls.log"
        wait_until(lambda: file.exists() and "looking for now" in file.read_text())
        assert json.loads(file.read_text().splitlines()[0]) == {"type": "dropped", "count": 1}
        assert daemon.log_text().count("call_log_not_written") == 1


# ------------------------------------------------------------------------------------------------- the thread


def event(text: str = "") -> CallEvent:
    made = CallEvent("query", "a:b", "http", "success", lines=[("info", text)])
    made.kept_bytes = made.size_bytes
    return made


def text_of(item: CallEvent | Dropped) -> bytes:
    return (
        b"dropped %d\n" % (item.count or 0)
        if isinstance(item, Dropped)
        else item.lines[0][1].encode() + b"\n"
    )


def counted(line: bytes) -> int:
    """Return for how many events a whole line stands."""
    return int(line[8:]) if line.startswith(b"dropped ") else int(len(line) == 1_000)


async def test_a_pipe_that_nobody_reads_holds_up_the_thread_alone() -> None:
    reading, writing = os.pipe()
    room = WaitingRoom(10, 1 << 20)
    writer = WriterThread("console", EventFilter(), room, text_of, Descriptor(writing))
    writer.start()
    for number in range(1_000):
        writer.offer(event(f"{number} ".ljust(1_000, "x")))  # a pipe holds 64 KiB
    assert writer.dropped > 0
    await writer.close()  # which does not wait for it
    found = b""
    while sum(counted(line) for line in found.splitlines()) < 1_000:
        found += os.read(reading, 1 << 16)
    assert sum(line[:1].isdigit() for line in found.splitlines()) + writer.dropped == 1_000
    os.close(reading)
    os.close(writing)


def test_each_line_stands_whole_in_one_file(tmp_path: Path) -> None:
    file = RotatingFile(tmp_path / "log", 100, 3)
    for number in range(20):
        file.write([b"%02d " % number + b"x" * 30 + b"\n", b"%02d " % number + b"y" * 50 + b"\n"])
    file.write([b"z" * 300 + b"\n"])
    file.close()
    assert (tmp_path / "log").read_bytes() == b"z" * 300 + b"\n", "one that is larger has a file of its own"
    kept = b"".join((tmp_path / f"log.{number}").read_bytes() for number in (3, 2, 1))
    assert kept.splitlines()[-1] == b"19 " + b"y" * 50
    assert not (tmp_path / "log.4").exists()
