"""The one place that knows which adapter meets which port."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from memoro_core.clock import Clock, SystemClock
from memoro_core.graph.service import GraphService
from memoro_core.idempotency import RequestStore
from memoro_core.jobs.hinter import BackgroundHinter
from memoro_core.jobs.model import JobKind
from memoro_core.jobs.ports import EventTail, HintQueue, JobStore
from memoro_core.jobs.retry import RetryPolicy
from memoro_core.jobs.runner import JobRunner, RunPolicy
from memoro_core.jobs.service import JobsService
from memoro_core.jobs.tenant_watch import TenantWatcher
from memoro_core.jobs.watch import JobWatcher
from memoro_core.llm.factory import Providers, open_providers
from memoro_core.memory.enrichment import EnrichmentHandler
from memoro_core.memory.priority import PriorityRule
from memoro_core.memory.search import SearchService
from memoro_core.memory.service import MemoryService
from memoro_core.memory.words import WordVectors
from memoro_core.outbound.sender import open_sender
from memoro_core.postgres.database import Database, open_database
from memoro_core.postgres.embedding_model import check_embedding_model
from memoro_core.postgres.enrichment_store import PostgresEnrichmentStore
from memoro_core.postgres.feed_store import PostgresFeedStore
from memoro_core.postgres.graph_store import PostgresGraphStore
from memoro_core.postgres.idempotency_store import PostgresRequestStore
from memoro_core.postgres.job_store import PostgresJobStore
from memoro_core.postgres.memory_store import PostgresMemoryStore
from memoro_core.postgres.search_store import PostgresSearchStore
from memoro_core.postgres.service_check import check_service_role
from memoro_core.postgres.tenancy_store import PostgresTenancyStore
from memoro_core.postgres.webhook_store import PostgresWebhookStore
from memoro_core.queue.hints import RedisHintQueue
from memoro_core.redis.client import RedisClient, open_redis
from memoro_core.redis.events import RedisEventTail
from memoro_core.settings import Settings
from memoro_core.tenancy.authentication import Authenticator
from memoro_core.tenancy.service import TenancyService
from memoro_core.webhooks.backoff import DeliveryPolicy
from memoro_core.webhooks.delivery import WebhookDeliverer
from memoro_core.webhooks.secrets import SecretSeal
from memoro_core.webhooks.service import WebhooksService


@dataclass(frozen=True, slots=True)
class Container:
    """Everything that a server or a worker is made of, open and ready."""

    settings: Settings
    clock: Clock
    database: Database
    beats: Database
    """One connection that requests can't use up: for heartbeats and signs of life."""
    redis: RedisClient
    memories: MemoryService
    search: SearchService
    graph: GraphService
    jobs: JobsService
    watcher: JobWatcher
    tenant_watcher: TenantWatcher
    tenancy: TenancyService
    authenticator: Authenticator
    job_store: JobStore
    requests: RequestStore
    job_runner: JobRunner
    hints: HintQueue
    event_tail: EventTail
    webhooks: WebhooksService
    webhook_deliverer: WebhookDeliverer


@asynccontextmanager
async def open_container(settings: Settings, *, preload_extraction: bool = False) -> AsyncIterator[Container]:
    """Opens what the settings say, checks that it may be used, and closes it at the end.

    With `preload_extraction` a local extraction model is loaded in the background, not when it is first used.

    Raises UNAVAILABLE when PostgreSQL is away, FAILED_PRECONDITION for a role that is too powerful or an embedding
    model other than that of the stored vectors, MissingProviderError for a provider that is not installed. Redis may be
    away.
    """
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(settings))
        await check_service_role(database)
        providers = await stack.enter_async_context(open_providers(settings, preload_extraction=preload_extraction))
        await check_embedding_model(database, providers.embedding.model)
        redis = await stack.enter_async_context(open_redis(settings))
        tail = await stack.enter_async_context(RedisEventTail(redis))
        # Leases are kept over a connection of their own, so that work which waits for one can't cost its own lease.
        beats = await stack.enter_async_context(open_database(settings.model_copy(update={"database_pool_size": 1})))
        job_store = PostgresJobStore(database, beats=beats)
        hints = RedisHintQueue(redis)
        tenancy_store = PostgresTenancyStore(database)
        authenticator = Authenticator(tenancy_store, clock, ttl=settings.auth_cache_ttl)
        runner = await stack.enter_async_context(_runner(settings, database, providers, job_store, tail, clock))
        hinter = BackgroundHinter(hints, authenticator.tier_of)
        stack.push_async_callback(hinter.close)
        memories = MemoryService(
            PostgresMemoryStore(database),
            job_store,
            hinter,
            runner,
            clock,
            priorities=PriorityRule(),
            max_attempts=settings.job_max_attempts,
        )
        stack.push_async_callback(memories.close)
        webhook_store = PostgresWebhookStore(database)
        seal = SecretSeal(settings.secret_key.get_secret_value() if settings.secret_key else None)
        sender = await stack.enter_async_context(open_sender(allow_private=settings.webhook_allow_private))
        yield Container(
            settings=settings,
            clock=clock,
            database=database,
            beats=beats,
            redis=redis,
            memories=memories,
            search=SearchService(
                PostgresSearchStore(database, exact_limit=settings.exact_search_limit),
                providers.embedding,
                WordVectors(providers.words) if providers.words else None,
            ),
            graph=GraphService(PostgresGraphStore(database), clock),
            jobs=JobsService(job_store, tail, clock),
            watcher=await stack.enter_async_context(JobWatcher(job_store, tail, heartbeat=settings.watch_heartbeat)),
            tenant_watcher=await stack.enter_async_context(
                TenantWatcher(PostgresFeedStore(database), tail, heartbeat=settings.watch_heartbeat)
            ),
            tenancy=TenancyService(tenancy_store, clock),
            authenticator=authenticator,
            job_store=job_store,
            requests=PostgresRequestStore(database),
            job_runner=runner,
            hints=hints,
            event_tail=tail,
            webhooks=WebhooksService(webhook_store, seal, clock, allow_private=settings.webhook_allow_private),
            webhook_deliverer=WebhookDeliverer(
                webhook_store,
                sender,
                seal,
                clock,
                DeliveryPolicy(),
                interval=settings.webhook_interval,
                retention=timedelta(seconds=settings.webhook_retention),
            ),
        )


def _runner(
    settings: Settings, database: Database, providers: Providers, store: JobStore, tail: EventTail, clock: Clock
) -> JobRunner:
    enrich = EnrichmentHandler(
        PostgresEnrichmentStore(database),
        providers.embedding,
        None if settings.extraction_provider == "none" else providers.extraction,
        clock,
    )
    policy = RunPolicy(
        lease=settings.job_lease,
        heartbeat=settings.job_heartbeat,
        timeout=settings.job_timeout,
        retry=RetryPolicy(settings.job_retry_base, settings.job_retry_max),
    )
    worker_id = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    return JobRunner(store, tail, {JobKind.MEMORY_ENRICH: enrich}, clock, policy, worker_id=worker_id)
