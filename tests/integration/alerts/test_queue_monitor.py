"""Operators are told of a queue that grows too long or fails too often: once a queue, condition and day."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest_asyncio

from memoro_core.alerts.queue_monitor import INTERVAL, QueueMonitor
from memoro_core.jobs.operation_model import QueueStatus
from memoro_core.jobs.operations import day_start
from memoro_core.redis.client import open_redis
from memoro_core.redis.events import RedisEventTail
from memoro_core.settings import Settings
from memoro_core.tenancy.model import ENTERPRISE_TIER
from tests.integration.alerts.conftest import Alerts
from tests.support.alerts import stored_alerts
from tests.support.operations import Operations, operations_of

ZONE = ZoneInfo("Pacific/Auckland")


@pytest_asyncio.fixture
async def operations(alerts: Alerts, settings: Settings) -> AsyncIterator[Operations]:
    async with open_redis(settings) as redis, RedisEventTail(redis) as tail:
        yield operations_of(alerts.domain, tail)


async def enterprise(alerts: Alerts, operations: Operations) -> QueueStatus:
    """The queue of the test's tenant, as it stands with what other tests have left."""
    now = alerts.clock.now()
    queues = await operations.queues.queues(now=now, day_start=day_start(now, ZONE))
    (queue,) = [one for one in queues if one.tier == ENTERPRISE_TIER]
    return queue


def monitor(alerts: Alerts, operations: Operations, queue: QueueStatus, *, more: int = 2) -> QueueMonitor:
    """Tells of so many more jobs than there are."""
    return QueueMonitor(
        operations.queues,
        alerts.store,
        alerts.clock,
        waiting=queue.waiting + more,
        failed=queue.failed_today + more,
        time_zone=ZONE,
    )


async def raised(alerts: Alerts) -> Sequence[str]:
    """The keys of the alerts about the test's queue."""
    rows = await stored_alerts(alerts.domain.database)
    return [row["dedupe_key"] for row in rows if row["details"]["queue"] == "enterprise"]


async def test_a_queue_that_is_as_long_as_it_may_be_is_no_news(alerts: Alerts, operations: Operations) -> None:
    before = await enterprise(alerts, operations)
    watching = monitor(alerts, operations, before)
    for _ in range(2):
        await operations.job()
    await watching.round()
    assert await raised(alerts) == []


async def test_a_queue_that_grows_too_long_is_told_once_a_day(alerts: Alerts, operations: Operations) -> None:
    before = await enterprise(alerts, operations)
    first, second = monitor(alerts, operations, before), monitor(alerts, operations, before)
    for _ in range(3):
        await operations.job()
    await asyncio.gather(first.round(), second.round())
    (row,) = [one for one in await stored_alerts(alerts.domain.database) if one["details"]["queue"] == "enterprise"]
    assert (row["kind"], row["severity"], row["tenant_id"].int) == ("queue.failing", "WARNING", 0)
    assert row["title"] == f"{before.waiting + 3} jobs wait in the queue enterprise."
    assert (row["details"]["waiting"], row["details"]["limit"]) == (before.waiting + 3, before.waiting + 2)
    today = alerts.clock.now().astimezone(ZONE).date()
    assert row["dedupe_key"] == f"queue/enterprise/waiting/{today}"

    alerts.clock.ahead = timedelta(days=1)
    await first.round()
    assert len(await raised(alerts)) == 2


async def test_a_queue_that_fails_too_often_is_told_of_too(alerts: Alerts, operations: Operations) -> None:
    watching = monitor(alerts, operations, await enterprise(alerts, operations))
    for _ in range(3):
        await operations.failed_job()
    await watching.round()
    (key,) = await raised(alerts)
    assert key.startswith("queue/enterprise/failed/")


async def test_it_looks_about_once_a_minute(alerts: Alerts, operations: Operations) -> None:
    watching = monitor(alerts, operations, await enterprise(alerts, operations), more=0)
    await watching.round()
    await operations.job()
    await watching.round()
    assert await raised(alerts) == []
    alerts.clock.ahead = INTERVAL
    await watching.round()
    assert len(await raised(alerts)) == 1
