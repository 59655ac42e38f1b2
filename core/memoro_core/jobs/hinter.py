"""Sends hints in the background, many at a time, so that no call waits for Redis."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Final

import structlog

from memoro_core.errors import MemoroError
from memoro_core.ids import TenantId
from memoro_core.jobs.model import JobRef
from memoro_core.jobs.ports import HintQueue
from memoro_core.tenancy.model import TierName

_MAX_WAITING: Final = 50_000
_MAX_BATCH: Final = 500
_MAX_GROUP: Final = 8
"""Jobs in one message at most."""
_SPREAD: Final = 8
"""Messages into which a burst is divided, before its groups grow: as many workers can start on it at once."""
_LINGER: Final = 0.005
"""Seconds to gather more in, once hints come faster than one at a time."""
_log = structlog.get_logger(__name__)


class BackgroundHinter:
    """Gathers hints while one send is under way. What can't be sent is left to the scheduler, which finds the row.

    A lone hint goes out by itself; of many that wait, some share a message.
    """

    def __init__(self, queue: HintQueue, tier_of: Callable[[TenantId], TierName]) -> None:
        self._queue = queue
        self._tier_of = tier_of
        self._waiting: deque[JobRef] = deque(maxlen=_MAX_WAITING)
        self._task: asyncio.Task[None] | None = None

    def hint(self, ref: JobRef) -> None:
        """Sends a hint soon."""
        self._waiting.append(ref)
        if self._task is None:
            self._task = asyncio.create_task(self._send(), context=Context())

    async def close(self) -> None:
        """Waits until all hints are sent or given up."""
        if self._task is not None:
            await self._task

    async def _send(self) -> None:
        try:
            while self._waiting:
                batches: defaultdict[TierName, list[JobRef]] = defaultdict(list)
                for _ in range(min(len(self._waiting), _MAX_BATCH)):
                    ref = self._waiting.popleft()
                    batches[self._tier_of(ref.tenant_id)].append(ref)
                for tier, refs in batches.items():
                    try:
                        await self._queue.send_fresh(grouped(refs), tier)
                    except MemoroError as error:
                        _log.warning("hints_not_sent", jobs=len(refs), reason=str(error))
                if self._waiting:
                    await asyncio.sleep(_LINGER)
        finally:
            self._task = None


def grouped(refs: Sequence[JobRef]) -> Sequence[Sequence[JobRef]]:
    """The jobs in order, in groups of 1 to 8; the more there are, the larger the groups."""
    size = min(_MAX_GROUP, max(1, len(refs) // _SPREAD))
    return [refs[start : start + size] for start in range(0, len(refs), size)]
