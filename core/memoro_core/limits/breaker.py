"""Asking the shared buckets: many at once, never for longer than there is time, and not at all while they are away."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
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
_PATIENCE: Final = 0.25
"""Seconds for an answer that no call waits for: a lease that is renewed, or handed back."""
_GIVEN_UP_AFTER: Final = 1.0
"""Seconds that a pipeline or a sign of life may take, whoever waits."""
_PROBE_AFTER: Final = (0.02, 0.05, 0.1)
"""Seconds between two signs of life that are asked for, the last one for as long as it takes."""
_log = structlog.get_logger(__name__)


class Asking:
    """Sends what is asked in one turn of the event loop together.

    The first failure, or a call that has waited for more than `timeout` seconds, opens the breaker: all are told so at
    once, until a probe succeeds.
    """

    def __init__(self, store: BucketStore, probe: Callable[[], Awaitable[object]], *, timeout: float) -> None:
        self._store = store
        self._probe = probe
        self._timeout = timeout
        self._waiting: deque[tuple[Taking, asyncio.Future[Reply]]] = deque()
        self._urgent: list[asyncio.Future[Reply]] = []
        self._patient: list[asyncio.Future[Reply]] = []
        self._hurried: asyncio.Future[Reply] | None = None
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

    def ask(self, taking: Taking, *, urgent: bool) -> asyncio.Future[Reply]:
        """What comes of it; never raises. It is `urgent` where a call waits for it."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reply] = loop.create_future()
        if self._probing is not None:
            future.set_result(None)
            return future
        self._asked.add(future)
        future.add_done_callback(self._asked.discard)
        self._waiting.append((taking, future))
        (self._urgent if urgent else self._patient).append(future)
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._send_all)
        return future

    def hurry(self, asked: asyncio.Future[Reply]) -> None:
        """From now on a call waits for what was asked."""
        if asked is not self._hurried:
            self._hurried = asked
            self._expect([asked], self._timeout)

    async def close(self) -> None:
        """Ends what is under way."""
        for task in [*self._under_way, *([self._probing] if self._probing else [])]:
            await end_task(task)
        for future in list(self._asked):
            future.cancel()

    def _send_all(self) -> None:
        self._scheduled = False
        # From now on: a busy loop may have let the call wait until it got here, and Redis is not to blame for that.
        self._expect(self._urgent, self._timeout)
        self._expect(self._patient, max(self._timeout, _PATIENCE))
        self._urgent, self._patient = [], []
        self._send()

    def _expect(self, futures: Sequence[asyncio.Future[Reply]], seconds: float) -> None:
        if futures:
            asyncio.get_running_loop().call_later(seconds, self._look, futures, _TURNS)

    def _look(self, futures: Sequence[asyncio.Future[Reply]], turns: int) -> None:
        if all(future.done() for future in futures):
            return
        if turns:
            asyncio.get_running_loop().call_soon(self._look, futures, turns - 1)
        else:
            self._open()

    def _send(self) -> None:
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
        asked_at = time.monotonic()
        try:
            async with asyncio.timeout(_GIVEN_UP_AFTER):
                takens = await self._store.take([taking for taking, _ in batch])
        except (MemoroError, TimeoutError):
            self._open()
            return
        for (_, future), taken in zip(batch, takens, strict=True):
            if not future.done():
                future.set_result(None if taken is None else (taken, asked_at))

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
                async with asyncio.timeout(_GIVEN_UP_AFTER):
                    await self._probe()
            except (MemoroError, TimeoutError):
                continue
            break
        self._probing = None
        _log.info("Redis decides about limits again")
