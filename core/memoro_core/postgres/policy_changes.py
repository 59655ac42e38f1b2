"""Hears of changes to tenants, tiers and credentials, whichever process made them."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

import asyncpg
import structlog

from memoro_core.ids import TenantId, parse_id
from memoro_core.settings import Settings
from memoro_core.tenancy.model import TierName
from memoro_core.tenancy.ports import PolicyCache

_CHANNEL: Final = "memoro_policies"
_TIMEOUT: Final = 2.0
_PROBE: Final = 5.0
"""Seconds after which the connection is asked for a sign of life: one that is cut off does not tell."""
_PAUSES: Final = (0.0, 0.1, 0.2, 0.5, 1.0)
"""Seconds before the next try to connect, after one, two … failures in a row."""
# InternalClientError is what asyncpg says of a connection that PostgreSQL has ended and whose end has not arrived yet.
_LOST: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
_log = structlog.get_logger(__name__)


class PolicyChanges:
    """Has caches forget what has changed as soon as that is committed, over a connection of its own.

    What it can't hear, while PostgreSQL is away or behind a pooler that lends connections for a transaction, they find
    out when their time has come.
    """

    def __init__(self, settings: Settings, cache: PolicyCache) -> None:
        self._url = str(settings.database_url)
        self._caches = [cache]
        self._listening = False

    def add(self, cache: PolicyCache) -> None:
        """One more that is told, after all before it."""
        self._caches.append(cache)

    @property
    def listening(self) -> bool:
        """Whether there is a connection on which changes are told."""
        return self._listening

    async def run(self) -> None:
        """Listens for ever, whatever happens to PostgreSQL."""
        failures = 0
        while True:
            try:
                await self._listen()
            except _LOST as error:
                if failures == 0:
                    _log.warning("policy_changes_not_heard", reason=type(error).__name__)
            except Exception:  # noqa: BLE001 - one that fails must not be the last
                _log.exception("policy_changes_not_heard")
            failures = 0 if self._listening else failures + 1
            self._listening = False
            await asyncio.sleep(_PAUSES[min(failures, len(_PAUSES) - 1)])

    async def _listen(self) -> None:
        """Until the connection is lost."""
        connection = await asyncpg.connect(
            self._url,
            timeout=_TIMEOUT,
            command_timeout=_TIMEOUT,
            statement_cache_size=0,
            server_settings={"application_name": "memoro policies"},
        )
        try:
            lost = asyncio.Event()
            connection.add_termination_listener(lambda _: lost.set())
            await connection.add_listener(_CHANNEL, self._heard)
            # After it began to listen, so that nothing falls in between.
            self._tell("", "")
            self._listening = True
            while not await _within(_PROBE, lost):
                await connection.execute("SELECT")
        finally:
            with contextlib.suppress(*_LOST):
                await connection.close(timeout=_TIMEOUT)

    def _heard(self, _connection: Any, _process_id: int, _channel: str, payload: object) -> None:
        kind, _, name = str(payload).partition(" ")
        self._tell(kind, name)

    def _tell(self, kind: str, name: str) -> None:
        """What is of another version of the service may be about anything."""
        tenant_id = parse_id(name)
        for cache in self._caches:
            if kind == "tier":
                cache.forget_tier(TierName(name))
            elif kind == "tenant_id" and tenant_id:
                cache.forget(TenantId(tenant_id))
            else:
                cache.forget_all()


async def _within(seconds: float, event: asyncio.Event) -> bool:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            return await event.wait()
    return False
