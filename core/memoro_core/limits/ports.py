"""What decides about calls, and what that needs from the outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import date
from typing import Protocol

from memoro_core.ids import TenantId
from memoro_core.limits.counts import LimitCounts
from memoro_core.limits.model import Ask, Rate, Verdict


class Limiter(Protocol):
    """Decides about calls, and counts what it decides."""

    counts: LimitCounts

    def decide_now(self, ask: Ask) -> Verdict | None:
        """The verdict where nothing need be waited for: it is paid from leases, or refused by what is remembered.

        None: ask `decide`.
        """
        ...

    async def decide(self, ask: Ask) -> Verdict:
        """The verdict. Never raises for Redis' sake, and waits for it no longer than its budget."""
        ...


class OpenStreams(Protocol):
    """Counts each tenant's open streams, and refuses one too many."""

    def one_more(self, tenant_id: TenantId, *, maximum: int | None) -> AbstractAsyncContextManager[None]:
        """A stream, open while the block is entered.

        Raises RATE_LIMITED when the tenant has `maximum` of them over all servers.
        """
        ...


@dataclass(frozen=True, slots=True)
class BucketAsk:
    """One bucket: its name within the tenant, and its policy.

    `carried` is the level to add for what was taken elsewhere while the bucket could not be asked; `carried_if_lost`
    the same where the bucket has forgotten all.
    """

    name: str
    rate: Rate
    carried: int = 0
    carried_if_lost: int = 0


@dataclass(frozen=True, slots=True)
class GroupAsk:
    """Buckets that a lease covers together.

    They give `take` tokens each or none, and as many of `extra` as fit all of them, as a lease. `back`: tokens of
    leases that were not spent, each with the time at which they were leased.
    """

    buckets: Sequence[BucketAsk]
    take: int
    extra: int = 0
    back: Sequence[tuple[int, int]] = ()


@dataclass(frozen=True, slots=True)
class UnitsAsk:
    """The units of a day: at most so many, so many of them known to be used, so many handed back."""

    day: date
    maximum: int
    floor: int = 0
    back: int = 0


@dataclass(frozen=True, slots=True)
class Taking:
    """What a call wants of a tenant's buckets: all of it or nothing. The first group takes the units."""

    tenant_id: TenantId
    groups: Sequence[GroupAsk]
    units: UnitsAsk | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """How a bucket stands: its level, and the microseconds until it has room; 0: it has."""

    level: int
    wait: int


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of it, at a time in microseconds since 1970.

    `leased`: tokens for each group; `buckets`: those of all groups in their order; `units`: used today.
    """

    at: int
    passed: bool
    units: int
    units_have_room: bool
    leased: Sequence[int]
    buckets: Sequence[Standing]


class BucketStore(Protocol):
    """The buckets of all tenants, shared by all servers."""

    async def take(self, takings: Sequence[Taking]) -> Sequence[Taken | None]:
        """Decides each by itself, in one round trip; None for one that could not be. Raises UNAVAILABLE."""
        ...

    def shard_of(self, tenant_id: TenantId) -> str:
        """Where the tenant's buckets are: what is away there may be in reach elsewhere."""
        ...

    async def ping(self, shard: str) -> None:
        """Asks for a sign of life. Raises UNAVAILABLE."""
        ...


class UnitStore(Protocol):
    """The units of days, kept for good."""

    async def add(self, units: Mapping[tuple[TenantId, date], int]) -> Mapping[tuple[TenantId, date], int]:
        """Adds to (or takes from) each day's units; their totals. Raises UNAVAILABLE."""
        ...

    async def take(self, tenant_id: TenantId, day: date, units: int, *, minimum: int, maximum: int) -> tuple[int, int]:
        """Adds as many as there is room for within `maximum`, but not fewer than `minimum`: how many, and the total.

        Raises UNAVAILABLE.
        """
        ...


class StreamCounts(Protocol):
    """How many streams of each tenant each server has open."""

    async def set(self, tenant_id: TenantId, count: int, *, maximum: int | None) -> bool:
        """Says how many this server has, if all have no more than `maximum` then; whether so. Raises UNAVAILABLE."""
        ...


class ServerRegister(Protocol):
    """Who serves."""

    async def beat(self) -> int:
        """Says that this process serves; how many do. Raises UNAVAILABLE."""
        ...

    async def leave(self) -> None:
        """Says that it serves no longer."""
        ...
