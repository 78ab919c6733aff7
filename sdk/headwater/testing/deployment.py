"""A deployment for tests: a bundle over a database in memory whose time and chance the test decides."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from headwater_protocol.variables import VariableRow, checked_name
from headwater_server.functions.limits import WorkerLimits
from headwater_storage.catalog import ENVIRONMENT
from headwater_storage.memory_engine import MemoryEngine

from headwater.identity import Identity
from headwater.refusals import invalid_bundle
from headwater.testing.calls import Caller, Stage
from headwater.testing.jobs import JobStage, specs_from
from headwater.testing.worker import Worker, load

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

    from headwater.accounts import Account
    from headwater.fields import Id
    from headwater.testing.worker import TestedBundle

START = datetime(2026, 1, 1, tzinfo=UTC)
"""When a test begins that does not say it: the same for each, whenever it runs."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_BEFORE = timedelta(seconds=1)
"""So long before its time a test's bundle was deployed: the first call shall see that time itself."""

_APART = timedelta(milliseconds=1)
"""The calls of a test are some µs apart: what one of them schedules in an hour is due an hour later, and not a little after that."""

_ISSUER = "https://issuer.example.com"


class _StandingClock:
    """Stands still until it is moved."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def wall_us(self) -> int:
        """Return wall clock time, µs since 1970."""
        return (self.now - _EPOCH) // _MICROSECOND

    def mono_s(self) -> float:
        """Return monotonic time in seconds."""
        return self.wall_us() / 1e6

    def sleep(self, seconds: float) -> None:
        """Move it."""
        self.now += timedelta(seconds=seconds)


class Deployment(Caller):
    """A package of functions, deployed on an empty database; calls it makes itself have no identity.

    Everything runs in the thread of the test, and waits for nothing. Two deployments share nothing.

    Args:
        package: The bundle: the imported package whose modules hold tables and functions.
        now: Its time; aware.
        seed: Decides ids and `ctx.random` of mutations: the same calls with the same seed give the same.
        environment: Environment variables, as text, secret ones too.

    Raises:
        RequestError: `invalid_bundle`: what `headwater deploy` would refuse.
    """

    def __init__(
        self,
        package: ModuleType,
        *,
        now: datetime = START,
        seed: int = 0,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        limits = WorkerLimits()
        random_bytes = Random(seed).randbytes
        self._clock = _StandingClock(_aware(now) - _BEFORE)
        engine = MemoryEngine(self._clock, random_bytes, limits.calls)
        bundle = load(package)
        _require_fit(bundle, lambda name: None, environment)
        start_us = (now - _EPOCH) // _MICROSECOND
        engine.deploy(bundle.declared.tables, bundle.name, specs_from(bundle.declared, start_us))
        self._clock.now = now
        super().__init__(Stage(engine, Worker(bundle, engine, limits, random_bytes), random_bytes), None)
        self._jobs = JobStage(self._stage)
        for name, value in environment.items():
            self._put_variable(name, value)

    def as_user(
        self, subject: str, *, name: str | None = None, email: str | None = None, **claims: Any
    ) -> Caller:
        """Return a caller who is signed in as a user of some issuer.

        Args:
            subject: The issuer's name of the user.
            name: For people.
            email: Email address.
            **claims: What the token claims besides, such as `email_verified=True`.
        """
        told = {"sub": subject, "iss": _ISSUER, "name": name, "email": email, **claims}
        claimed = {label: value for label, value in told.items() if value is not None}
        return self.with_identity(Identity(f"{_ISSUER}|{subject}", subject, _ISSUER, name, email, claimed))

    def as_account(self, account: Account | Id[Account]) -> Caller:
        """Return a caller who is signed in as an account of the bundle, without a session that could end."""
        return self.with_identity(
            self._stage.issuer.identity_without_session(account if isinstance(account, str) else account.id)
        )

    def with_token(self, token: str) -> Caller:
        """Return a caller who brings an access token of the bundle's accounts, checked as the daemon does it.

        Raises:
            RequestError: `unauthenticated`: it does not count, or not any more.
        """
        return self.with_identity(self._stage.issuer.identity_of(token))

    def with_identity(self, identity: Identity) -> Caller:
        """Return a caller with this identity, which `ctx.auth.identity()` gives to functions."""
        return Caller(self._stage, identity)

    def set_variable(self, name: str, value: str | None) -> None:
        """Set an environment variable, or remove it with None: whatever has read it is run again.

        Raises:
            RequestError: It does not fit what the bundle declares, or the bundle needs it.
        """
        engine = self._stage.engine
        with engine.begin(writable=False) as transaction:
            _require_fit(self._stage.worker.bundle, transaction.variable, {name: value})
        self._put_variable(name, value)
        self._stage.published()

    def _put_variable(self, name: str, value: str | None) -> None:
        checked_name(name, 64)
        engine = self._stage.engine
        with engine.begin() as transaction:
            row = None if value is None else VariableRow(value, None, 0).to_bytes()
            transaction.put_row(ENVIRONMENT, name.encode(), row)
            proposal = transaction.proposal()
        engine.commit(proposal)

    @property
    def now(self) -> datetime:
        """What the clock shows. It stands; each call is 1 µs later than the one before, as in the daemon."""
        return self._clock.now

    @now.setter
    def now(self, moment: datetime) -> None:
        self.advance(_aware(moment) - self._clock.now)

    def advance(self, time: timedelta) -> None:
        """Move the clock on: the next call sees exactly that time. Nothing that is scheduled runs.

        Raises:
            ValueError: It would go back, which the time of calls never does.
        """
        if time < timedelta(0):
            raise ValueError(f"time goes forward only, got {time}")
        self._clock.now += time

    async def run_due(self) -> int:
        """Run the jobs and crons that are due, and what they schedule for the present; return how many jobs have run.

        They have no identity. One that fails is told in its job: `ctx.db.get(job).error`.

        Raises:
            RuntimeError: There is no end to it.
        """
        return await self._jobs.run_due()

    async def pass_time(self, time: timedelta) -> int:
        """Let time pass, and run each job and cron that comes due meanwhile at its own time; return how many jobs have run.

        Raises:
            ValueError: It would go back.
        """
        if time < timedelta(0):
            raise ValueError(f"time goes forward only, got {time}")
        end = self._clock.now + time
        count = await self._jobs.run_due()
        while (due_us := self._jobs.next_due_us()) is not None:
            due = due_us * _MICROSECOND + _EPOCH
            if due > end + _APART:
                break
            self._clock.now = max(self._clock.now, due)
            count += await self._jobs.run_due()
        self._clock.now = max(self._clock.now, end)
        return count


def _require_fit(
    bundle: TestedBundle, read: Callable[[str], bytes | None], changes: Mapping[str, str | None]
) -> None:
    problems = bundle.environments.problems(read, changes, stored_in_clear=False)
    if problems:
        raise invalid_bundle("the environment does not fit the bundle: " + "; ".join(problems))


def _aware(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError(f"expected a datetime with a time zone, got {moment!r}; add tzinfo=UTC")
    return moment
