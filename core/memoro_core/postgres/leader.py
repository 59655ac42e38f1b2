"""Which of many processes does what only one should."""

from __future__ import annotations

import contextlib
from typing import Final

import asyncpg

from memoro_core.settings import Settings

SCHEDULER_LOCK: Final = 0x6D656D6F
"""The advisory lock of the one scheduler that leads."""
IDLE_LIMIT: Final = 3.0
"""Seconds after which a leader that has not asked again leads no more."""
_TIMEOUT: Final = 2.0


class Leadership:
    """Holds an advisory lock on a connection of its own: with the process or the connection it is lost, and free.

    PostgreSQL itself ends a connection that has been silent for IDLE_LIMIT, so that a leader that hangs, is stopped or
    is cut off makes room for another.
    """

    def __init__(self, settings: Settings, lock: int) -> None:
        self._url = str(settings.database_url)
        self._lock = lock
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._held = False

    @property
    def held(self) -> bool:
        """Whether this process led when it last asked."""
        return self._held

    async def acquire(self) -> bool:
        """Whether this process leads now; asks PostgreSQL each time. False while PostgreSQL is away."""
        try:
            if self._connection is None or self._connection.is_closed():
                self._held = False
                self._connection = await asyncpg.connect(
                    self._url,
                    timeout=_TIMEOUT,
                    command_timeout=_TIMEOUT,
                    statement_cache_size=0,
                    server_settings={
                        "application_name": "memoro leader",
                        "idle_session_timeout": str(round(IDLE_LIMIT * 1000)),
                    },
                )
            statement = "SELECT true" if self._held else "SELECT pg_try_advisory_lock($1)"
            self._held = bool(await self._connection.fetchval(statement, *(() if self._held else (self._lock,))))
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
            await self.release()
        return self._held

    async def release(self) -> None:
        """Gives up the lead, and the connection."""
        self._held = False
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
                await connection.close(timeout=_TIMEOUT)
