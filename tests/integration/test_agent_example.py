"""The agent: a real daemon, the stand-in for a language model as a process of its own, and the example's client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import headwater
import pytest
from headwater_protocol.errors import ApplicationError
from support.daemon import RunningDaemon, free_port, running, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

ROOT = Path(__file__).parents[2]
KEY = "a-key-that-nobody-may-see"
FUNCTIONS = ROOT / "examples" / "agent" / "functions"


@dataclass
class Agent:
    """All of it, running.

    Attributes:
        daemon: With the example's functions.
        model: The stand-in.
        port: The stand-in's.
    """

    daemon: RunningDaemon
    model: subprocess.Popen[bytes]
    port: int

    def counts(self) -> dict[str, int]:
        """Return how many answers the model has begun, ended, and been left with."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/counts", timeout=10) as answer:
            found: dict[str, int] = json.load(answer)
            return found

    def client(self, *words: str) -> subprocess.Popen[str]:
        """Start the example's client."""
        return subprocess.Popen(
            [sys.executable, "-m", "examples.agent", "--url", self.daemon.url, *words],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def ask(self, *words: str) -> tuple[str, str, int]:
        """Ask with the example's client; returns what it printed, on both, and its exit code."""
        process = self.client("ask", *words)
        printed, told = process.communicate(timeout=60)
        return printed, told, process.returncode


@contextlib.contextmanager
def stand_in(port: int, pause_s: float) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "examples.agent.stand_in", "--port", str(port), "--pause-s", str(pause_s)],
        cwd=ROOT, env=os.environ | {"MODEL_KEY": KEY}, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    port = free_port()
    with stand_in(port, 0.01) as model, running(tmp_path) as daemon:
        configure(daemon, "MODEL_KEY", KEY, secret=True)
        configure(daemon, "MODEL_URL", f"http://127.0.0.1:{port}/v1")
        daemon.must_deploy(FUNCTIONS)
        found = Agent(daemon, model, port)
        wait_until(lambda: answers(found))
        yield found


def answers(agent: Agent) -> bool:
    with contextlib.suppress(OSError):
        return bool(agent.counts())
    return False


def configure(daemon: RunningDaemon, name: str, value: str, *, secret: bool = False) -> None:
    fields = {"name": name, "value": value, "secret": secret}
    answer = daemon.post("/api/admin/environment", fields, Authorization=f"Headwater {daemon.key}")
    assert answer.status == 200, answer.text


def said(agent: Agent, thread: str) -> list[tuple[str, str, str]]:
    """Return what stands in a thread."""
    found = agent.daemon.call("query", "threads:messages", thread=thread)
    return [(message["role"], message["status"], message["text"]) for message in found]


def test_an_answer_streams_and_is_kept_and_the_conversation_goes_on(agent: Agent) -> None:
    printed, told, code = agent.ask("how are you")
    assert (printed, code) == ("You said how are you. That was message 1.\n", 0)
    thread = told.strip().removeprefix("thread ")
    printed, _, code = agent.ask("--thread", thread, "and now")
    assert (printed, code) == ("You said and now. That was message 3.\n", 0), "the model was told all of it"
    assert said(agent, thread) == [
        ("user", "done", "how are you"),
        ("assistant", "done", "You said how are you. That was message 1."),
        ("user", "done", "and now"),
        ("assistant", "done", "You said and now. That was message 3."),
    ]
    follower = agent.client("follow", thread)
    assert follower.stdout is not None
    lines = [follower.stdout.readline() for _ in range(4)]
    follower.terminate()  # not Ctrl-C, which a suite that runs in the background has to ignore
    follower.communicate(timeout=30)
    assert lines[3] == "assistant (done): You said and now. That was message 3.\n"


async def test_others_see_that_it_is_written_and_the_message_when_it_is_there(agent: Agent) -> None:
    async with headwater.connect(agent.daemon.url) as ada, headwater.connect(agent.daemon.tcp_url) as bob:
        thread = await ada.mutation("threads:start", title="t")
        before = await asyncio.to_thread(agent.daemon.metric, "headwater_commits_total")
        shown: list[Any] = []

        async def watch() -> None:
            async for messages in bob.subscribe("threads:messages", thread=thread):
                shown.append([(message["status"], message["text"]) for message in messages])
                if messages and messages[-1]["status"] == "done" and messages[-1]["role"] == "assistant":
                    return

        watching = asyncio.create_task(watch())
        question = " ".join(map(str, range(60)))
        tokens = [token async for token in ada.stream("agent:ask", thread=thread, question=question)]
        await asyncio.wait_for(watching, 20)
        assert len(tokens) == 63
        assert shown[-1] == [("done", question), ("done", "".join(tokens))]
        assert [("done", question), ("writing", "")] in shown
        assert all(len(texts) in (0, 2) for texts in shown)
        assert len(shown) <= 3, "a state before, one while it is written, one when it is there"
        commits = await asyncio.to_thread(agent.daemon.metric, "headwater_commits_total") - before
        assert commits <= 4, "no token is a write"


async def heard(answer: AsyncIterator[str]) -> tuple[list[str], ApplicationError | None]:
    """Return what comes of an answer, and what it fails with."""
    tokens: list[str] = []
    try:
        async for token in answer:
            tokens.append(token)  # noqa: PERF401 - what came is wanted although it raises
    except ApplicationError as failure:
        return tokens, failure
    return tokens, None


@pytest.mark.parametrize(
    ("word", "code", "kept"),
    [
        ("!fail", {"code": "model_failed", "status": 500}, ""),
        ("!busy", {"code": "model_busy", "status": 429}, ""),
        ("!cut", {"code": "model_cut"}, "You said tell"),
    ],
)
async def test_a_model_that_fails_is_told_and_what_there_was_is_kept(
    agent: Agent, word: str, code: dict[str, Any], kept: str
) -> None:
    async with headwater.connect(agent.daemon.url) as client:
        thread = await client.mutation("threads:start", title="t")
        question = f"tell me {word}"
        tokens, failure = await heard(client.stream("agent:ask", thread=thread, question=question))
        assert failure is not None
        assert failure.data == code
        assert "".join(tokens) == kept
        assert (await client.query("threads:messages", thread=thread))[-1]["status"] == "failed"
        assert (await client.query("threads:messages", thread=thread))[-1]["text"] == kept
        assert [t async for t in client.stream("agent:ask", thread=thread, question="again")], "it goes on"


async def test_a_model_that_ends_in_the_middle_and_one_that_is_not_there(agent: Agent) -> None:
    async with headwater.connect(agent.daemon.url) as client:
        thread = await client.mutation("threads:start", title="t")
        answer = client.stream("agent:ask", thread=thread, question="!hang")
        assert await anext(answer) == "You"
        agent.model.kill()
        with pytest.raises(ApplicationError) as cut:
            await anext(answer)
        assert cut.value.data["code"] in ("model_cut", "model_unreachable")
        with pytest.raises(ApplicationError) as gone:
            await anext(client.stream("agent:ask", thread=thread, question="are you there"))
        assert gone.value.data["code"] == "model_unreachable"
        messages = await client.query("threads:messages", thread=thread)
        assert [message["status"] for message in messages] == ["done", "failed", "done", "failed"]


def test_a_caller_that_goes_away_cancels_it(agent: Agent) -> None:
    """The model is left as well, and what it had said is kept."""
    thread = agent.daemon.call("mutation", "threads:start", title="t")
    client = agent.client("ask", "--thread", thread, "!hang on")
    assert client.stdout is not None
    assert client.stdout.read(3) == "You"
    assert said(agent, thread)[-1] == ("assistant", "writing", "")
    refused = agent.ask("--thread", thread, "me first")
    assert (refused[1].strip(), refused[2]) == ("agent: {'code': 'busy'}", 1)
    client.kill()
    client.communicate()
    wait_until(lambda: agent.counts()["left"] == 1)
    wait_until(lambda: said(agent, thread)[-1] == ("assistant", "cancelled", "You"))
    assert agent.ask("--thread", thread, "again")[2] == 0


def test_an_answer_whose_process_has_ended_is_given_up(agent: Agent) -> None:
    thread = agent.daemon.call("mutation", "threads:start", title="t")
    client = agent.client("ask", "--thread", thread, "!hang on")
    assert client.stdout is not None
    assert client.stdout.read(3) == "You"
    agent.daemon.kill()
    client.kill()
    client.communicate()
    agent.daemon.start()
    assert said(agent, thread)[-1] == ("assistant", "writing", "")
    found = agent.daemon.call("query", "threads:messages", thread=thread)[-1]
    # It is due in some minutes; the job is run as its scheduler would run it.
    body = {"path": "threads:give_up", "args": {"answer": found["_id"]}, "format": "json"}
    done = agent.daemon.post("/api/mutation", body, Authorization=f"Headwater {agent.daemon.key}")
    assert done.json["status"] == "success", done.text
    assert found["watchdog"], "it is scheduled"
    assert said(agent, thread)[-1] == ("assistant", "failed", "")


def test_too_many_questions_are_refused_with_the_time_to_wait(agent: Agent) -> None:
    thread = agent.daemon.call("mutation", "threads:start", title="t")
    body = {"path": "agent:ask", "args": {"thread": thread, "question": "hi"}, "format": "json"}
    answers = [agent.daemon.post("/api/action", body).json for _ in range(12)]
    assert [answer["status"] for answer in answers[:10]] == ["success"] * 10
    refused = next(answer for answer in answers if answer["status"] == "error")
    assert refused["errorData"]["kind"] == "rate_limited"
    assert 0 < refused["errorData"]["retry_after_s"] <= 6


def test_the_key_is_in_no_answer_and_no_log(agent: Agent) -> None:
    configure(agent.daemon, "MODEL_KEY", KEY + "-wrong", secret=True)
    _, told, code = agent.ask("how are you")
    assert code == 1
    assert "'status': 401" in told
    assert KEY not in told
    logs = agent.daemon.get("/api/admin/logs", Authorization=f"Headwater {agent.daemon.key}").text
    assert "agent:ask" in logs
    assert KEY not in logs
    assert KEY not in agent.daemon.log_text()
