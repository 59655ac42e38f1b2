"""What everything else stands on: the settings, the clock, the database, Redis, and the model providers."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass

from memoro_core.billing.calendar import Calendar
from memoro_core.clock import Clock, SystemClock
from memoro_core.jobs.cron import time_zone_of
from memoro_core.llm.factory import Providers, open_providers
from memoro_core.llm.ports import ExtractionProvider
from memoro_core.postgres.database import Database, open_database
from memoro_core.postgres.embedding_model import check_embedding_model
from memoro_core.postgres.service_check import check_service_role
from memoro_core.redis.client import RedisClient, open_redis
from memoro_core.redis.events import RedisEventTail
from memoro_core.settings import Settings


@dataclass(frozen=True, slots=True)
class Ground:
    """Open and checked."""

    settings: Settings
    clock: Clock
    calendar: Calendar
    database: Database
    pings: Database
    """One connection that requests can't use up: for signs of life."""
    redis: RedisClient
    tail: RedisEventTail
    providers: Providers
    extractor: ExtractionProvider | None
    """None where the settings want no graph."""


async def open_ground(settings: Settings, stack: AsyncExitStack, *, takes_jobs: bool) -> Ground:
    """Opens what the settings say and checks that it may be used; the stack closes it. Raises as `open_container`."""
    database = await stack.enter_async_context(open_database(settings))
    await check_service_role(database)
    providers = await stack.enter_async_context(open_providers(settings, preload_extraction=takes_jobs))
    await check_embedding_model(database, providers.embedding.model)
    redis = await stack.enter_async_context(open_redis(settings))
    return Ground(
        settings=settings,
        clock=SystemClock(),
        calendar=Calendar(time_zone_of(settings.time_zone)),
        database=database,
        pings=await stack.enter_async_context(open_single(settings)),
        redis=redis,
        tail=await stack.enter_async_context(RedisEventTail(redis)),
        providers=providers,
        extractor=None if settings.extraction_provider == "none" else providers.extraction,
    )


def open_single(settings: Settings) -> AbstractAsyncContextManager[Database]:
    """The database over one connection."""
    return open_database(settings.model_copy(update={"database_pool_size": 1}))
