"""What following all jobs of a tenant needs from the outside.

A tenant's events stand in one order: by the transaction that wrote them, then by job and number. Transactions commit in
another order than they begin, so an event is told only when no transaction is left that began before its own: the
horizon. Below it nothing can appear any more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple, Protocol
from uuid import UUID

from memoro_core.ids import JobId, TenantId, UserId
from memoro_core.jobs.model import Job, JobEvent, JobKind, JobState

NO_JOB: Final = UUID(int=0)
"""Comes before every job."""


class FeedPosition(NamedTuple):
    """A place in the order of a tenant's events: right behind the event of these numbers. Compares as the events do."""

    transaction_id: int
    job_id: UUID
    seq: int


def before_transaction(transaction_id: int) -> FeedPosition:
    """The place before all events of that transaction and of later ones."""
    return FeedPosition(transaction_id, NO_JOB, 0)


@dataclass(frozen=True, slots=True)
class FeedOrigin:
    """Where transaction ids come from: those of another cluster mean nothing here.

    `recovery` names the last time that the cluster came back from a crash or took another's place: what had not reached
    the disk then was taken back, and its transaction ids were given out anew.
    """

    cluster: int
    recovery: int


@dataclass(frozen=True, slots=True)
class FeedFilter:
    """Which jobs and events to tell of; what is empty or None fits all."""

    states: frozenset[JobState] = frozenset()
    kinds: frozenset[JobKind] = frozenset()
    user_id: UserId | None = None

    def fits(self, event: FeedEvent) -> bool:
        """Whether the event is to be told."""
        return (
            (not self.states or event.change.state in self.states)
            and (not self.kinds or event.kind in self.kinds)
            and (self.user_id is None or event.user_id == self.user_id)
        )


@dataclass(frozen=True, slots=True)
class FeedEvent:
    """An event of one of the tenant's jobs, and its place. `kind` is None when the job is gone."""

    position: FeedPosition
    kind: JobKind | None
    user_id: UserId | None
    change: JobEvent

    @property
    def job_id(self) -> JobId:
        """The job."""
        return JobId(self.position.job_id)


@dataclass(frozen=True, slots=True)
class FeedHead:
    """How far a tenant's events can be told, and when that was so by the database's clock."""

    position: FeedPosition
    origin: FeedOrigin
    at: datetime


@dataclass(frozen=True, slots=True)
class FeedPage:
    """Events in order. Up to `end` nothing is left out; `head` is that of the moment.

    A page ends before an event of whose job one with a lower number comes after the page: both are in a later one.
    `more`: there may be others behind, to be read at once. `held`: others are written, but can't be told yet.
    """

    events: Sequence[FeedEvent]
    end: FeedPosition
    head: FeedHead
    more: bool = False
    held: bool = False

    @property
    def at(self) -> datetime:
        """Nothing behind `end` happened before this time."""
        return self.events[-1].change.at if self.more else self.head.at


class FeedStore(Protocol):
    """The events of all jobs of a tenant, in the database. Every method raises UNAVAILABLE when it is away."""

    async def begin(
        self, tenant_id: TenantId, feed_filter: FeedFilter, *, after: JobId | None, limit: int
    ) -> tuple[FeedHead, Sequence[Job]]:
        """The feed's head, then the `limit` latest jobs by id that have not ended, fit and have an id above `after`."""
        ...

    async def read(self, tenant_id: TenantId, after: FeedPosition, *, limit: int) -> FeedPage:
        """What can be told after that place, at most `limit` events. Means nothing for a place of another origin."""
        ...

    async def behind(self, positions: Mapping[TenantId, FeedPosition]) -> tuple[FeedHead, frozenset[TenantId]]:
        """The head, and which tenants have an event after their position, whether it can be told yet or not."""
        ...
