"""What a process has leased of a tenant's buckets, to spend without asking."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Final

from memoro_core.limits.bucket import LEASE, SECOND, TOKEN
from memoro_core.limits.model import UNLIMITED, Rate, Verdict
from memoro_core.limits.ports import Standing

LEASE_SECONDS: Final = LEASE / SECOND
_RENEWED_ALONG: Final = 0.25
"""The part of a lease by which it is renewed earlier where another one is: that costs hardly more."""
_LEAST_AHEAD: Final = 0.5
_MOST_AHEAD: Final = 0.75
"""The part of a lease, at least and at most, that is left when it is renewed: so much pays what comes meanwhile."""
_NEVER: Final = math.inf
_ENDLESS: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class LimitedBucket:
    """A bucket of a tenant: what callers know it by, and its name within the tenant."""

    limit: str
    name: str
    rate: Rate


@dataclass(frozen=True, slots=True)
class Unspent:
    """Tokens of a lease that were not spent: when they were leased, and of which day's units."""

    tokens: int
    leased_at: int
    day: date | None


@dataclass(frozen=True, slots=True)
class Refusal:
    """What was refused, and until when what is as heavy will be; each token more takes `seconds_per_token` longer."""

    weight: int
    until: float
    verdict: Verdict
    seconds_per_token: float = 0.0

    def again(self, weight: int, now: float) -> Verdict | None:
        """The same verdict for a call now; None for one that may pass."""
        if weight < self.weight or now >= self.until:
            return None
        if self.verdict.retry_after is None:
            return self.verdict
        wait = self.until - now + (weight - self.weight) * self.seconds_per_token
        return replace(self.verdict, retry_after=in_milliseconds(wait))


class LeaseGroup:
    """Buckets that a lease covers together; what is leased of them, how fast it is spent, and what was refused.

    `tokens` may be spent until `good_until`; below `low`, or from `renew_at` on, the lease is renewed. Times are those
    of `time.monotonic`.
    """

    __slots__ = (
        "_ahead",
        "_marked_at",
        "_pace",
        "_spent_at_mark",
        "booked",
        "buckets",
        "coming",
        "counted",
        "day",
        "good_until",
        "known",
        "leased_at",
        "low",
        "most",
        "refusal",
        "renew_at",
        "renewing",
        "share",
        "spent",
        "tokens",
        "unspent",
        "verdict",
    )

    def __init__(self, buckets: Sequence[LimitedBucket], *, units: int | None, now: float) -> None:
        self.buckets = buckets
        self.counted = counted = units is not None
        most = [_most_of(bucket.rate) for bucket in buckets]
        self.most = min(most if units is None else [*most, units // 64], default=0)
        """What is leased at once at most: what is lost with a lease should not be missed."""
        self.tokens, self.good_until = (0, 0.0) if buckets or counted else (_ENDLESS, _NEVER)
        self.low, self.renew_at = 0, self.good_until
        self.leased_at = 0
        self.day: date | None = None
        self.renewing = False
        self.coming: asyncio.Future[Any] | None = None
        """Done when the lease is there that is under way, or not to be had."""
        self.spent = 0
        self.booked = 0
        """How much of what was spent is counted as units."""
        self.verdict: Verdict = UNLIMITED
        self.share = _NEVER
        """How much is left of what is nearest to being used up: 1 is all."""
        self.unspent: list[Unspent] = []
        self.refusal: Refusal | None = None
        self.known: Sequence[tuple[int, float]] = ()
        """The level of each bucket when it was last told, and when that was."""
        self._ahead = _LEAST_AHEAD
        self._pace = 0.0
        self._marked_at = now
        self._spent_at_mark = 0

    @property
    def limited(self) -> bool:
        """Whether there is anything to ask."""
        return bool(self.buckets) or self.counted

    def wanted(self, weight: int, now: float) -> int:
        """How much to lease: what is spent within a lease, but nothing for who calls about once within it."""
        elapsed, spent = now - self._marked_at, self.spent - self._spent_at_mark
        if elapsed >= LEASE_SECONDS:
            latest = spent * LEASE_SECONDS / elapsed
            self._pace = latest if elapsed >= 4 * LEASE_SECONDS else (self._pace + latest) / 2
            self._marked_at, self._spent_at_mark = now, self.spent
        else:
            self._pace = max(self._pace, float(spent))
        return min(math.ceil(self._pace), self.most) if self._pace >= 2 * weight else 0

    def hand_back(self, now: float, *, keep: bool) -> Sequence[Unspent]:
        """Takes away what is not spent, to be handed back; with `keep`, and while it is good, but for what will be."""
        kept = 0
        if self.tokens:
            if keep and now < self.good_until:
                kept = min(self.tokens, math.ceil(self._pace * self._ahead))
            if self.tokens > kept:
                self.unspent.append(Unspent(self.tokens - kept, self.leased_at, self.day))
            self.tokens = kept
        unspent, self.unspent = self.unspent, []
        return unspent

    def pays(self, weight: int, now: float) -> bool:
        """Whether the lease is good for so much."""
        return self.tokens >= weight and now < self.good_until

    def pay(self, weight: int) -> None:
        """Spends so much of the lease."""
        self.tokens -= weight
        self.spent += weight

    def is_due(self, now: float) -> bool:
        """Whether the lease may be renewed along with another."""
        return not self.renewing and (self.tokens < self.low or now >= self.renew_at - _RENEWED_ALONG * LEASE_SECONDS)

    def begin_renewal(self) -> None:
        """From now on a lease is asked for, and none besides."""
        self.renewing = True
        self.rest()

    def end_renewal(self, tokens: int, leased_at: int, asked_at: float, day: date | None) -> None:
        """A lease of so many tokens, or none, is there: in place of what is left of the one before."""
        self.renewing, self.coming = False, None
        if tokens:
            if self.tokens:
                self.unspent.append(Unspent(self.tokens, self.leased_at, self.day))
            self.tokens, self.leased_at, self.day = tokens, leased_at, day
            self.good_until = asked_at + LEASE_SECONDS
            # In time for the next one to arrive, if it takes twice as long as this one.
            ahead = 2 * (time.monotonic() - asked_at) / LEASE_SECONDS
            self._ahead = ahead = min(max(ahead, _LEAST_AHEAD), _MOST_AHEAD)
            self.low, self.renew_at = int(tokens * ahead), self.good_until - ahead * LEASE_SECONDS

    def rest(self) -> None:
        """The lease is not renewed until a call asks for one."""
        self.low, self.renew_at = 0, self.good_until

    def succeed(self, before: LeaseGroup, now: float) -> None:
        """Goes on where the group stood under another policy; what it has leased is handed back."""
        if before.limited and self.limited:
            self.unspent = list(before.hand_back(now, keep=False))
            # What was spent before and is not booked yet will be, as the other's.
            self.spent, self.booked, self.day = before.spent, before.spent, before.day
            self._pace, self._marked_at = before._pace, before._marked_at
            self._spent_at_mark = before._spent_at_mark

    def spend(self, tokens: int, day: date | None) -> None:
        """Counts what was taken of the buckets at once."""
        self.spent += tokens
        self.day = day

    def held(self, day: date) -> int:
        """What is leased or spent of a day's units and not counted yet."""
        return self.tokens + self.spent - self.booked if self.counted and self.day == day else 0

    def put_back(self, tokens: int, leased_at: int, day: date | None) -> None:
        """Returns what was reserved for a call that did not pass."""
        self.spent -= tokens
        if leased_at == self.leased_at:
            self.tokens += tokens
        else:
            self.unspent.append(Unspent(tokens, leased_at, day))

    def learn(self, standings: Sequence[Standing], now: float) -> None:
        """Remembers how the buckets stand."""
        self.known = [(standing.level, now) for standing in standings]

    def level_of(self, name: str, now: float) -> int:
        """The level of a bucket at least, as far as it is known here."""
        for bucket, (level, at) in zip(self.buckets, self.known, strict=False):
            if bucket.name == name:
                return max(0, level - int((now - at) * SECOND) * bucket.rate.per_minute)
        return 0


def _most_of(rate: Rate) -> int:
    return max(rate.burst // 8, math.ceil(rate.per_minute / 60 * LEASE_SECONDS))


def nearest(group: LeaseGroup, standings: Sequence[Standing], leased: int) -> tuple[float, Verdict]:
    """Of the group's buckets the one that is nearest to being used up: what is left of it, and what is told of it."""
    share, verdict = _NEVER, UNLIMITED
    for bucket, standing in zip(group.buckets, standings, strict=True):
        # What is leased is still there for the tenant's calls.
        level = max(0, standing.level - leased * TOKEN)
        left = 1 - level / (bucket.rate.burst * TOKEN)
        if left < share:
            share, verdict = left, told_of(bucket, level, allowed=True)
    return share, verdict


def told_of(bucket: LimitedBucket, level: int, *, allowed: bool, wait: int = 0) -> Verdict:
    """What a caller is told of a bucket; `wait`: the microseconds until what is refused may pass."""
    rate = bucket.rate
    remaining = max(0, rate.burst - -(-level // TOKEN))
    reset = level / rate.per_minute / SECOND
    if allowed:
        return Verdict(True, rate.burst, remaining, reset)
    return Verdict(False, rate.burst, remaining, reset, bucket.limit, in_milliseconds(wait / SECOND))


def in_milliseconds(seconds: float) -> float:
    """At least so long, in whole milliseconds, and one at least."""
    return max(1, math.ceil(seconds * 1000)) / 1000
