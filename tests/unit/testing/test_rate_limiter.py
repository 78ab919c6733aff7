"""Rate limits as authors use them, with a clock that stands: what is let through, told, reserved and refused at load."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from headwater import ApplicationError
from headwater.bundle import Bundle
from headwater.rate_limiter import Limit, fixed_window, token_bucket
from headwater.testing import Deployment
from headwater_protocol.errors import RequestError
from support.bundles import imported, write_package

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SOURCE = """
from headwater import *
from headwater.rate_limiter import token_bucket, fixed_window

bucket = token_bucket("bucket", rate=6, period_s=60, capacity=10)
window = fixed_window("window", rate=3, period_s=3600)
sharded = token_bucket("sharded", rate=8, period_s=60, shards=4)
"""


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    write_package(tmp_path, {"a": SOURCE}, header="")
    with imported(tmp_path, "bundle") as package:
        yield Deployment(package)


def limit(deployment: Deployment, name: str) -> Limit:
    import sys

    found: Limit = getattr(sys.modules["bundle.a"], name)
    return found


def taken(deployment: Deployment, limit: Limit, key: str = "", **options: Any) -> float | None:
    """Take; return the wait, None if it was refused."""
    try:
        with deployment.transaction() as ctx:
            return limit.take(ctx, key, **options)
    except ApplicationError as error:
        if error.data["kind"] != "rate_limited":
            raise
        return None


def test_a_bucket_refills_all_the_time(deployment: Deployment) -> None:
    bucket = limit(deployment, "bucket")
    assert taken(deployment, bucket, count=10) == 0
    assert taken(deployment, bucket) is None
    with deployment.transaction() as ctx:
        verdict = bucket.check(ctx)
    assert not verdict.ok
    assert 9.9 < verdict.retry_after_s <= 10
    deployment.advance(timedelta(seconds=9.9))
    assert taken(deployment, bucket) is None
    deployment.advance(timedelta(seconds=0.1))
    assert taken(deployment, bucket) == 0
    deployment.advance(timedelta(hours=1))
    assert taken(deployment, bucket, count=10) == 0, "no more than its capacity gathers"
    assert taken(deployment, bucket) is None


def test_a_window_refills_at_its_beginning(deployment: Deployment) -> None:
    window = limit(deployment, "window")
    deployment.advance(timedelta(minutes=59))
    assert taken(deployment, window, count=3) == 0
    assert taken(deployment, window) is None
    deployment.advance(timedelta(minutes=1))
    assert taken(deployment, window, count=3) == 0
    with deployment.transaction() as ctx:
        assert 3599 < window.check(ctx).retry_after_s <= 3600


def test_what_is_not_there_yet_is_reserved(deployment: Deployment) -> None:
    bucket = limit(deployment, "bucket")
    assert taken(deployment, bucket, count=10, reserve=True) == 0
    wait_s = taken(deployment, bucket, count=10, reserve=True)
    assert wait_s is not None
    assert 99 < wait_s <= 100
    assert taken(deployment, bucket, reserve=True) is None, "no more ahead than it holds"
    deployment.advance(timedelta(seconds=99))
    assert taken(deployment, bucket) is None, "what comes in is owed"
    deployment.advance(timedelta(seconds=11))
    assert taken(deployment, bucket) == 0


def test_shards_hold_together_what_the_limit_does(deployment: Deployment) -> None:
    sharded = limit(deployment, "sharded")
    passed = sum(taken(deployment, sharded) is not None for _ in range(60))
    assert passed == 8
    with pytest.raises(RequestError, match="it holds 2"):
        taken(deployment, sharded, count=3)


def test_a_reset_begins_anew(deployment: Deployment) -> None:
    bucket = limit(deployment, "bucket")
    taken(deployment, bucket, "a", count=10)
    taken(deployment, bucket, "b", count=10)
    with deployment.transaction() as ctx:
        bucket.reset(ctx, "a")
    assert taken(deployment, bucket, "a") == 0
    assert taken(deployment, bucket, "b") is None


@pytest.mark.parametrize(
    "made",
    [
        lambda: token_bucket("", rate=1, period_s=1),
        lambda: token_bucket("a", rate=0, period_s=1),
        lambda: token_bucket("a", rate=1.5, period_s=1),  # type: ignore[arg-type]
        lambda: fixed_window("a", rate=1, period_s=0),
        lambda: fixed_window("a", rate=1, period_s=400 * 86_400),
        lambda: token_bucket("a", rate=2, period_s=1, shards=3),
        lambda: token_bucket("a", rate=10**6, period_s=366 * 86_400),
    ],
)
def test_a_limit_that_cannot_be_counted_is_refused(made: Any) -> None:
    with pytest.raises(RequestError) as refused:
        made()
    assert refused.value.code == "invalid_bundle"


# ------------------------------------------------------------------------------------------- sweeps


def keys_of(deployment: Deployment, name: str) -> set[str]:
    from headwater.rate_limiter import RateLimit

    with deployment.transaction() as ctx:
        return {row.key for row in ctx.db.query(RateLimit.by_limit, limit=name)}


def swept(deployment: Deployment, limit: Limit, **options: Any) -> int:
    with deployment.transaction() as ctx:
        return limit.sweep(ctx, **options)


def test_a_sweep_takes_keys_that_are_full_again_and_no_other(deployment: Deployment) -> None:
    bucket, window = limit(deployment, "bucket"), limit(deployment, "window")
    for key in ("old", "owes"):
        taken(deployment, bucket, key, count=10)
        taken(deployment, window, key)
    taken(deployment, bucket, "owes", count=10, reserve=True)
    deployment.advance(timedelta(seconds=100))
    taken(deployment, bucket, "new")
    assert swept(deployment, bucket) == 0, "one that owes as much as there can be needs 200 s"
    deployment.advance(timedelta(seconds=101))
    assert swept(deployment, bucket) == 2
    assert keys_of(deployment, "bucket") == {"new"}
    assert keys_of(deployment, "window") == {"old", "owes"}, "each limit for itself"
    assert taken(deployment, bucket, "owes", count=10) == 0, "as full as it was"
    deployment.advance(timedelta(hours=4))
    assert swept(deployment, window) == 2
    assert keys_of(deployment, "window") == set()


def test_a_sweep_is_bounded_and_tells_whether_more_is_left(deployment: Deployment) -> None:
    sharded = limit(deployment, "sharded")
    for number in range(25):
        taken(deployment, sharded, str(number))
    deployment.advance(timedelta(hours=1))
    assert [swept(deployment, sharded, at_most=10) for _ in range(4)] == [10, 10, 5, 0]
    for wrong in (0, -1, 10_001):
        with pytest.raises(RequestError, match="1 to 10000"):
            swept(deployment, sharded, at_most=wrong)


def test_two_limits_of_one_name_are_refused(tmp_path: Path) -> None:
    write_package(tmp_path, {"a": SOURCE, "b": SOURCE}, header="")
    with imported(tmp_path, "bundle") as package, pytest.raises(RequestError, match="'bucket'"):
        Bundle.load(package)


def test_a_limit_that_another_module_imports_is_the_same_one(tmp_path: Path) -> None:
    write_package(tmp_path, {"a": SOURCE, "b": "from .a import bucket"}, header="")
    with imported(tmp_path, "bundle") as package:
        names = [table.name for table in Bundle.load(package).manifest().tables]
    assert names == ["rate_limits"]
