from __future__ import annotations

from headwater_server.jobs.due_jobs import DueJobs, wait_s
from headwater_server.jobs.job_retries import RetryPolicy
from headwater_storage.job_rows import DueJob
from hypothesis import given, settings
from hypothesis import strategies as st


class Waiting:
    """Pending jobs in a dict, and a queue that looks at them as the scheduler does."""

    def __init__(self, running_max: int, known_max: int) -> None:
        self.pending: dict[str, int] = {}
        self.queue = DueJobs(running_max, known_max)
        self.looks = 0

    def first(self) -> list[DueJob]:
        ordered = sorted((due, name) for name, due in self.pending.items() if name not in self.queue.running)
        return [DueJob(due, name) for due, name in ordered[: self.queue.known_max]]

    def begin(self, now_us: int) -> list[str]:
        begun = []
        while True:
            if self.queue.look_due:
                self.looks += 1
                self.queue.looked(self.first())
            job = self.queue.take(now_us)
            if job is None:
                return begun
            begun.append(job.id)

    def schedule(self, name: str, due_us: int) -> None:
        self.pending[name] = due_us
        self.queue.scheduled(due_us)

    def end(self, name: str) -> None:
        self.pending.pop(name, None)
        self.queue.ended(name)


STEP = st.one_of(
    st.tuples(st.just("schedule"), st.integers(0, 50)),
    st.tuples(st.just("end"), st.integers(0, 9)),
    st.tuples(st.just("cancel"), st.integers(0, 9)),
    st.tuples(st.just("pass"), st.integers(1, 10)),
)


@settings(max_examples=300)
@given(st.integers(1, 3), st.integers(1, 4), st.lists(STEP, max_size=60))
def test_what_is_due_has_a_place_as_soon_as_one_is_free(
    running_max: int, known_max: int, steps: list[tuple[str, int]]
) -> None:
    world, now, made = Waiting(running_max, known_max), 0, 0
    for what, number in steps:
        if what == "schedule":
            made += 1
            world.schedule(f"{made:03}", number)
        elif what == "end" and world.queue.running:
            world.end(sorted(world.queue.running)[number % len(world.queue.running)])
        elif what == "cancel" and world.pending:
            name = sorted(world.pending)[number % len(world.pending)]
            if name not in world.queue.running:
                del world.pending[name]
        elif what == "pass":
            now += number
        world.begin(now)
        due = {name for name, due_us in world.pending.items() if due_us <= now}
        cancelled = world.queue.running - world.pending.keys()
        assert len(world.queue.running) <= running_max
        assert due <= world.queue.running or len(world.queue.running) == running_max
        for name in cancelled:  # begun and found to be gone, as a cancelled job is
            world.end(name)
        world.begin(now)


def test_what_waits_is_not_looked_at_again_and_again() -> None:
    world = Waiting(2, 10)
    for number in range(1000):
        world.pending[f"{number:04}"] = 1_000 + number
    assert world.begin(0) == []
    assert world.looks == 1
    world.queue.scheduled(5_000)
    assert world.begin(0) == []
    assert world.looks == 1, "it is due later than what is known"
    world.schedule("now", 0)
    assert world.begin(0) == ["now"]
    assert world.looks == 2


def test_the_wait_is_until_the_first_job_or_the_next_look_at_the_clock() -> None:
    soon, later, idle = DueJobs(1, 4), DueJobs(1, 4), DueJobs(1, 4)
    soon.looked([DueJob(1_500_000, "a")])
    later.looked([DueJob(9_000_000, "b")])
    idle.looked([])
    assert wait_s([soon, later, idle], 1_000_000, 1.0) == 0.5
    assert wait_s([later, idle], 1_000_000, 1.0) == 1.0
    assert wait_s([soon], 2_000_000, 1.0) == 0.0
    assert soon.take(2_000_000) == DueJob(1_500_000, "a")
    assert wait_s([soon], 2_000_000, 1.0) == 1.0, "its one place is taken"


def test_faults_of_the_system_are_tried_again_and_those_of_functions_are_not() -> None:
    policy = RetryPolicy(deaths_max=3, first_s=0.1, longest_s=1.0)
    again = ("overloaded", "unavailable", "conflict", "disk_full", "no_bundle", "outcome_unknown")
    assert all(policy.again(code, 0) for code in again)
    never = ("application_error", "internal_error", "time_limit", "unknown_function", "invalid_arguments")
    assert not any(policy.again(code, 0) for code in never)
    assert [policy.again("worker_died", deaths) for deaths in (1, 2, 3, 4)] == [True, True, False, False]
    assert [policy.pause_s(attempts) for attempts in (1, 2, 3, 4, 5, 500)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
