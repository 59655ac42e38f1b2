"""The units of a day: counted in the shared buckets, kept in the database."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from datetime import date
from typing import Final

import structlog

from memoro_core.billing.calendar import Calendar
from memoro_core.clock import Clock
from memoro_core.errors import MemoroError
from memoro_core.ids import TenantId
from memoro_core.limits.ports import UnitStore

_AHEAD: Final = 64
"""Units that are taken from the database at once while the shared buckets are away, as long as there are as many."""
_MAX_TENANTS: Final = 50_000
_log = structlog.get_logger(__name__)
Key = tuple[TenantId, date]


class DailyUnits:
    """What this process knows of the units of days.

    What is spent is added to the database about once a second; the totals that come back are what a lost Redis is told.
    Only what is spent is in them, so that they are never more than Redis knows. While Redis is away, units are taken
    from the database itself, some ahead.
    """

    def __init__(self, store: UnitStore, calendar: Calendar, clock: Clock) -> None:
        self._store = store
        self._calendar = calendar
        self._clock = clock
        self._totals: dict[Key, int] = {}
        self._loading: dict[Key, asyncio.Task[None]] = {}
        self._unsaved: defaultdict[Key, int] = defaultdict(int)
        self._saving: Mapping[Key, int] = {}
        self._ahead: dict[Key, int] = {}
        self._taking: dict[Key, asyncio.Lock] = {}

    def today(self) -> date:
        """The day, in the time zone of the deployment."""
        return self._calendar.day(self._clock.now())

    def until_tomorrow(self) -> float:
        """Seconds until the day turns."""
        now = self._clock.now()
        return max(0.0, (self._calendar.day_end(now) - now).total_seconds())

    def used(self, tenant_id: TenantId, day: date) -> int:
        """The units that the tenant has spent at least, as far as it is known here."""
        key = (tenant_id, day)
        return self._totals.get(key, 0) + self._unsaved.get(key, 0) + self._saving.get(key, 0) - self._ahead.get(key, 0)

    def spend(self, tenant_id: TenantId, day: date, units: int) -> None:
        """Counts units that were spent of what the shared buckets gave."""
        self._unsaved[tenant_id, day] += units

    async def load(self, tenant_id: TenantId, day: date, *, timeout: float) -> None:
        """Asks the database for the total, once a day; goes on without it when it takes too long."""
        key = (tenant_id, day)
        if key in self._totals:
            return
        task = self._loading.get(key)
        if task is None:
            self._loading[key] = task = asyncio.create_task(self._load(key))
            task.add_done_callback(lambda _: self._loading.pop(key, None))
        await asyncio.wait([task], timeout=timeout)

    async def _load(self, key: Key) -> None:
        try:
            self._totals.update(await self._store.add({key: 0}))
        except MemoroError:
            _log.warning("the database does not tell of daily units")

    async def take(self, tenant_id: TenantId, day: date, units: int, *, maximum: int, timeout: float) -> bool:
        """Takes units without the shared buckets; whether there are so many.

        Without the database, those that this process knows to be left.
        """
        key = (tenant_id, day)
        if self._ahead.get(key, 0) < units:
            async with self._taking.setdefault(key, asyncio.Lock()):
                await self._take_ahead(key, units, maximum, timeout)
        if self._ahead.get(key, 0) >= units:
            self._ahead[key] -= units
            return True
        if self.used(tenant_id, day) + units > maximum:
            return False
        self._unsaved[key] += units
        return True

    def put_back(self, tenant_id: TenantId, day: date, units: int) -> None:
        """Returns what `take` took for a call that did not pass."""
        self._ahead[tenant_id, day] = self._ahead.get((tenant_id, day), 0) + units

    async def _take_ahead(self, key: Key, units: int, maximum: int, timeout: float) -> None:
        missing = units - self._ahead.get(key, 0)
        if missing <= 0:
            return
        # What was spent before has to be in the total, or it would be given out twice.
        unsaved = self._unsaved.pop(key, 0)
        try:
            async with asyncio.timeout(timeout):
                if unsaved:
                    await self._store.add({key: unsaved})
                    unsaved = 0
                taken, total = await self._store.take(*key, missing + _AHEAD, minimum=missing, maximum=maximum)
        except (MemoroError, TimeoutError):
            self._unsaved[key] += unsaved
            return
        self._totals[key] = total
        self._ahead[key] = self._ahead.get(key, 0) + taken

    async def save(self, *, away: bool) -> None:
        """Adds to the database what was spent, and forgets the days before; while it is `away`, keeps it all.

        With the shared buckets back, what was taken ahead of them returns.
        """
        if not away:
            for key, units in self._ahead.items():
                self._unsaved[key] -= units
            self._ahead.clear()
            self._taking.clear()
        changes = {key: units for key, units in self._unsaved.items() if units}
        self._unsaved.clear()
        if changes:
            self._saving = changes
            try:
                self._totals.update(await self._store.add(changes))
            except MemoroError:
                for key, units in changes.items():
                    self._unsaved[key] += units
            finally:
                self._saving = {}
        today = self.today()
        self._totals = {key: total for key, total in self._totals.items() if key[1] == today}
        for key in list(self._totals)[:-_MAX_TENANTS]:
            # It is loaded again when it is asked for.
            del self._totals[key]
