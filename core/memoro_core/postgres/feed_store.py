"""The feed of a tenant's job events in PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from asyncpg import Record

from memoro_core.ids import JobId, TenantId, UserId
from memoro_core.jobs.feed_order import beginning
from memoro_core.jobs.feed_ports import (
    FeedEvent,
    FeedFilter,
    FeedHead,
    FeedOrigin,
    FeedPage,
    FeedPosition,
    before_transaction,
)
from memoro_core.jobs.model import TERMINAL, Job, JobKind, JobState
from memoro_core.postgres.database import Database
from memoro_core.postgres.job_rows import event_of, job_of
from memoro_core.postgres.queries import load_queries

_SQL: Final = load_queries("feed")
_OPEN: Final = frozenset(JobState) - TERMINAL
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_LONGEST_PAGE: Final = 8_000
"""Events among which those of a job are put in order, if their transactions have overtaken each other by so much."""


class PostgresFeedStore:
    """A `FeedStore`. Needs a role that may read `pg_control_system`, as every role may unless it was revoked."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(
        self, tenant_id: TenantId, feed_filter: FeedFilter, *, after: JobId | None, limit: int
    ) -> tuple[FeedHead, Sequence[Job]]:
        states = feed_filter.states & _OPEN if feed_filter.states else _OPEN
        async with self._database.tenant_tx(tenant_id) as connection:
            # The head first, the jobs second: what happens in between is told by both, not by neither.
            head = _head_of((await connection.fetch(_SQL["feed_head"]))[0])
            rows = await connection.fetch(
                _SQL["feed_jobs"], tenant_id, list(states), list(feed_filter.kinds), feed_filter.user_id, after, limit
            )
        return head, [job_of(row) for row in reversed(rows)]

    async def read(self, tenant_id: TenantId, after: FeedPosition, *, limit: int) -> FeedPage:
        async with self._database.tenant_tx(tenant_id) as connection:
            rows = await connection.fetch(_SQL["read_feed"], tenant_id, *after, limit)
        head = _head_of(rows[0])
        events = [_event_of(row) for row in rows if row["job_id"] is not None]
        full = len(events) == limit
        # A writer who waited for another may stand before it in the order, though it wrote after it.
        later = {(row["job_id"], row["seq"] - 1) for row in rows if row["overtook"]}
        count = beginning(events, len(events), later - {(event.job_id, event.position.seq) for event in events})
        if count == len(events) and not full:
            return FeedPage(events, max(after, head.position), head, held=rows[0]["held"])
        if full and not count:
            if limit < _LONGEST_PAGE:
                return await self.read(tenant_id, after, limit=2 * limit)
            # Memory is worth more than order.
            count = limit
        end = events[count - 1].position if count else after
        if full:
            return FeedPage(events[:count], end, head, more=True)
        # As if nothing behind could be told yet.
        return FeedPage(events[:count], end, replace(head, position=end), held=True)

    async def behind(self, positions: Mapping[TenantId, FeedPosition]) -> tuple[FeedHead, frozenset[TenantId]]:
        transaction_ids, job_ids, seqs = zip(*positions.values(), strict=True)
        async with self._database.system_tx() as connection:
            rows = await connection.fetch(_SQL["feeds_behind"], list(positions), transaction_ids, job_ids, seqs)
        late = (row["tenant_id"] for row in rows)
        return _head_of(rows[0]), frozenset(TenantId(tenant_id) for tenant_id in late if tenant_id is not None)


def _head_of(row: Record) -> FeedHead:
    recovery = (row["recovery"] - _EPOCH) // _MICROSECOND if row["recovery"] is not None else 0
    return FeedHead(before_transaction(row["horizon"]), FeedOrigin(row["cluster"], recovery), row["at"])


def _event_of(row: Record) -> FeedEvent:
    kind, user_id = row["kind"], row["user_id"]
    return FeedEvent(
        FeedPosition(row["transaction_id"], row["job_id"], row["seq"]),
        None if kind is None else JobKind(kind),
        None if user_id is None else UserId(user_id),
        event_of(row["event"]),
    )
