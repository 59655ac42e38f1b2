"""Deciding about calls."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from memoro_core.billing.calendar import Calendar
from memoro_core.clock import Clock
from memoro_core.errors import MemoroError
from memoro_core.limits.bucket import SECOND, TOKEN
from memoro_core.limits.model import UNLIMITED, Ask, MethodClass, Rate, Verdict
from memoro_core.limits.ports import BucketAsk, BucketStore, GroupAsk, Taken, Taking, UnitsAsk

_REQUESTS: Final = "requests"
_USER_REQUESTS: Final = "user_requests"
_DAILY_UNITS: Final = "daily_units"


class Unlimited:
    """A `Limiter` that lets everything pass."""

    def decide_now(self, ask: Ask) -> Verdict | None:
        """It passes."""
        return UNLIMITED

    async def decide(self, ask: Ask) -> Verdict:
        """It passes."""
        return UNLIMITED


class SharedLimiter:
    """A `Limiter` over buckets that all servers share."""

    def __init__(self, buckets: BucketStore, calendar: Calendar, clock: Clock, *, timeout: float) -> None:
        self._buckets = buckets
        self._calendar = calendar
        self._clock = clock
        self._timeout = timeout

    def decide_now(self, ask: Ask) -> Verdict | None:
        limits = ask.limits.limits
        if limits.requests or limits.daily_units or (limits.user_requests and ask.users) or _class_rate(ask):
            return None
        return UNLIMITED

    async def decide(self, ask: Ask) -> Verdict:
        taking = self._taking(ask)
        if taking is None:
            return UNLIMITED
        try:
            async with asyncio.timeout(self._timeout):
                [taken] = await self._buckets.take([taking])
        except (MemoroError, TimeoutError):
            return UNLIMITED
        return UNLIMITED if taken is None else self._verdict(taking, taken)

    def _taking(self, ask: Ask) -> Taking | None:
        limits = ask.limits.limits
        buckets = [BucketAsk(_REQUESTS, limits.requests)] if limits.requests else []
        if rate := _class_rate(ask):
            buckets.append(BucketAsk(ask.method_class.value, rate))
        groups = [GroupAsk(buckets, ask.weight)]
        if limits.user_requests:
            groups += [
                GroupAsk([BucketAsk(f"{_USER_REQUESTS}:{user}", limits.user_requests)], weight)
                for user, weight in ask.users.items()
            ]
        units = None
        if limits.daily_units is not None:
            units = UnitsAsk(self._calendar.day(self._clock.now()), limits.daily_units)
        if not buckets and len(groups) == 1 and units is None:
            return None
        return Taking(ask.tenant_id, ask.limits.version, groups, units)

    def _verdict(self, taking: Taking, taken: Taken) -> Verdict:
        asks: Sequence[tuple[BucketAsk, int]] = [
            (bucket, group.take) for group in taking.groups for bucket in group.buckets
        ]
        if taking.units is not None and not taken.units_have_room:
            now = self._clock.now()
            reset = (self._calendar.day_end(now) - now).total_seconds()
            remaining = max(0, taking.units.maximum - taken.units)
            return Verdict(False, taking.units.maximum, remaining, reset, _DAILY_UNITS, None)
        number = max(
            range(len(asks)),
            key=lambda one: (taken.buckets[one].wait, taken.buckets[one].level / asks[one][0].rate.burst),
        )
        bucket, standing = asks[number][0], taken.buckets[number]
        remaining = max(0, bucket.rate.burst - -(-standing.level // TOKEN))
        reset = standing.level / bucket.rate.per_minute / SECOND
        if taken.passed:
            return Verdict(True, bucket.rate.burst, remaining, reset)
        name = bucket.name.partition(":")[0]
        return Verdict(False, bucket.rate.burst, remaining, reset, name, -(-standing.wait // 1000) / 1000)


def _class_rate(ask: Ask) -> Rate | None:
    limits = ask.limits.limits
    match ask.method_class:
        case MethodClass.READ:
            return limits.reads
        case MethodClass.WRITE:
            return limits.writes
        case MethodClass.SEARCH:
            return limits.searches
        case MethodClass.ADMIN:
            return None
