"""Deletes what is old: ended jobs and their events, request ids, the audit log, times of schedules, silent workers …"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from memoro_core.audit.ports import AuditStore
from memoro_core.idempotency import RETENTION, RequestStore
from memoro_core.jobs.model import JobState
from memoro_core.jobs.retention_ports import RetentionStore

_SUCCEEDED: Final = (JobState.SUCCEEDED, JobState.CANCELLED)
_FAILED: Final = (JobState.FAILED,)
_JOBS_AT_ONCE: Final = 1000
_REQUESTS_AT_ONCE: Final = 10_000
_EVENTS_AT_ONCE: Final = 10_000
_KEPT_FIRES: Final = timedelta(days=30)
_SILENT: Final = timedelta(hours=1)
_KEPT_BUDGET_DAYS: Final = timedelta(days=90)
_KEPT_SLOTS: Final = timedelta(hours=2)
"""Longer than they count, for workers whose clocks are behind."""
_KEPT_UNIT_DAYS: Final = timedelta(days=30)
_FROM_THE_START: Final = timedelta(days=1)
_EVER: Final = datetime(1970, 1, 1, tzinfo=UTC)
_log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """How long ended jobs are kept where their tier does not say: cancelled ones as long as those that succeeded."""

    kept_succeeded: timedelta
    kept_failed: timedelta
    kept_audit: timedelta


class Retention:
    """Sweeps out what is old, in batches. Sweeps of two processes at once do no harm.

    A sweep of jobs goes on where the one before it in this process stopped, so that jobs which other tiers keep longer
    are not read each time; once a day it begins at the start, for tenants that have changed to another tier.
    """

    def __init__(
        self, store: RetentionStore, requests: RequestStore, audit: AuditStore, policy: RetentionPolicy
    ) -> None:
        self._store = store
        self._requests = requests
        self._audit = audit
        self._policy = policy
        self._swept_until: dict[tuple[str, Sequence[JobState]], datetime] = {}
        self._from_the_start_at: datetime | None = None

    async def sweep(self, fire_at: datetime) -> None:
        """Deletes all that is too old at that time. Raises UNAVAILABLE, and then has deleted a part of it."""
        requests = await self._forget_requests(made_before=fire_at - RETENTION)
        if self._from_the_start_at is None or fire_at >= self._from_the_start_at:
            self._swept_until.clear()
            self._from_the_start_at = fire_at + _FROM_THE_START
        jobs = 0
        for tier in await self._store.keeping():
            for states, kept, default in (
                (_SUCCEEDED, tier.succeeded, self._policy.kept_succeeded),
                (_FAILED, tier.failed, self._policy.kept_failed),
            ):
                ended_before = fire_at - (default if kept is None else kept)
                jobs += await self._forget_jobs(tier.tier, states, ended_before=ended_before)
        fires = await self._store.forget_fires(before=fire_at - _KEPT_FIRES)
        workers = await self._store.forget_workers(silent_since=fire_at - _SILENT)
        budget_days = await self._store.forget_budget_days(before=(fire_at - _KEPT_BUDGET_DAYS).date())
        slots = await self._store.forget_relation_slots(before=fire_at - _KEPT_SLOTS)
        unit_days = await self._store.forget_unit_days(before=(fire_at - _KEPT_UNIT_DAYS).date())
        audit_events = await self._forget_audit_events(before=fire_at - self._policy.kept_audit)
        _log.info(
            "swept",
            jobs=jobs,
            requests=requests,
            fires=fires,
            workers=workers,
            budget_days=budget_days,
            relation_slots=slots,
            unit_days=unit_days,
            audit_events=audit_events,
        )

    async def _forget_jobs(self, tier: str, states: Sequence[JobState], *, ended_before: datetime) -> int:
        forgotten = 0
        key = (tier, states)
        while (ended_from := self._swept_until.get(key, _EVER)) < ended_before:
            count, ended_until = await self._store.forget_jobs(
                tier, states, ended_from=ended_from, ended_before=ended_before, limit=_JOBS_AT_ONCE
            )
            forgotten += count
            self._swept_until[key] = ended_until if count == _JOBS_AT_ONCE else ended_before
        return forgotten

    async def _forget_audit_events(self, *, before: datetime) -> int:
        forgotten = 0
        while True:
            count = await self._audit.forget(before=before, limit=_EVENTS_AT_ONCE)
            forgotten += count
            if count < _EVENTS_AT_ONCE:
                return forgotten

    async def _forget_requests(self, *, made_before: datetime) -> int:
        forgotten = 0
        while True:
            count = await self._requests.forget(before=made_before, limit=_REQUESTS_AT_ONCE)
            forgotten += count
            if count < _REQUESTS_AT_ONCE:
                return forgotten
