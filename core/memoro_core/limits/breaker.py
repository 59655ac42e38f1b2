"""Asking the shared buckets: many at once, never for longer than there is time, and not at all while they are away."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import structlog

from memoro_core.errors import MemoroError
from memoro_core.limits.ports import BucketStore, Taken, Taking
from memoro_core.tasks import end_task

Reply: TypeAlias = "tuple[Taken, float] | None"
"""What came of it and when it was asked; None: the shared buckets are away."""

_MAX_BATCH: Final = 512
MAX_UNDER_WAY: Final = 2
"""Pipelines at once: more misses gather for the next."""
_TURNS: Final = 12
"""Turns of the event loop within which the client sends what is asked, and hands over an answer that has arrived. They
take next to no time, unless the loop is so busy that it would not have looked for the answer before."""
_PROBE_TIMEOUT: Final = 0.25
"""Seconds that a sign of life may take: nobody waits for it."""
_PROBE_AFTER: Final = (0.02, 0.05, 0.1)
"""Seconds between two signs of life that are asked for, the last one for as long as it takes."""
_log = structlog.get_logger(__name__)


class Asking:
    """Sends what is asked in one turn of the event loop together.

    The first failure, or a wait of more than `timeout` seconds, opens the breaker: all are told so at once, until a
    probe succeeds.
    """

    def __init__(self, store: BucketStore, probe: Callable[[], Awaitable[object]], *, timeout: float) -> None:
        self._store = store
        self._probe = probe
        self._timeout = timeout
        self._waiting: deque[tuple[Taking, asyncio.Future[Reply]]] = deque()
        self._scheduled = False
        self._under_way: set[asyncio.Task[None]] = set()
        self._asked: set[asyncio.Future[Reply]] = set()
        self._probing: asyncio.Task[None] | None = None
        self.opened = 0
        """How often the breaker has opened."""

    @property
    def away(self) -> bool:
        """Whether the breaker is open."""
        return self._probing is not None

    def ask(self, taking: Taking) -> asyncio.Future[Reply]:
        """What comes of it; never raises."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reply] = loop.create_future()
        if self._probing is not None:
            future.set_result(None)
            return future
        self._asked.add(future)
        future.add_done_callback(self._asked.discard)
        self._waiting.append((taking, future))
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._send)
        return future

    async def close(self) -> None:
        """Ends what is under way."""
        for task in [*self._under_way, *([self._probing] if self._probing else [])]:
            await end_task(task)
        for future in list(self._asked):
            future.cancel()

    def _send(self) -> None:
        self._scheduled = False
        while self._waiting and len(self._under_way) < MAX_UNDER_WAY:
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MAX_BATCH))]
            batch = [one for one in batch if not one[1].done()]
            if batch:
                self._under_way.add(task := asyncio.create_task(self._take(batch)))
                task.add_done_callback(self._taken)

    def _taken(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if self._waiting:
            self._send()

    async def _take(self, batch: list[tuple[Taking, asyncio.Future[Reply]]]) -> None:
        asked_at, task = time.monotonic(), asyncio.current_task()
        assert task is not None
        # From now on: a busy loop may have let the call wait until it got here, and Redis is not to blame for that.
        timer = asyncio.get_running_loop().call_later(self._timeout, self._look_again, task, _TURNS)
        try:
            takens = await self._store.take([taking for taking, _ in batch])
        except MemoroError:
            self._open()
            return
        finally:
            timer.cancel()
        for (_, future), taken in zip(batch, takens, strict=True):
            if not future.done():
                future.set_result(None if taken is None else (taken, asked_at))

    def _look_again(self, task: asyncio.Task[None], turns: int) -> None:
        if task.done():
            return
        if turns:
            asyncio.get_running_loop().call_soon(self._look_again, task, turns - 1)
        else:
            self._open()

    def _open(self) -> None:
        if self._probing is None:
            self.opened += 1
            self._probing = asyncio.create_task(self._close_again())
        for task in list(self._under_way):
            task.cancel()
        self._waiting.clear()
        for future in list(self._asked):
            if not future.done():
                future.set_result(None)

    async def _close_again(self) -> None:
        _log.warning("Redis does not decide about limits in time; this process does")
        tries = 0
        while True:
            await asyncio.sleep(_PROBE_AFTER[min(tries, len(_PROBE_AFTER) - 1)])
            tries += 1
            try:
                async with asyncio.timeout(max(self._timeout, _PROBE_TIMEOUT)):
                    await self._probe()
            except (MemoroError, TimeoutError):
                continue
            break
        self._probing = None
        _log.info("Redis decides about limits again")
