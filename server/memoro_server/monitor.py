"""Watches what the server depends on, and the server itself."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

import structlog

from memoro_core.limits.counts import LimitCounts
from memoro_server.metrics import ServerMetrics
from memoro_server.serving import Serving

_INTERVAL: Final = 1.0
_PING_TIMEOUT: Final = 5.0
_LAG_INTERVAL: Final = 0.25


class Pingable(Protocol):
    """What is asked for signs of life. Requests can't use it up, or a busy server would pass for a dead one."""

    async def ping(self) -> None:
        """Raises UNAVAILABLE when it does not answer."""
        ...


class Pool(Protocol):
    """The connections that requests share."""

    @property
    def in_use(self) -> int: ...

    @property
    def size(self) -> int: ...


class Monitor:
    """Asks PostgreSQL for a sign of life about once a second, and measures by how much the event loop is late."""

    def __init__(
        self, database: Pool, probe: Pingable, limits: LimitCounts, serving: Serving, metrics: ServerMetrics
    ) -> None:
        self._database = database
        self._limits = limits
        self._probe = probe
        self._serving = serving
        self._metrics = metrics
        self._open = metrics.database_connections.labels(state="open")
        self._lent = metrics.database_connections.labels(state="in_use")
        self._logger = structlog.get_logger("memoro.server")

    async def check(self) -> None:
        """One sign of life from PostgreSQL: it decides whether the server serves. Raises UNAVAILABLE, TimeoutError."""
        try:
            async with asyncio.timeout(_PING_TIMEOUT):
                await self._probe.ping()
        except Exception:
            self._set(False)
            raise
        self._set(True)

    async def watch_dependencies(self) -> None:
        """Checks for ever."""
        while True:
            try:
                await self.check()
            except Exception as error:  # noqa: BLE001 - whatever it is, it must not be the last look
                self._logger.warning("database does not answer", reason=type(error).__name__)
            self._open.set(self._database.size)
            self._lent.set(self._database.in_use)
            self._metrics.limits(self._limits)
            await asyncio.sleep(_INTERVAL)

    async def watch_loop(self) -> None:
        """Measures for ever."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _LAG_INTERVAL
            await asyncio.sleep(_LAG_INTERVAL)
            self._metrics.loop_lag.set(max(0.0, loop.time() - due))

    def _set(self, value: bool) -> None:
        self._serving.set(value)
        self._metrics.serving.set(bool(self._serving))
