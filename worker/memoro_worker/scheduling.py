"""The scheduler's rounds, in whichever process leads."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog
from prometheus_client import Gauge

from memoro_core.errors import MemoroError
from memoro_core.jobs.scheduler import Scheduler
from memoro_core.postgres.leader import Leadership

_log: Final = structlog.get_logger(__name__)


async def keep_scheduling(scheduler: Scheduler, leadership: Leadership, *, interval: float, leads: Gauge) -> None:
    """A round each `interval` seconds while this process leads; for ever."""
    try:
        while True:
            was_leader = leadership.held
            leader = await leadership.acquire()
            leads.set(leader)
            if leader and not was_leader:
                _log.info("scheduler_leads")
            if leader:
                try:
                    await scheduler.round()
                except MemoroError as error:
                    _log.warning("round_failed", reason=str(error))
                except Exception:  # noqa: BLE001 - a round that fails must not be the last
                    _log.exception("round_failed")
            await asyncio.sleep(interval)
    finally:
        await leadership.release()
