"""Working off the alerts that are raised: claims, sends and settles, in every worker process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final, TypeVar

import structlog

from memoro_core.alerts.model import AlertClaim, AlertState
from memoro_core.alerts.ports import AlertStore
from memoro_core.alerts.retry import AlertPolicy
from memoro_core.alerts.routing import AlertRouter
from memoro_core.clock import Clock
from memoro_core.errors import MemoroError
from memoro_core.tasks import end_task

SLOTS: Final = 4
"""Alerts that a process sends at once."""
PATIENCE: Final = 15.0
"""Seconds for which a database that is away is asked again to record what was sent."""
_ASK_AGAIN: Final = 0.5
_PRUNE_EVERY: Final = timedelta(minutes=10)
_PRUNE_BATCH: Final = 5000
_log: Final = structlog.get_logger(__name__)

T = TypeVar("T")


class AlertDeliverer:
    """Sends what is raised, once over each channel. Any number of processes may do so beside each other.

    What a channel has taken is recorded before anything else is done, so that only an attempt that is killed just then
    is made again. `interval` seconds pass between looks for what is due; what has ended is kept for `retention`.
    """

    def __init__(
        self,
        store: AlertStore,
        router: AlertRouter,
        clock: Clock,
        policy: AlertPolicy,
        *,
        interval: float,
        retention: timedelta,
        patience: float = PATIENCE,
    ) -> None:
        self._store = store
        self._router = router
        self._clock = clock
        self._policy = policy
        self._interval = interval
        self._retention = retention
        self._patience = patience
        # The log, the channels and the end are recorded one after the other.
        self._lease = timedelta(seconds=router.longest + 3 * patience)
        self._running: set[asyncio.Task[None]] = set()
        self._prune_at: datetime | None = None

    async def run(self, stop: asyncio.Event, *, grace: float, told: Callable[[AlertState], None]) -> None:
        """Sends until `stop` is set, then gives attempts under way `grace` seconds; cut off, they are made again.

        `told` hears the state that each attempt leaves its alert in.
        """
        try:
            while not stop.is_set():
                await self._round(told)
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._interval):
                        await stop.wait()
            if self._running:
                await asyncio.wait(self._running, timeout=grace)
        finally:
            for task in list(self._running):
                await end_task(task)

    async def _round(self, told: Callable[[AlertState], None]) -> None:
        try:
            await self._claim(told)
            await self._prune()
        except MemoroError as error:
            _log.warning("alerts_not_claimed", reason=error.message)
        except Exception:  # noqa: BLE001 - a round that fails must not be the last
            _log.exception("alerts_not_claimed")

    async def _claim(self, told: Callable[[AlertState], None]) -> None:
        room = SLOTS - len(self._running)
        if room <= 0:
            return
        now = self._clock.now()
        for claim in await self._store.claim(limit=room, now=now, lease_until=now + self._lease):
            task = asyncio.create_task(self._attempt(claim, told))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _attempt(self, claim: AlertClaim, told: Callable[[AlertState], None]) -> None:
        log = _log.bind(alert_id=str(claim.alert.id), attempt=claim.attempt)

        async def took(channel: str) -> None:
            await self._durably(lambda: self._store.took(claim.alert.id, channel))

        try:
            results = await self._router.send(claim.alert, delivered_over=claim.delivered_over, took=took)
            now = self._clock.now()
            verdict = self._policy.judge(claim, results, now, complete=self._router.complete(results))
            held = await self._durably(lambda: self._store.settle(claim, verdict, now=now))
        except MemoroError as error:
            # Its lease runs out, and it is made again.
            log.warning("alert_not_settled", reason=error.message)
            return
        except Exception:
            log.exception("alert_not_settled")
            return
        told(verdict.state)
        write = log.error if verdict.state is AlertState.FAILED else log.info if verdict.error else log.debug
        write("alert_attempt", state=str(verdict.state), error=verdict.error, held=held)

    async def _durably(self, write: Callable[[], Awaitable[T]]) -> T:
        """Writes, again and again while the database is away: what was sent and is not recorded is sent twice."""
        give_up_at = time.monotonic() + self._patience
        while True:
            try:
                return await write()
            except MemoroError:
                if time.monotonic() >= give_up_at:
                    raise
            await asyncio.sleep(_ASK_AGAIN)

    async def _prune(self) -> None:
        now = self._clock.now()
        if self._prune_at is not None and now < self._prune_at:
            return
        pruned = await self._store.prune(ended_before=now - self._retention, limit=_PRUNE_BATCH)
        # A full batch says that there is more.
        self._prune_at = now if pruned == _PRUNE_BATCH else now + _PRUNE_EVERY
