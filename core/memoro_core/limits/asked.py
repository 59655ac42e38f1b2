"""A call, or the renewal of a lease, on its way to the shared buckets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date

from memoro_core.limits.breaker import Asking, Reply
from memoro_core.limits.known import DAILY_UNITS, KnownTenant
from memoro_core.limits.leases import LeaseGroup, LimitedBucket, Refusal, Unspent, nearest, told_of
from memoro_core.limits.model import Verdict
from memoro_core.limits.ports import BucketAsk, GroupAsk, Standing, Taken, Taking, UnitsAsk
from memoro_core.limits.units import DailyUnits

Carry = Callable[[LimitedBucket], tuple[int, int]]
_UNITS_REMEMBERED = 1.0
"""Seconds for which a day's units are taken to be used up: other servers may hand some back."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A group that is asked: for so many tokens now, and for a lease of so many."""

    group: LeaseGroup
    take: int
    extra: int


@dataclass(frozen=True, slots=True)
class Paid:
    """A group whose lease pays: with so many tokens, that were leased then."""

    group: LeaseGroup
    tokens: int
    leased_at: int
    day: date | None


class AskedCall:
    """What is asked of which groups, what is paid already, and what was carried along."""

    __slots__ = ("asked", "carried", "day", "paid", "taking", "tenant")

    def __init__(
        self,
        tenant: KnownTenant,
        asked: Sequence[tuple[Asked, Sequence[Unspent]]],
        paid: Sequence[Paid],
        units: DailyUnits,
        day: date | None,
        carry: Carry,
    ) -> None:
        self.tenant = tenant
        self.day = day
        self.paid = paid
        self.asked = [one for one, _ in asked]
        self.carried: list[str] = []
        groups = [self._group_ask(one, unspent, carry) for one, unspent in asked]
        units_ask = None
        if day is not None and tenant.daily_units is not None and asked and asked[0][0].group.counted:
            back = sum(one.tokens for one in asked[0][1] if one.day == day)
            known = units.used(tenant.id, day) + sum(group.held(day) for group in tenant.groups.values())
            units_ask = UnitsAsk(day, tenant.daily_units, known, back)
        self.taking = Taking(tenant.id, groups, units_ask)

    def _group_ask(self, asked: Asked, unspent: Sequence[Unspent], carry: Carry) -> GroupAsk:
        buckets = []
        for bucket in asked.group.buckets:
            carried = carry(bucket)
            if carried[1]:
                self.carried.append(bucket.name)
            buckets.append(BucketAsk(bucket.name, bucket.rate, *carried))
        return GroupAsk(buckets, asked.take, asked.extra, [(one.tokens, one.leased_at) for one in unspent])

    def by(self, asking: Asking, *, urgent: bool) -> asyncio.Future[Reply]:
        """Asks; who needs the leases that it asks for may wait for the answer, too."""
        future = asking.ask(self.taking, urgent=urgent)
        for asked in self.asked:
            if asked.extra and not future.done():
                asked.group.coming = future
        return future

    def undo(self) -> None:
        """Nothing came of it."""
        for paid in self.paid:
            paid.group.put_back(paid.tokens, paid.leased_at, paid.day)
        for asked in self.asked:
            if asked.extra:
                asked.group.end_renewal(0, 0, 0.0, None)

    def settle(self, taken: Taken, asked_at: float, units: DailyUnits) -> Verdict:
        """What the shared buckets have decided."""
        now, position = time.monotonic(), 0
        of_groups: list[Sequence[Standing]] = []
        for asked, leased in zip(self.asked, taken.leased, strict=True):
            group, standings = asked.group, taken.buckets[position : position + len(asked.group.buckets)]
            position += len(standings)
            of_groups.append(standings)
            group.learn(standings, now)
            if asked.extra:
                group.end_renewal(leased, taken.at, asked_at, self.day)
            if taken.passed:
                group.spend(asked.take, self.day)
                group.refusal = None
                group.share, group.verdict = nearest(group, standings, leased)
                if group.counted:
                    self._tell_units(group, taken.units - leased, units)
        if taken.passed:
            return self.verdict()
        for paid in self.paid:
            paid.group.put_back(paid.tokens, paid.leased_at, paid.day)
        return self._refused(taken, of_groups, units, now)

    def verdict(self) -> Verdict:
        """What is told of a call that passes: of the limit that is nearest to being used up."""
        groups = [one.group for one in self.asked] + [one.group for one in self.paid]
        return min(groups, key=lambda group: group.share).verdict

    def _tell_units(self, group: LeaseGroup, used: int, units: DailyUnits) -> None:
        maximum = self.tenant.daily_units
        if maximum is not None and 1 - used / maximum < group.share:
            group.share = 1 - used / maximum
            group.verdict = Verdict(True, maximum, max(0, maximum - used), units.until_tomorrow())

    def _refused(self, taken: Taken, of_groups: Sequence[Sequence[Standing]], units: DailyUnits, now: float) -> Verdict:
        if not taken.units_have_room and self.tenant.daily_units is not None:
            asked = self.asked[0]
            verdict = units_refused(self.tenant.daily_units, taken.units, units)
            asked.group.refusal = Refusal(asked.take, now + _UNITS_REMEMBERED, verdict)
            return verdict
        longest, told = -1, None
        for asked, standings in zip(self.asked, of_groups, strict=True):
            for bucket, standing in zip(asked.group.buckets, standings, strict=True):
                if not standing.wait:
                    continue
                verdict = told_of(bucket, standing.level, allowed=False, wait=standing.wait)
                until = now + standing.wait / 1e6
                known = asked.group.refusal
                if known is None or known.until < until:
                    asked.group.refusal = Refusal(asked.take, until, verdict, 60 / bucket.rate.per_minute)
                if standing.wait > longest:
                    longest, told = standing.wait, verdict
        assert told is not None
        return told


def ask_for(
    tenant: KnownTenant,
    groups: Iterable[tuple[LeaseGroup, int]],
    units: DailyUnits,
    day: date | None,
    carry: Carry,
) -> AskedCall:
    """A call that takes so much of each group: from its lease where there is enough, else from the buckets."""
    now = time.monotonic()
    asked: list[tuple[Asked, Sequence[Unspent]]] = []
    paid: list[Paid] = []
    for group, weight in groups:
        if group.pays(weight, now):
            paid.append(Paid(group, weight, group.leased_at, group.day))
            group.pay(weight)
            continue
        extra = 0 if group.renewing else group.wanted(weight, now)
        unspent = group.hand_back(now, keep=False)
        if extra:
            group.begin_renewal()
        asked.append((Asked(group, weight, extra), unspent))
    return AskedCall(tenant, asked, paid, units, day, carry)


def renewal_of(
    tenant: KnownTenant, groups: Iterable[LeaseGroup], units: DailyUnits, day: date | None, carry: Carry
) -> AskedCall | None:
    """The renewal of the leases that are due; None where calls have become rare."""
    now = time.monotonic()
    asked: list[tuple[Asked, Sequence[Unspent]]] = []
    for group in groups:
        if not group.is_due(now):
            continue
        extra = group.wanted(1, now)
        if not extra:
            group.rest()
            continue
        unspent = group.hand_back(now, keep=True)
        group.begin_renewal()
        asked.append((Asked(group, 0, extra), unspent))
    return AskedCall(tenant, asked, (), units, day, carry) if asked else None


def return_of(tenant: KnownTenant, group: LeaseGroup, units: DailyUnits, day: date, carry: Carry) -> AskedCall:
    """The return of what is left of a lease."""
    unspent = group.hand_back(time.monotonic(), keep=False)
    return AskedCall(tenant, [(Asked(group, 0, 0), unspent)], (), units, day, carry)


def units_refused(maximum: int, used: int, units: DailyUnits) -> Verdict:
    """A refusal until the day turns."""
    return Verdict(False, maximum, max(0, maximum - used), units.until_tomorrow(), DAILY_UNITS, None)
