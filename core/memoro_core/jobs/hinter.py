"""Sends hints in the background, many at a time, so that no call waits for Redis."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

import structlog

from memoro_core.errors import MemoroError
from memoro_core.jobs.model import JobRef
from memoro_core.jobs.ports import HintQueue

_MAX_WAITING: Final = 50_000
_MAX_BATCH: Final = 500
_log = structlog.get_logger(__name__)


class BackgroundHinter:
    """Gathers hints while one send is under way. What can't be sent is left to the scheduler, which finds the row."""

    def __init__(self, queue: HintQueue) -> None:
        self._queue = queue
        self._waiting: deque[JobRef] = deque(maxlen=_MAX_WAITING)
        self._task: asyncio.Task[None] | None = None

    def hint(self, ref: JobRef) -> None:
        """Sends a hint soon."""
        self._waiting.append(ref)
        if self._task is None:
            self._task = asyncio.create_task(self._send())

    async def close(self) -> None:
        """Waits until all hints are sent or given up."""
        if self._task is not None:
            await self._task

    async def _send(self) -> None:
        try:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MAX_BATCH))]
                try:
                    await self._queue.send(batch)
                except MemoroError as error:
                    _log.warning("hints_not_sent", jobs=len(batch), reason=str(error))
        finally:
            self._task = None
