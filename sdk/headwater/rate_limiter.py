"""Rate limits over an ordinary table: exact under any concurrency, since taking is a part of the mutation that it limits.

    send_limit = token_bucket("send", rate=10, period_s=60)

    @mutation
    def send(ctx: MutationCtx, body: str) -> None:
        send_limit.take(ctx, ctx.auth.require().token_identifier)
        ...

A mutation that fails has taken nothing. A limit at the top of a module of a bundle brings the table `rate_limits`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater_protocol.errors import ApplicationError, RequestError
from msgspec import Struct

from headwater.indexes import Index
from headwater.rate_arithmetic import LEVEL_MAX, FixedWindowRule, Level, Rule, TokenBucketRule
from headwater.refusals import invalid_bundle
from headwater.schema import Table

if TYPE_CHECKING:
    from headwater.context import MutationCtx, QueryCtx

SHARDS_MAX = 1024
KEY_CHARACTERS_MAX = 1000
SWEPT_MAX = 10_000
_PERIOD_MAX_S = 366 * 86_400


class RateLimit(Table, name="rate_limits"):
    """What is left of one limit for one key, in one shard."""

    limit: str
    key: str
    shard: int
    parts: int
    at_us: int

    by_limit = Index("limit", "key", "shard", unique=True)
    by_age = Index("limit", "at_us")


class Verdict(Struct, frozen=True):
    """What a limit says.

    Attributes:
        ok: Whether it lets through.
        retry_after_s: When to try again, if it does not; with `reserve`, how long to wait with what was let through.
    """

    ok: bool
    retry_after_s: float = 0.0


class Limit:
    """One rate limit. Make it with `token_bucket` or `fixed_window`.

    Attributes:
        name: Its name, unique in a bundle.
        rule: How it counts.
    """

    def __init__(self, name: str, rule: Rule) -> None:
        if not name:
            raise invalid_bundle("a rate limit has a name")
        for what, number in (("rate", rule.rate), ("capacity", rule.capacity), ("shards", rule.shards)):
            if not isinstance(number, int) or isinstance(number, bool) or number < 1:
                raise invalid_bundle(
                    f"the rate limit {name!r}: {what} is a whole number from 1 on, got {number!r}"
                )
        if not 1 <= rule.period_us <= _PERIOD_MAX_S * 1_000_000:
            raise invalid_bundle(f"the rate limit {name!r}: period_s is from 1e-6 to {_PERIOD_MAX_S}")
        if rule.shards > SHARDS_MAX or rule.capacity < rule.shards:
            raise invalid_bundle(
                f"the rate limit {name!r}: shards are at most {SHARDS_MAX}, and none holds less than one"
            )
        if rule.full >= LEVEL_MAX:
            raise invalid_bundle(f"the rate limit {name!r}: capacity times period_s is too much to count")
        self.name = name
        self.rule = rule

    def __repr__(self) -> str:
        return f"<rate limit {self.name}>"

    def take(self, ctx: MutationCtx, key: str = "", *, count: int = 1, reserve: bool = False) -> float:
        """Take some of what is left, or refuse the whole mutation.

        Args:
            ctx: Of the mutation.
            key: Whose limit it is: a user, an address; "": there is one for all.
            count: How much.
            reserve: Also take what is not there yet, up to as much as the limit holds.

        Returns:
            With `reserve`, how long to wait with what was taken, in seconds; else 0.

        Raises:
            ApplicationError: `{"kind": "rate_limited", "name", "retry_after_s"}`: not now.
            RequestError: It is never let through: more than the limit holds.
        """
        verdict = self.try_take(ctx, key, count=count, reserve=reserve)
        if not verdict.ok:
            told = {"kind": "rate_limited", "name": self.name, "retry_after_s": verdict.retry_after_s}
            raise ApplicationError(
                told, message=f"{self.name}: too many; try again in {verdict.retry_after_s:g} s"
            )
        return verdict.retry_after_s

    def try_take(self, ctx: MutationCtx, key: str = "", *, count: int = 1, reserve: bool = False) -> Verdict:
        """Take some of what is left, or say when to try again; as `take`."""
        parts = self._parts(key, count)
        row, level = self._fullest(ctx, key)
        least = parts - self.rule.full if reserve else parts
        if level.parts < least:
            return Verdict(ok=False, retry_after_s=self.rule.wait_us(level, least) / 1e6)
        left = Level(level.parts - parts, level.at_us)
        if row.document is None:
            ctx.db.insert(
                RateLimit(limit=self.name, key=key, shard=row.shard, parts=left.parts, at_us=left.at_us)
            )
        else:
            ctx.db.patch(row.document.id, parts=left.parts, at_us=left.at_us)
        return Verdict(ok=True, retry_after_s=self.rule.wait_us(left, 0) / 1e6)

    def check(self, ctx: QueryCtx, key: str = "", *, count: int = 1) -> Verdict:
        """Say whether so much could be taken now, and take nothing.

        In a live query this is what held when it ran: it runs again when some was taken, not as time passes. Clients
        wait for `retry_after_s` themselves.
        """
        parts = self._parts(key, count)
        _, level = self._fullest(ctx, key)
        return Verdict(ok=level.parts >= parts, retry_after_s=self.rule.wait_us(level, parts) / 1e6)

    def reset(self, ctx: MutationCtx, key: str = "") -> None:
        """Let a key begin anew, with all that the limit holds."""
        for row in ctx.db.query(RateLimit.by_limit, limit=self.name, key=key).collect():
            ctx.db.delete(row.id)

    def sweep(self, ctx: MutationCtx, *, at_most: int = 1000) -> int:
        """Delete documents of keys from which nothing was taken for so long that all of it is back: they say nothing.

        For a cron of yours. It reads nothing but what it deletes, so it does not get in the way of those who take.

        Args:
            ctx: Of the mutation.
            at_most: So many of them, up to 10,000.

        Returns:
            How many there were; as many as `at_most` if more may be left.
        """
        if not 0 < at_most <= SWEPT_MAX:
            raise RequestError(f"{self.name}: a sweep is of 1 to {SWEPT_MAX} documents, got {at_most}")
        before_us = round(ctx.now_ms * 1000) - self.rule.full_after_us
        old = (
            ctx.db.query(RateLimit.by_age, limit=self.name).range(RateLimit.at_us).lt(before_us).take(at_most)
        )
        for row in old:
            ctx.db.delete(row.id)
        return len(old)

    def _parts(self, key: str, count: int) -> int:
        if len(key) > KEY_CHARACTERS_MAX:
            raise RequestError(f"the key of a rate limit has at most {KEY_CHARACTERS_MAX} characters")
        if count < 0 or count * self.rule.token > self.rule.full:
            most = self.rule.full // self.rule.token
            raise RequestError(f"{self.name}: {count} at once can never be let through; it holds {most}")
        return count * self.rule.token

    def _fullest(self, ctx: QueryCtx, key: str) -> tuple[_Row, Level]:
        """Return the shard that has more left, of two by chance: others go on without meeting this one."""
        shards = self.rule.shards
        chosen = {0} if shards == 1 else {ctx.random.randrange(shards) for _ in range(2)}
        now_us = round(ctx.now_ms * 1000)
        found = []
        for shard in sorted(chosen):
            row = ctx.db.query(RateLimit.by_limit, limit=self.name, key=key, shard=shard).first()
            level = self.rule.now(None if row is None else Level(row.parts, row.at_us), now_us)
            found.append((_Row(shard, row), level))
        return max(found, key=lambda one: one[1].parts)


class _Row:
    """A shard and its document, None where it was never used."""

    __slots__ = ("document", "shard")

    def __init__(self, shard: int, document: RateLimit | None) -> None:
        self.shard = shard
        self.document = document


def token_bucket(
    name: str, *, rate: int, period_s: float, capacity: int | None = None, shards: int = 1
) -> Limit:
    """Return a limit that is refilled all the time.

    Args:
        name: Unique in a bundle.
        rate: So much in a period.
        period_s: The period, in seconds.
        capacity: What may be taken at once after a pause; `rate` unless it is given.
        shards: For a key that very many take from: it is divided into so many parts, each a document of its own. One
            may be empty while others are not, so that a little less than the rate is let through.

    Raises:
        RequestError: `invalid_bundle`.
    """
    return Limit(name, TokenBucketRule(rate, round(period_s * 1e6), capacity or rate, shards))


def fixed_window(
    name: str, *, rate: int, period_s: float, capacity: int | None = None, shards: int = 1
) -> Limit:
    """Return a limit that is refilled at the beginning of each period, counted from 1970: at each full hour, say.

    Args:
        name: As above.
        rate: As above.
        period_s: As above.
        capacity: What may gather from periods in which less was taken; `rate` unless it is given: nothing.
        shards: As above.

    Raises:
        RequestError: `invalid_bundle`.
    """
    return Limit(name, FixedWindowRule(rate, round(period_s * 1e6), capacity or rate, shards))
