"""Buckets of this process alone, for when the shared ones are away."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from memoro_core.ids import TenantId
from memoro_core.limits.bucket import TOKEN, Bucket, drain, new_bucket, take, under, wait_of
from memoro_core.limits.known import KnownTenant
from memoro_core.limits.leases import LeaseGroup, LimitedBucket, told_of
from memoro_core.limits.model import UNLIMITED, Rate, Verdict

_MAX_BUCKETS: Final = 50_000
Key = tuple[TenantId, str]


@dataclass(slots=True)
class _Local:
    """A bucket, and how it would stand had nothing been taken here since the shared one was last asked."""

    bucket: Bucket
    untouched: Bucket


class LocalBuckets:
    """Each server has its share of every bucket. What it takes is carried to the shared ones when these are back."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[Key, _Local] = OrderedDict()
        self._to_carry: set[Key] = set()

    def decide(
        self,
        tenant: KnownTenant,
        groups: Iterable[tuple[LeaseGroup, int]],
        now: float,
        *,
        servers: int,
        pays_units: bool,
    ) -> Verdict:
        """Takes so much of each group, from what is leased of it or else from the buckets here; or nothing of any.

        With `pays_units` the first group's lease, which would pay for units too, is left alone.
        """
        paid: list[tuple[LeaseGroup, int]] = []
        wanted: list[tuple[LimitedBucket, int]] = []
        for number, (group, weight) in enumerate(groups):
            if group.pays(weight, now) and not (number == 0 and pays_units):
                paid.append((group, weight))
            else:
                wanted += [(bucket, weight) for bucket in group.buckets]
        waits = [
            wait_of(self._of(tenant.id, bucket, servers=servers, known=lambda one: tenant.level_of(one, now)), weight)
            for bucket, weight in wanted
        ]
        if any(waits):
            number = max(range(len(wanted)), key=waits.__getitem__)
            bucket = wanted[number][0]
            return told_of(bucket, self._level_of(tenant.id, bucket, servers), allowed=False, wait=waits[number])
        for bucket, weight in wanted:
            key = (tenant.id, bucket.name)
            self._buckets[key].bucket = take(self._buckets[key].bucket, weight)
            self._to_carry.add(key)
        for group, weight in paid:
            group.pay(weight)
        verdicts = [told_of(bucket, self._level_of(tenant.id, bucket, servers), allowed=True) for bucket, _ in wanted]
        return min(verdicts, key=lambda verdict: verdict.remaining / verdict.maximum, default=UNLIMITED)

    def _level_of(self, tenant_id: TenantId, bucket: LimitedBucket, servers: int) -> int:
        """How a bucket stands, over all servers if each has taken as much."""
        return self._buckets[tenant_id, bucket.name].bucket.level * servers

    def carry(self, tenant_id: TenantId, bucket: LimitedBucket) -> tuple[int, int]:
        """The level to add to the shared bucket: where it has kept what it knew, and where it has not.

        It is not told again, unless by `not_carried`.
        """
        key = (tenant_id, bucket.name)
        if not self._to_carry or key not in self._to_carry:
            return 0, 0
        self._to_carry.discard(key)
        local, now = self._buckets[key], _now()
        level = drain(local.bucket, now).level
        return max(0, level - drain(local.untouched, now).level), level

    def not_carried(self, tenant_id: TenantId, names: Sequence[str]) -> None:
        """What was told to be carried did not arrive."""
        for name in names:
            if (tenant_id, name) in self._buckets:
                self._to_carry.add((tenant_id, name))

    def _of(
        self,
        tenant_id: TenantId,
        bucket: LimitedBucket,
        *,
        servers: int,
        known: Callable[[LimitedBucket], int],
    ) -> Bucket:
        key, now = (tenant_id, bucket.name), _now()
        rate = Rate(max(1, bucket.rate.per_minute // servers), max(1, bucket.rate.burst // servers))
        local = self._buckets.get(key)
        if local is None:
            self._buckets[key] = local = _Local(new_bucket(rate, now), new_bucket(rate, now))
            if len(self._buckets) > _MAX_BUCKETS:
                self._to_carry.discard(self._buckets.popitem(last=False)[0])
        local.bucket = under(drain(local.bucket, now), rate)
        if key not in self._to_carry:
            level = min(max(local.bucket.level, known(bucket) // servers), 2 * rate.burst * TOKEN)
            local.bucket = local.untouched = replace(local.bucket, level=level, whole=max(level, local.bucket.whole))
            self._buckets.move_to_end(key)
        return local.bucket


def _now() -> int:
    return time.monotonic_ns() // 1000
