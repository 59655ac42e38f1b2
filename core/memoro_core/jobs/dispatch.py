"""Keeps workers in work: tells them of waiting jobs, a little ahead of what they can begin, each tenant in its turn."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import structlog

from memoro_core.clock import Clock
from memoro_core.errors import MemoroError
from memoro_core.ids import TenantId, UserId
from memoro_core.jobs.fairness import Turns
from memoro_core.jobs.hints import HINT_SIZE
from memoro_core.jobs.model import JobRef
from memoro_core.jobs.ports import HintQueue
from memoro_core.jobs.scheduling_ports import Allotment, SchedulingStore, WorkerLoad

_log = structlog.get_logger(__name__)
SIGN_OF_LIFE: Final = timedelta(seconds=8)
"""A worker that has been silent for longer is not counted on."""
_FIRST_USER: Final = UserId("")


class Dispatcher:
    """Chooses which waiting jobs begin next. One per deployment at a time is enough; more do no harm."""

    def __init__(self, store: SchedulingStore, queue: HintQueue, clock: Clock) -> None:
        self._store = store
        self._queue = queue
        self._clock = clock
        self._turns = Turns()
        self._after_users: dict[TenantId, UserId] = {}

    async def refill(self) -> int:
        """Hints as many jobs as the workers will soon have room for; how many. Raises UNAVAILABLE."""
        load = await self._store.load(seen_since=self._clock.now() - SIGN_OF_LIFE)
        return await self.dispatch(_wanted(load), workers=load.workers)

    async def dispatch(self, wanted: int, *, workers: int) -> int:
        """Hints `wanted` jobs, spread over so many workers; how many there were. Raises UNAVAILABLE."""
        if wanted <= 0:
            return 0
        now = self._clock.now()
        shares = self._turns.share(await self._store.tenants_waiting(now=now, limit=wanted), wanted)
        if not shares:
            return 0
        allotments = [
            Allotment(tenant_id, quota, self._after_users.pop(tenant_id, _FIRST_USER))
            for tenant_id, quota in shares.items()
        ]
        choices = await self._store.hint(allotments, now=now)
        self._after_users |= {
            tenant_id: choice.last_user for tenant_id, choice in choices.items() if choice.last_user is not None
        }
        # In the order of the turns, one of each tenant after the other, so that no message is one tenant's alone.
        chosen = _alternate([choices[tenant_id].jobs for tenant_id in shares if tenant_id in choices])
        size = max(1, min(HINT_SIZE, len(chosen) // (2 * max(workers, 1))))
        try:
            await self._queue.send_backlog([chosen[start : start + size] for start in range(0, len(chosen), size)])
        except MemoroError as error:
            _log.warning("hints_not_sent", jobs=len(chosen), reason=str(error))
            await self._store.take_back(chosen)
            return 0
        return len(chosen)


def _wanted(load: WorkerLoad) -> int:
    """About twice the free slots, and a few for those that will soon be free, less what is on its way."""
    free = max(load.concurrency - load.running, 0)
    return 2 * free + load.concurrency // 4 - load.hinted


def _alternate(queues: Sequence[Sequence[JobRef]]) -> list[JobRef]:
    longest = max(map(len, queues), default=0)
    return [queue[place] for place in range(longest) for queue in queues if place < len(queue)]
