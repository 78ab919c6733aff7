from __future__ import annotations

import os

from headwater_server.functions.limits import WorkerLimits
from headwater_server.functions.memory import private_bytes
from headwater_server.functions.roster import describe_end
from headwater_server.functions.zygote_process import worker_environment
from headwater_server.worker.control import EXIT_MEMORY
from headwater_server.worker.main import RandomPool
from headwater_server.worker.progress import ProgressPage, make_progress_descriptor


def test_both_sides_of_a_progress_page_see_the_same() -> None:
    descriptor = make_progress_descriptor()
    worker, daemon = ProgressPage(descriptor), ProgressPage(descriptor)
    os.close(descriptor)
    assert daemon.running()[0] == 0
    worker.begin(2**63, 12345)
    assert daemon.running() == (2**63, 12345)
    worker.end()
    assert daemon.running()[0] == 0
    worker.close()
    daemon.close()


def test_random_bytes_are_handed_out_once() -> None:
    pool = RandomPool(os.urandom)
    taken = [pool.take(10) for _ in range(2000)] + [pool.take(10_000)]
    assert len(set(taken)) == 2001
    assert {len(piece) for piece in taken} == {10, 10_000}


def test_the_end_of_a_process_is_said_in_words() -> None:
    assert "SIGSEGV" in describe_end(-11)
    assert "memory" in describe_end(EXIT_MEMORY)
    assert "3" in describe_end(3)
    assert "200" in describe_end(-200)


def test_user_code_does_not_see_the_daemons_settings() -> None:
    assert worker_environment({"HEADWATER_KEY": "secret", "PATH": "/bin"}) == {"PATH": "/bin"}


def test_private_memory_is_read_and_a_process_that_is_gone_has_none() -> None:
    assert private_bytes(os.getpid()) > 1 << 20
    assert private_bytes(2**22 + 1) == 0


def test_default_limits_leave_room_for_a_whole_transaction() -> None:
    limits = WorkerLimits()
    assert limits.memory_limit_bytes > 4 * limits.calls.bytes_written_max
