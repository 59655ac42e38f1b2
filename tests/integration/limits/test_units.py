"""The units of a day: exact over servers, kept when Redis forgets, and there when it is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from uuid import uuid4

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from memoro_core.errors import unavailable
from memoro_core.ids import TenantId
from memoro_core.limits.model import Limits, MethodClass
from memoro_core.postgres.database import Database, open_database
from memoro_core.postgres.retention_store import PostgresRetentionStore
from memoro_core.postgres.unit_store import PostgresUnitStore
from memoro_core.settings import Settings
from tests.support.jobs import until
from tests.support.limiters import Caller, open_limiter, per_second


@pytest_asyncio.fixture
async def store(settings: Settings) -> AsyncIterator[PostgresUnitStore]:
    async with open_database(settings) as database:
        yield PostgresUnitStore(database)


@pytest_asyncio.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    async with open_database(settings) as opened:
        yield opened


class Noon:
    """A clock that stands where a test puts it."""

    def __init__(self) -> None:
        self.at = datetime(2031, 5, 6, 12, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at


async def test_a_days_units_are_exact_over_servers_and_come_anew_with_the_day(settings: Settings) -> None:
    caller, clock = Caller(Limits(daily_units=100, requests=per_second(10_000, 1000))), Noon()
    async with open_limiter(settings, clock=clock) as one, open_limiter(settings, clock=clock) as two:
        verdicts = await asyncio.gather(
            *(limiter.decide(caller.ask(3, MethodClass.WRITE)) for _ in range(20) for limiter in (one, two))
        )
        assert sum(verdict.allowed for verdict in verdicts) == 33
        refused = await one.decide(caller.ask(3))
        assert (refused.refused_by, refused.maximum, refused.retry_after) == ("daily_units", 100, None)
        assert refused.reset == 12 * 3600
        assert one.decide_now(caller.ask(3)) is not None
        clock.at += timedelta(hours=12)
        await asyncio.sleep(1.1)
        assert (await one.decide(caller.ask(3))).allowed


async def test_units_outlive_redis_and_the_servers(settings: Settings, redis: Redis, store: PostgresUnitStore) -> None:
    caller, clock = Caller(Limits(daily_units=1000)), Noon()
    async with open_limiter(settings, clock=clock) as limiter:
        for _ in range(40):
            assert (await limiter.decide(caller.ask(20))).allowed
    assert await store.add({(caller.tenant_id, date(2031, 5, 6)): 0}) == {(caller.tenant_id, date(2031, 5, 6)): 800}
    await redis.flushall()
    async with open_limiter(settings, clock=clock) as limiter:
        assert [(await limiter.decide(caller.ask(20))).allowed for _ in range(12)] == [True] * 10 + [False] * 2
        # What is not in the database yet counts too.
        await redis.flushall()
        await asyncio.sleep(1.1)
        assert not (await limiter.decide(caller.ask(20))).allowed


async def test_a_change_of_limits_counts_no_unit_twice_and_loses_none(
    settings: Settings, store: PostgresUnitStore
) -> None:
    caller, clock, day = Caller(Limits(daily_units=1000)), Noon(), date(2031, 5, 6)
    changed = caller.under(Limits(daily_units=500), version="2")
    async with open_limiter(settings, clock=clock) as limiter:
        for asks in ((caller.ask(7), caller.ask(20, MethodClass.WRITE)), (changed.ask(3),)):
            for ask in asks:
                assert (await limiter.decide(ask)).allowed
    # The writes of before have no call after them.
    assert await store.add({(caller.tenant_id, day): 0}) == {(caller.tenant_id, day): 30}


async def test_leases_give_their_units_back(settings: Settings, store: PostgresUnitStore, redis: Redis) -> None:
    caller, clock = Caller(Limits(daily_units=10_000, requests=per_second(2000, 2000))), Noon()
    day = date(2031, 5, 6)
    async with open_limiter(settings, clock=clock) as limiter:
        for _ in range(200):
            ask = caller.ask(5)
            assert (limiter.decide_now(ask) or await limiter.decide(ask)).allowed
            await asyncio.sleep(0.002)
        assert limiter.counts.leased > 100

        async def all_back() -> bool:
            known = await redis.get(f"memoro:{{{caller.tenant_id}}}:units:{day}")
            saved = await store.add({(caller.tenant_id, day): 0})
            return int(known or 0) == 1000 and saved == {(caller.tenant_id, day): 1000}

        await until(all_back, seconds=8)


async def test_without_redis_units_come_from_the_database(settings: Settings, store: PostgresUnitStore) -> None:
    caller, clock, day = Caller(Limits(daily_units=500)), Noon(), date(2031, 5, 6)
    await store.add({(caller.tenant_id, day): 440})
    away = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    async with open_limiter(away, clock=clock) as one, open_limiter(away, clock=clock) as two:
        verdicts = await asyncio.gather(*(limiter.decide(caller.ask(2)) for _ in range(40) for limiter in (one, two)))
        assert sum(verdict.allowed for verdict in verdicts) == 30
        assert {verdict.refused_by for verdict in verdicts if not verdict.allowed} == {"daily_units"}
    assert await store.add({(caller.tenant_id, day): 0}) == {(caller.tenant_id, day): 500}


async def test_what_was_taken_ahead_from_the_database_returns(settings: Settings, store: PostgresUnitStore) -> None:
    caller, clock, day = Caller(Limits(daily_units=5000)), Noon(), date(2031, 5, 6)
    away = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    async with open_limiter(away, clock=clock) as limiter:
        assert (await limiter.decide(caller.ask(7))).allowed
        [total] = (await store.add({(caller.tenant_id, day): 0})).values()
        assert total > 7
    assert await store.add({(caller.tenant_id, day): 0}) == {(caller.tenant_id, day): 7}


async def test_neither_redis_nor_the_database_lets_a_call_fail(settings: Settings, database: Database) -> None:
    caller = Caller(Limits(daily_units=50))
    away = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    async with open_limiter(away) as limiter:
        for task in list(limiter._units._loading.values()):
            await task

        class Gone:
            async def add(self, units: object) -> object:
                raise unavailable("database")

            async def take(self, *_: object, **__: object) -> object:
                raise unavailable("database")

        stores = limiter._units._store, Gone()
        limiter._units._store = stores[1]  # type: ignore[assignment]
        try:
            allowed = [(await limiter.decide(caller.ask())).allowed for _ in range(60)]
        finally:
            limiter._units._store = stores[0]
    assert allowed == [True] * 50 + [False] * 10


async def test_old_days_are_forgotten(database: Database, store: PostgresUnitStore) -> None:
    tenant = TenantId(uuid4())
    days = {(tenant, date(2001, 1, day)): 5 for day in (1, 2, 3)}
    await store.add(days)
    forgotten = await PostgresRetentionStore(database).forget_unit_days(before=date(2001, 1, 3))
    assert forgotten >= 2
    totals = await store.add(dict.fromkeys(days, 0))
    assert totals == {**dict.fromkeys(days, 0), (tenant, date(2001, 1, 3)): 5}


@pytest.mark.parametrize(("units", "minimum", "taken", "total"), [(30, 5, 30, 90), (60, 5, 40, 100), (60, 41, 0, 60)])
async def test_units_are_taken_as_far_as_there_are_any(
    store: PostgresUnitStore, units: int, minimum: int, taken: int, total: int
) -> None:
    tenant, day = TenantId(uuid4()), date(2031, 5, 6)
    await store.add({(tenant, day): 60})
    assert await store.take(tenant, day, units, minimum=minimum, maximum=100) == (taken, total)
    assert await store.add({(tenant, day): -1000}) == {(tenant, day): 0}
