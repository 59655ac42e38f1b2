"""Watching the queues: operators are told when one grows too long, or too many of its jobs fail."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from memoro_core.alerts.model import Alert, AlertKind, Severity
from memoro_core.alerts.ports import AlertStore
from memoro_core.billing.model import DEPLOYMENT
from memoro_core.clock import Clock
from memoro_core.ids import AlertId, new_id
from memoro_core.jobs.operation_model import QueueStatus
from memoro_core.jobs.operation_ports import QueueStore
from memoro_core.jobs.operations import day_start

INTERVAL: Final = timedelta(minutes=1)


class QueueMonitor:
    """Raises an alert when more than `waiting` jobs of a queue wait, or more than `failed` of them failed today.

    Each of the two once a queue and day; days begin in `time_zone`. Any number of processes may watch.
    """

    def __init__(
        self,
        queues: QueueStore,
        alerts: AlertStore,
        clock: Clock,
        *,
        waiting: int,
        failed: int,
        time_zone: tzinfo = UTC,
        interval: timedelta = INTERVAL,
    ) -> None:
        self._queues = queues
        self._alerts = alerts
        self._clock = clock
        self._waiting = waiting
        self._failed = failed
        self._time_zone = time_zone
        self._interval = interval
        self._look_at: datetime | None = None

    async def round(self) -> None:
        """Looks at the queues, if the last look was an interval ago. Raises UNAVAILABLE."""
        now = self._clock.now()
        if self._look_at is not None and now < self._look_at:
            return
        # Also when it fails: the next look is as good.
        self._look_at = now + self._interval
        for queue in await self._queues.queues(now=now, day_start=day_start(now, self._time_zone)):
            for alert in self._alerts_of(queue, now):
                await self._alerts.raise_alert(alert)

    def _alerts_of(self, queue: QueueStatus, now: datetime) -> Iterator[Alert]:
        if queue.waiting > self._waiting:
            title = f"{queue.waiting} jobs wait in the queue {queue.tier}."
            yield self._alert(queue, "waiting", title, self._waiting, now)
        if queue.failed_today > self._failed:
            title = f"{queue.failed_today} jobs of the queue {queue.tier} have failed today."
            yield self._alert(queue, "failed", title, self._failed, now)

    def _alert(self, queue: QueueStatus, condition: str, title: str, limit: int, now: datetime) -> Alert:
        day = now.astimezone(self._time_zone).date()
        return Alert(
            id=AlertId(new_id()),
            tenant_id=DEPLOYMENT,
            dedupe_key=f"queue/{queue.tier}/{condition}/{day.isoformat()}",
            kind=AlertKind.QUEUE_FAILING,
            severity=Severity.WARNING,
            title=title,
            created_at=now,
            details={
                "queue": str(queue.tier),
                "limit": limit,
                "waiting": queue.waiting,
                "running": queue.active,
                "failed_today": queue.failed_today,
                "paused": queue.paused_at is not None,
            },
        )
