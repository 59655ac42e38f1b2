"""Recurring work: each time of a schedule once, whatever the number of processes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog
from structlog.contextvars import bind_contextvars

from memoro_core.clock import Clock
from memoro_core.errors import MemoroError
from memoro_core.jobs.cron import Cron
from memoro_core.jobs.recurring_ports import ScheduleStore
from memoro_core.tasks import end_task

LOST_AFTER: Final = timedelta(minutes=5)
"""After which whoever began a time and has not ended it counts as lost."""
_AT_MOST: Final = 0.8
"""The part of it that the work may take: the rest is for clocks that differ."""
_LOOK_AGAIN: Final = timedelta(seconds=5)
_log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Schedule:
    """Work that recurs. `work` gets the time it stands for; it may run twice over when a process is lost in it."""

    name: str
    cron: Cron
    work: Callable[[datetime], Awaitable[None]]


class Recurring:
    """Does the work of schedules, in the background, each time in one process only.

    Of the times that were missed while no process ran, only the latest of a schedule is made up for. A schedule that is
    new begins with its next time. While one time is worked on, no other of that schedule begins. Work whose process was
    lost, or that failed, is begun again after `lost_after`, unless its next time has come.
    """

    def __init__(
        self,
        store: ScheduleStore,
        schedules: Sequence[Schedule],
        clock: Clock,
        *,
        lost_after: timedelta = LOST_AFTER,
    ) -> None:
        self._store = store
        self._schedules = schedules
        self._clock = clock
        self._lost_after = lost_after
        self._look_at: dict[str, datetime] = {}
        self._running: dict[str, asyncio.Task[None]] = {}

    async def round(self) -> None:
        """Begins what is due, and returns while it goes on. Raises UNAVAILABLE."""
        for schedule in self._schedules:
            now = self._clock.now()
            look_at = self._look_at.get(schedule.name)
            if schedule.name not in self._running and (look_at is None or look_at <= now):
                self._look_at[schedule.name] = await self._look(schedule, now)

    async def close(self) -> None:
        """Ends work under way; another process begins it again."""
        for task in list(self._running.values()):
            await end_task(task)

    async def _look(self, schedule: Schedule, now: datetime) -> datetime:
        """Begins the schedule's latest time if nobody has; when to look again."""
        following = schedule.cron.after(now)
        latest = schedule.cron.latest(now)
        known = await self._store.latest(schedule.name)
        if known is None:
            await self._store.introduce(schedule.name, now=now)
            return following
        if latest is None or latest < known.fire_at or (latest == known.fire_at and known.ended_at is not None):
            return following
        lost_before = now - self._lost_after
        if known.ended_at is None and known.started_at >= lost_before:
            return now + _LOOK_AGAIN
        if not await self._store.begin(schedule.name, latest, now=now, lost_before=lost_before):
            return now + _LOOK_AGAIN
        task = asyncio.create_task(self._work(schedule, latest, now), context=Context())
        self._running[schedule.name] = task
        task.add_done_callback(lambda _: self._running.pop(schedule.name))
        # Looked at again soon, in case it fails.
        return now + _LOOK_AGAIN

    async def _work(self, schedule: Schedule, fire_at: datetime, started_at: datetime) -> None:
        bind_contextvars(schedule=schedule.name, fire_at=fire_at.isoformat())
        try:
            async with asyncio.timeout(self._lost_after.total_seconds() * _AT_MOST):
                await schedule.work(fire_at)
            now = self._clock.now()
            held = await self._store.end(schedule.name, fire_at, started_at=started_at, now=now)
        except (MemoroError, TimeoutError) as error:
            _log.warning("schedule_failed", reason=str(error) or "it took too long")
        except Exception:  # noqa: BLE001 - whatever it is, the schedule goes on
            _log.exception("schedule_failed")
        else:
            _log.info("schedule_fired", seconds=round((now - started_at).total_seconds(), 3), held=held)
