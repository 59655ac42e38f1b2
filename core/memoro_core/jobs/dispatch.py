"""Keeps workers in work: tells them of waiting jobs, a little ahead of what they can begin, each tenant in its turn."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final, Protocol

import structlog

from memoro_core.clock import Clock
from memoro_core.errors import MemoroError
from memoro_core.ids import TenantId, UserId
from memoro_core.jobs.fairness import DeficitRoundRobin
from memoro_core.jobs.model import JobRef
from memoro_core.jobs.scheduling_ports import Allotment, SchedulingStore, Slots

_log = structlog.get_logger(__name__)
SIGN_OF_LIFE: Final = timedelta(seconds=8)
"""A worker that has been silent for longer is not counted on."""
_MAX_GROUP: Final = 16
"""Jobs that one message to a worker names at most."""
_FIRST_USER: Final = UserId("")


class BacklogQueue(Protocol):
    """Where hints to chosen jobs go."""

    async def send_backlog(self, groups: Sequence[Sequence[JobRef]]) -> None:
        """Sends a message for each group of jobs, which one worker will take. Raises UNAVAILABLE."""
        ...


class Dispatcher:
    """Chooses which waiting jobs begin next. One per deployment at a time is enough; more do no harm."""

    def __init__(self, store: SchedulingStore, queue: BacklogQueue, clock: Clock) -> None:
        self._store = store
        self._queue = queue
        self._clock = clock
        self._turns = DeficitRoundRobin()
        self._after_users: dict[TenantId, UserId] = {}

    async def refill(self) -> int:
        """Hints as many jobs as the workers will soon have room for; how many. Raises UNAVAILABLE."""
        slots = await self._store.slots(seen_since=self._clock.now() - SIGN_OF_LIFE)
        return await self.dispatch(_wanted(slots), workers=slots.workers)

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
        size = max(1, min(_MAX_GROUP, len(chosen) // (2 * max(workers, 1))))
        try:
            await self._queue.send_backlog([chosen[start : start + size] for start in range(0, len(chosen), size)])
        except MemoroError as error:
            # They count as hinted; when that has been long enough ago, they are chosen again.
            _log.warning("hints_not_sent", jobs=len(chosen), reason=str(error))
        return len(chosen)


def _wanted(slots: Slots) -> int:
    """About twice the free slots, and a few for those that will soon be free, less what is on its way."""
    free = max(slots.concurrency - slots.running, 0)
    return 2 * free + slots.concurrency // 4 - slots.hinted


def _alternate(queues: Sequence[Sequence[JobRef]]) -> list[JobRef]:
    longest = max(map(len, queues), default=0)
    return [queue[place] for place in range(longest) for queue in queues if place < len(queue)]
