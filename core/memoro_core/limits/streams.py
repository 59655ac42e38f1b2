"""How many streams a tenant may have open over all servers."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from memoro_core.errors import Code, MemoroError, Reason
from memoro_core.ids import TenantId
from memoro_core.limits.ports import StreamCounts
from memoro_core.tasks import end_task

_RETRY_AFTER: Final = 1.0
_RENEW_EVERY: Final = 5.0
"""Seconds; what a server says counts three times as long."""
_AT_ONCE: Final = 64
_LOCKS: Final = 64
_AWAY: Final = 0.5
"""Seconds for which Redis is not asked again where it did not answer."""
_PATIENCE: Final = 1.0
"""Seconds for which Redis is waited for where no caller waits."""


class LocalOpenStreams:
    """An `OpenStreams` of this process alone."""

    def __init__(self) -> None:
        self._open: Counter[TenantId] = Counter()

    @asynccontextmanager
    async def one_more(self, tenant_id: TenantId, *, maximum: int | None) -> AsyncIterator[None]:
        """A stream, open while the block is entered. Raises RATE_LIMITED when the tenant has `maximum` of them."""
        if maximum is not None and self._open[tenant_id] >= maximum:
            raise too_many_streams(maximum)
        self._open[tenant_id] += 1
        try:
            yield
        finally:
            _one_less(self._open, tenant_id)


class SharedOpenStreams:
    """An `OpenStreams` over all servers, working while its block is entered.

    Each server tells how many it has. What one that died had open counts for some seconds more. While Redis does not
    answer within `timeout` seconds, a server allows its share: `servers` tells how many there are.
    """

    def __init__(self, counts: StreamCounts, servers: Callable[[], int], *, timeout: float) -> None:
        self._counts = counts
        self._servers = servers
        self._timeout = timeout
        self._open: Counter[TenantId] = Counter()
        self._changed: set[TenantId] = set()
        self._wake = asyncio.Event()
        self._locks = [asyncio.Lock() for _ in range(_LOCKS)]
        self._away_until = 0.0
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> SharedOpenStreams:
        self._task = asyncio.create_task(self._tell())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            await end_task(self._task)
        self._open.clear()
        await self._tell_of(list(self._changed))

    @asynccontextmanager
    async def one_more(self, tenant_id: TenantId, *, maximum: int | None) -> AsyncIterator[None]:
        await self._open_one(tenant_id, maximum)
        try:
            yield
        finally:
            _one_less(self._open, tenant_id)
            self._tell_soon(tenant_id)

    async def _open_one(self, tenant_id: TenantId, maximum: int | None) -> None:
        if maximum is None:
            self._open[tenant_id] += 1
            self._tell_soon(tenant_id)
            return
        # One after another, so that what arrives last was also sent last.
        async with self._lock_of(tenant_id):
            count = self._open[tenant_id] + 1
            try:
                may = await self._may_open(tenant_id, count, maximum)
            except asyncio.CancelledError:
                self._tell_soon(tenant_id)
                raise
            if not may:
                raise too_many_streams(maximum)
            self._open[tenant_id] += 1
            if self._open[tenant_id] != count:
                self._tell_soon(tenant_id)

    async def _may_open(self, tenant_id: TenantId, count: int, maximum: int) -> bool:
        if time.monotonic() >= self._away_until:
            try:
                async with asyncio.timeout(self._timeout):
                    return await self._counts.set(tenant_id, count, maximum=maximum)
            except (MemoroError, TimeoutError):
                self._away_until = time.monotonic() + _AWAY
        self._tell_soon(tenant_id)
        return count <= max(1, maximum // self._servers())

    def _lock_of(self, tenant_id: TenantId) -> asyncio.Lock:
        return self._locks[hash(tenant_id) % len(self._locks)]

    def _tell_soon(self, tenant_id: TenantId) -> None:
        self._changed.add(tenant_id)
        self._wake.set()

    async def _tell(self) -> None:
        while True:
            try:
                async with asyncio.timeout(_RENEW_EVERY):
                    while True:
                        await self._wake.wait()
                        self._wake.clear()
                        changed = list(self._changed)
                        self._changed.clear()
                        if not await self._tell_of(changed):
                            # Not again at once: with the next renewal.
                            self._changed.update(changed)
            except TimeoutError:
                await self._tell_of({*self._open, *self._changed})

    async def _tell_of(self, tenants: list[TenantId] | set[TenantId]) -> bool:
        told, many = True, list(tenants)
        for start in range(0, len(many), _AT_ONCE):
            answers = await asyncio.gather(*map(self._tell_one, many[start : start + _AT_ONCE]))
            told = told and all(answers)
        return told

    async def _tell_one(self, tenant_id: TenantId) -> bool:
        try:
            async with asyncio.timeout(_PATIENCE), self._lock_of(tenant_id):
                await self._counts.set(tenant_id, self._open.get(tenant_id, 0), maximum=None)
        except (MemoroError, TimeoutError):
            return False
        self._changed.discard(tenant_id)
        return True


def _one_less(streams: Counter[TenantId], tenant_id: TenantId) -> None:
    streams[tenant_id] -= 1
    if streams[tenant_id] <= 0:
        del streams[tenant_id]


def too_many_streams(maximum: int) -> MemoroError:
    """RESOURCE_EXHAUSTED / RATE_LIMITED."""
    return MemoroError(
        Code.RESOURCE_EXHAUSTED,
        Reason.RATE_LIMITED,
        f"too many open streams: the tenant may have {maximum} at once; close one first",
        metadata={"limit": "open_streams", "maximum": str(maximum)},
        retry_after=_RETRY_AFTER,
    )
