"""While Redis is away nobody can be told of jobs: each worker then takes some of those that wait by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Final, Protocol

import structlog

from memoro_core.errors import MemoroError
from memoro_core.jobs.dispatch import Dispatcher
from memoro_core.jobs.hints import HintClass
from memoro_core.jobs.model import JobRef
from memoro_core.jobs.slots import Reservation, Slots
from memoro_core.tasks import end_task
from memoro_core.tenancy.model import TierName

_PATIENCE: Final = 1.0
"""Seconds that Redis may be away before a worker stands in for it."""
_log = structlog.get_logger("memoro.worker")

RunJobs = Callable[[Sequence[JobRef], Reservation], Awaitable[None]]


class Broker(Protocol):
    """What reads hints: a `HintBroker`."""

    @property
    def unreachable_since(self) -> float | None:
        """Since when, by `time.monotonic`, Redis has not answered; None while it does."""
        ...


class OwnQueue:
    """A `HintQueue` that begins the jobs here and now."""

    def __init__(self, slots: Slots, run_jobs: RunJobs) -> None:
        self._slots = slots
        self._run_jobs = run_jobs
        self._tasks: set[asyncio.Task[None]] = set()

    async def send_fresh(self, groups: Sequence[Sequence[JobRef]], tier: TierName) -> None:
        await self.send_backlog(groups)

    async def send_backlog(self, groups: Sequence[Sequence[JobRef]]) -> None:
        for refs in groups:
            task = asyncio.create_task(self._run(refs))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def oldest(self) -> Mapping[HintClass, datetime | None]:
        return dict.fromkeys(HintClass)

    async def close(self) -> None:
        """Waits for what has begun."""
        await asyncio.gather(*(end_task(task) for task in self._tasks))

    async def _run(self, refs: Sequence[JobRef]) -> None:
        reservation = self._slots.hold(HintClass.BACKLOG, len(refs))
        try:
            await self._run_jobs(refs, reservation)
        finally:
            reservation.close()


async def stand_in(broker: Broker, dispatcher: Dispatcher, slots: Slots, *, interval: float) -> None:
    """While Redis is away, every `interval` seconds has as many jobs dispatched as there are slots for; for ever."""
    standing_in = False
    while True:
        await asyncio.sleep(interval)
        since = broker.unreachable_since
        away = since is not None and time.monotonic() - since > _PATIENCE
        if away is not standing_in:
            standing_in = away
            _log.warning("jobs_taken_without_redis" if away else "redis_is_back")
        if away:
            try:
                await dispatcher.dispatch(slots.room(HintClass.BACKLOG), workers=1)
            except MemoroError as error:
                _log.warning("dispatch_failed", reason=str(error))
            except Exception:  # noqa: BLE001 - one that fails must not be the last
                _log.exception("dispatch_failed")
