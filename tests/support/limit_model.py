"""What the script over buckets should answer, by the pure model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from memoro_core.limits.bucket import (
    Bucket,
    can_lease,
    carry,
    drain,
    hand_back,
    lease,
    new_bucket,
    take,
    under,
    wait_of,
)
from memoro_core.limits.ports import BucketAsk, GroupAsk, Standing, Taken, Taking


@dataclass
class Model:
    """The buckets and the units of one tenant."""

    buckets: dict[str, Bucket] = field(default_factory=dict)
    units: int = 0

    def take(self, taking: Taking, at: int) -> Taken:
        """Decides at a time."""
        opened = [[self._open(one, group, at) for one in group.buckets] for group in taking.groups]
        waits = [
            [wait_of(bucket, group.take) for bucket in buckets]
            for group, buckets in zip(taking.groups, opened, strict=True)
        ]
        units, room = 0, True
        if taking.units is not None:
            units = max(self.units - taking.units.back, taking.units.floor)
            needed = taking.groups[0].take
            room = not needed or units + needed <= taking.units.maximum
        passed = room and not any(wait for group in waits for wait in group)
        leased = []
        for number, group in enumerate(taking.groups):
            extra = 0
            if passed:
                extra = group.extra
                if taking.units is not None and number == 0:
                    units += group.take
                    extra = max(0, min(extra, (taking.units.maximum - units) // 2))
                opened[number] = [take(bucket, group.take) for bucket in opened[number]]
                extra = can_lease(opened[number], extra)
                opened[number] = list(lease(opened[number], extra))
                if taking.units is not None and number == 0:
                    units += extra
            leased.append(extra)
            for one, bucket in zip(group.buckets, opened[number], strict=True):
                self.buckets[one.name] = bucket
        if taking.units is not None:
            self.units = units
        standings = [
            Standing(bucket.level, wait)
            for buckets, waits_of in zip(opened, waits, strict=True)
            for bucket, wait in zip(buckets, waits_of, strict=True)
        ]
        return Taken(at, passed, units, room, leased, standings)

    def _open(self, ask: BucketAsk, group: GroupAsk, at: int) -> Bucket:
        known = self.buckets.get(ask.name)
        if known is None:
            bucket = carry(new_bucket(ask.rate, at), ask.carried_if_lost)
        else:
            bucket = carry(under(drain(known, at), ask.rate), ask.carried)
        for tokens, leased_at in group.back:
            bucket = hand_back(bucket, tokens, leased_at)
        return replace(bucket)
