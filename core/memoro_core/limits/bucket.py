"""A bucket of tokens, as Redis' script keeps it; here for when Redis is away, and for the tests of the script.

A bucket's level says how much of it is used. It drains with time; a call passes if the bucket has room for it. So over
any window no more than `burst` and what drains in it can be taken. That holds of leases too, which are taken at once
and spent later, because the level never drains below what may still be unspent: what is spent in a window was unspent
at its start, and so in the level, or was taken within it. What was leased counts as unspent for the rest of its epoch
and the next, an epoch being as long as a lease; until then it can be handed back, out of the level and the count at
once. Later it has drained away, and to hand it back would admit it twice.

Under another policy no old debt counts: the level is at most the new burst. What that leaves out is not forgotten,
though, since with the policy of before it would count again: `whole` is the level with it. So whatever policies come
and go, no window passes more than the largest burst among them, and servers that have not heard of a change do no harm.

All is in whole numbers: microseconds, and levels of which `TOKEN` make a token, so that a rate per minute drains a
whole number in each microsecond.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from memoro_core.limits.model import Rate

SECOND: Final = 1_000_000
TOKEN: Final = 60 * SECOND
LEASE: Final = SECOND // 5
"""How long a lease is good for, from the moment it was asked for."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """How a bucket stands at a time, under a policy; `leased` were in `epoch`, `leased_before` in the one before it."""

    rate: Rate
    level: int
    whole: int
    at: int
    epoch: int
    leased: int = 0
    leased_before: int = 0

    @property
    def room(self) -> int:
        """The level that can be added; less than none after a carry."""
        return self.rate.burst * TOKEN - self.level

    @property
    def held(self) -> int:
        """The level that does not drain yet."""
        return (self.leased + self.leased_before) * TOKEN


def new_bucket(rate: Rate, now: int) -> Bucket:
    """One of which nothing is known."""
    return Bucket(rate, 0, 0, now, now // LEASE)


def drain(bucket: Bucket, now: int) -> Bucket:
    """The bucket at a later time. A clock that was put back makes it wait, not jump."""
    level, whole, at, epoch = bucket.level, bucket.whole, bucket.at, bucket.epoch
    leased, leased_before, rate = bucket.leased, bucket.leased_before, bucket.rate.per_minute
    if at > now:
        at, epoch = now, min(epoch, now // LEASE)
    while epoch < now // LEASE and leased + leased_before:
        turn, held = (epoch + 1) * LEASE, (leased + leased_before) * TOKEN
        level, whole = max(level - (turn - at) * rate, held), max(whole - (turn - at) * rate, held)
        at, epoch, leased, leased_before = turn, epoch + 1, 0, leased
        level = _let_go(bucket, level, held, leased_before * TOKEN)
    held = (leased + leased_before) * TOKEN
    level, whole = max(level - (now - at) * rate, held), max(whole - (now - at) * rate, held)
    return Bucket(bucket.rate, level, whole, now, now // LEASE, leased, leased_before)


def under(bucket: Bucket, rate: Rate) -> Bucket:
    """The bucket under that policy."""
    if rate == bucket.rate:
        return bucket
    return replace(bucket, rate=rate, level=max(min(bucket.whole, rate.burst * TOKEN), bucket.held))


def carry(bucket: Bucket, level: int) -> Bucket:
    """The bucket with what was taken elsewhere while it could not be asked: at most as much again as it holds."""
    return _more(bucket, max(0, min(level, 2 * bucket.rate.burst * TOKEN - bucket.level)))


def hand_back(bucket: Bucket, tokens: int, leased_at: int) -> Bucket:
    """The bucket without tokens that were leased at that time and not spent, as far as they still count as leased."""
    epoch = leased_at // LEASE
    if epoch == bucket.epoch:
        tokens = min(tokens, bucket.leased)
        return _more(replace(bucket, leased=bucket.leased - tokens), -tokens * TOKEN)
    if epoch == bucket.epoch - 1:
        tokens = min(tokens, bucket.leased_before)
        return _more(replace(bucket, leased_before=bucket.leased_before - tokens), -tokens * TOKEN)
    return bucket


def need_of(bucket: Bucket, tokens: int) -> int:
    """The level that a call takes: one that is heavier than the whole bucket takes the whole."""
    return min(tokens, bucket.rate.burst) * TOKEN


def wait_of(bucket: Bucket, tokens: int) -> int:
    """Microseconds until a call has room, if no other comes; 0 when it has."""
    need = need_of(bucket, tokens)
    if not need or need <= bucket.room:
        return 0
    room, rate = bucket.rate.burst * TOKEN - need, bucket.rate.per_minute
    level, at, epoch = bucket.level, bucket.at, bucket.epoch
    held, next_held = bucket.leased + bucket.leased_before, bucket.leased
    while held * TOKEN > room:
        turn = (epoch + 1) * LEASE
        level = max(level - (turn - at) * rate, held * TOKEN)
        level = _let_go(bucket, level, held * TOKEN, next_held * TOKEN)
        at, epoch, held, next_held = turn, epoch + 1, next_held, 0
    return at - bucket.at + max(0, -((room - level) // rate))


def take(bucket: Bucket, tokens: int) -> Bucket:
    """The bucket after a call for which it has room."""
    return _more(bucket, need_of(bucket, tokens))


def can_lease(buckets: Iterable[Bucket], tokens: int) -> int:
    """How many of the tokens all these buckets lease.

    At most half of their room, so that other servers find some; and half of a bucket, so that the rest can drain.
    """
    for bucket in buckets:
        tokens = min(tokens, bucket.room // TOKEN // 2, bucket.rate.burst // 2 - bucket.leased - bucket.leased_before)
    return max(0, tokens)


def lease(buckets: Sequence[Bucket], tokens: int) -> Sequence[Bucket]:
    """The buckets after leasing so many."""
    return [_more(replace(bucket, leased=bucket.leased + tokens), tokens * TOKEN) for bucket in buckets]


def _let_go(bucket: Bucket, level: int, held: int, next_held: int) -> int:
    """The level when less is held than was: what was leased under a larger bucket is no debt in the end either."""
    return min(level, max(next_held, bucket.rate.burst * TOKEN)) if held > bucket.rate.burst * TOKEN else level


def _more(bucket: Bucket, level: int) -> Bucket:
    return replace(bucket, level=bucket.level + level, whole=bucket.whole + level)
