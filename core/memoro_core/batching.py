"""Concurrent calls gathered into few: what costs once per batch is paid once for all who wait."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
R = TypeVar("R")


class Coalescer(Generic[K, T, R]):
    """Runs `flush(key, items)` over the items that gather while the key's flush before it is under way.

    An idle key flushes at the next turn of the event loop, so a lone caller waits for nobody. `flush` returns a result
    per item, in order; an exception as a result is raised for that item alone; one that `flush` raises is raised for
    all of its items. At most `max_items` go into a flush, and `max_parallel` flushes of a key run at once.

    With `linger`, in seconds, a flush of a key that was crowded the last time waits so long for more to gather: under
    load fewer and larger flushes cost less, and a lone caller waits at most once.
    """

    def __init__(
        self,
        flush: Callable[[K, Sequence[T]], Awaitable[Sequence[R | Exception]]],
        *,
        max_items: int = 128,
        max_parallel: int = 1,
        linger: float = 0.0,
    ) -> None:
        self._flush = flush
        self._linger = linger
        self._crowded: set[K] = set()
        self._max_items = max_items
        self._max_parallel = max_parallel
        self._waiting: dict[K, deque[tuple[T, asyncio.Future[R]]]] = {}
        self._running: dict[K, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def submit(self, key: K, item: T) -> R:
        """The item's own result. The item of a caller that is cancelled while it waits is flushed all the same."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, deque()).append((item, future))
        if self._running.get(key, 0) < self._max_parallel:
            self._running[key] = self._running.get(key, 0) + 1
            # Of no caller more than of another: in a context of its own.
            task = asyncio.create_task(self._drain(key), context=Context())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await future

    async def close(self) -> None:
        """Waits until all that was submitted is flushed."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _drain(self, key: K) -> None:
        try:
            while waiting := self._waiting.get(key):
                if self._linger and key in self._crowded and len(waiting) < self._max_items:
                    await asyncio.sleep(self._linger)
                batch = [waiting.popleft() for _ in range(min(len(waiting), self._max_items))]
                (self._crowded.add if len(batch) > 1 else self._crowded.discard)(key)
                await self._flush_batch(key, batch)
        finally:
            self._running[key] -= 1
            if not self._running[key]:
                del self._running[key]
                if not self._waiting.get(key):
                    self._waiting.pop(key, None)

    async def _flush_batch(self, key: K, batch: Sequence[tuple[T, asyncio.Future[R]]]) -> None:
        futures = [future for _, future in batch]
        try:
            results = await self._flush(key, [item for item, _ in batch])
        except asyncio.CancelledError:
            for future in futures:
                future.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, each waiting caller gets it
            for future in futures:
                if not future.done():
                    future.set_exception(error)
            return
        for future, result in zip(futures, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
