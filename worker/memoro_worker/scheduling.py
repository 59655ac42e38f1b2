"""The scheduler's work, in whichever process leads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from prometheus_client import Gauge

from memoro_core.alerts.queue_monitor import QueueMonitor
from memoro_core.errors import MemoroError
from memoro_core.jobs.dispatch import Dispatcher
from memoro_core.jobs.recurring import Recurring
from memoro_core.jobs.scheduler import Scheduler
from memoro_core.postgres.leader import Leadership
from memoro_core.tasks import end_task

_log: Final = structlog.get_logger(__name__)
_BUSY_PAUSE: Final = 0.04
"""Seconds between two looks for jobs whose turn it is, while slots get free as fast as jobs can be hinted."""
_MANY: Final = 16
"""Jobs found by one look that say so: fewer looks that find more leave the machine to the jobs."""
_SUSPECT_PAUSE: Final = 0.1
"""Seconds between two looks at runs whose lease is out, while there are some."""


async def keep_scheduling(
    scheduler: Scheduler,
    dispatcher: Dispatcher,
    recurring: Recurring,
    queue_monitor: QueueMonitor,
    leadership: Leadership,
    *,
    interval: float,
    poll: float,
    leads: Gauge,
) -> None:
    """While this process leads: a round each `interval` seconds, recurring work when its time has come, queues watched,
    and jobs dispatched as workers get free; for ever.
    """
    leading = asyncio.Event()
    dispatching = asyncio.create_task(_dispatch(dispatcher, leading, poll))
    try:
        while True:
            was_leader = leadership.held
            leader = await leadership.acquire()
            leads.set(leader)
            (leading.set if leader else leading.clear)()
            if leader and not was_leader:
                _log.info("scheduler_leads")
            if leader:
                await _survive("round_failed", scheduler.round)
                await _survive("schedules_not_read", recurring.round)
                await _survive("queues_not_watched", queue_monitor.round)
            await (_wait(scheduler, interval) if leader else asyncio.sleep(interval))
    finally:
        await end_task(dispatching)
        await leadership.release()


async def _wait(scheduler: Scheduler, seconds: float) -> None:
    """Waits for the next round, and looks meanwhile whether suspect runs are lost."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        await asyncio.sleep(min(left, _SUSPECT_PAUSE) if scheduler.suspects else left)
        if scheduler.suspects:
            await _survive("runs_not_reaped", scheduler.reap)


async def _dispatch(dispatcher: Dispatcher, leading: asyncio.Event, poll: float) -> None:
    while True:
        await leading.wait()
        hinted = await _survive("dispatch_failed", dispatcher.refill)
        await asyncio.sleep(_BUSY_PAUSE if hinted >= _MANY else poll)


async def _survive(what: str, do: Callable[[], Awaitable[int | None]]) -> int:
    try:
        return await do() or 0
    except MemoroError as error:
        _log.warning(what, reason=str(error))
    except Exception:  # noqa: BLE001 - one that fails must not be the last
        _log.exception(what)
    return 0
