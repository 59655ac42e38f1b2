"""The one place that knows which adapter meets which port."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version

from memoro_core.alerts.delivery import AlertDeliverer
from memoro_core.alerts.queue_monitor import QueueMonitor
from memoro_core.alerts.retry import AlertPolicy
from memoro_core.alerts.service import AlertService
from memoro_core.billing.bounds import CostBounds
from memoro_core.billing.breaker_service import BreakerService
from memoro_core.billing.calendar import Calendar
from memoro_core.billing.guard import CostGuard
from memoro_core.billing.prices import PriceBook
from memoro_core.billing.pricing import PricingService
from memoro_core.billing.service import BillingService
from memoro_core.billing.usage import UsageService
from memoro_core.clock import Clock, SystemClock
from memoro_core.graph.service import GraphService
from memoro_core.jobs.cron import Cron, time_zone_of
from memoro_core.jobs.deferral_ports import DeferralStore
from memoro_core.jobs.heart import Heart, LeaseStore, WorkerIdentity
from memoro_core.jobs.hinter import BackgroundHinter
from memoro_core.jobs.model import JobKind
from memoro_core.jobs.operations import OperationsService
from memoro_core.jobs.ports import EventTail, HintQueue, JobStore
from memoro_core.jobs.recurring import Recurring, Schedule
from memoro_core.jobs.releasing import Releaser
from memoro_core.jobs.retention import Retention, RetentionPolicy
from memoro_core.jobs.retry import RetryPolicy
from memoro_core.jobs.run_ports import JobHandler, RunStore
from memoro_core.jobs.runner import JobRunner, RunPolicy
from memoro_core.jobs.scheduler import Scheduler
from memoro_core.jobs.scheduling_ports import SchedulingStore
from memoro_core.jobs.service import JobsService
from memoro_core.jobs.tenant_watch import TenantWatcher
from memoro_core.jobs.watch import JobWatcher
from memoro_core.llm.factory import open_providers
from memoro_core.llm.ports import EmbeddingProvider, ExtractionProvider
from memoro_core.memory.enrichment import EnrichmentHandler
from memoro_core.memory.priority import PriorityRule
from memoro_core.memory.search import SearchService
from memoro_core.memory.service import MemoryService
from memoro_core.memory.words import WordVectors
from memoro_core.outbound.alert_router import open_alert_router
from memoro_core.outbound.sender import open_sender
from memoro_core.postgres.alert_store import PostgresAlertStore
from memoro_core.postgres.answer_store import PostgresAnswerStore
from memoro_core.postgres.budget_store import PostgresBudgetStore
from memoro_core.postgres.call_store import PostgresCallStore
from memoro_core.postgres.credit_holds import CreditHolds
from memoro_core.postgres.credit_store import PostgresCreditStore
from memoro_core.postgres.database import Database, open_database
from memoro_core.postgres.deferral_store import PostgresDeferralStore
from memoro_core.postgres.embedding_model import check_embedding_model
from memoro_core.postgres.enrichment_store import PostgresEnrichmentStore
from memoro_core.postgres.feed_store import PostgresFeedStore
from memoro_core.postgres.graph_store import PostgresGraphStore
from memoro_core.postgres.idempotency_store import PostgresRequestStore
from memoro_core.postgres.job_store import PostgresJobStore
from memoro_core.postgres.lease_store import PostgresLeaseStore
from memoro_core.postgres.memory_store import PostgresMemoryStore
from memoro_core.postgres.price_store import PostgresPriceStore
from memoro_core.postgres.queue_store import PostgresQueueStore
from memoro_core.postgres.retention_store import PostgresRetentionStore
from memoro_core.postgres.retry_store import PostgresRetryStore
from memoro_core.postgres.run_store import PostgresRunStore
from memoro_core.postgres.schedule_store import PostgresScheduleStore
from memoro_core.postgres.scheduling_store import PostgresSchedulingStore
from memoro_core.postgres.search_store import PostgresSearchStore
from memoro_core.postgres.service_check import check_service_role
from memoro_core.postgres.tenancy_store import PostgresTenancyStore
from memoro_core.postgres.usage_store import PostgresUsageStore
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

MakeHandlers = Callable[[RunStore], Mapping[JobKind, JobHandler]]


@dataclass(frozen=True, slots=True)
class Container:
    """Everything that a server or a worker is made of, open and ready."""

    settings: Settings
    clock: Clock
    database: Database
    pings: Database
    """One connection that requests can't use up: for signs of life."""
    redis: RedisClient
    memories: MemoryService
    pricing: PricingService
    search: SearchService
    graph: GraphService
    jobs: JobsService
    operations: OperationsService
    breakers: BreakerService
    usage: UsageService
    watcher: JobWatcher
    tenant_watcher: TenantWatcher
    tenancy: TenancyService
    authenticator: Authenticator
    job_store: JobStore
    run_store: RunStore
    deferrals: DeferralStore
    job_runner: JobRunner
    scheduler: Scheduler
    waiting: SchedulingStore
    hints: HintQueue
    event_tail: EventTail
    recurring: Recurring
    billing: BillingService
    credit_holds: CreditHolds
    webhooks: WebhooksService
    webhook_deliverer: WebhookDeliverer
    alerts: AlertService
    alert_deliverer: AlertDeliverer
    queue_monitor: QueueMonitor


@asynccontextmanager
async def open_container(
    settings: Settings, *, takes_jobs: bool = False, handlers: MakeHandlers | None = None
) -> AsyncIterator[Container]:
    """Opens what the settings say, checks that it may be used, and closes it at the end.

    A process that takes jobs is on the list of workers, and loads a local extraction model in the background, not when
    it is first used. `handlers` are for another way to do the work.

    Raises UNAVAILABLE when PostgreSQL is away, FAILED_PRECONDITION for a role that is too powerful or an embedding
    model other than that of the stored vectors, MissingProviderError for a provider that is not installed. Redis may be
    away.
    """
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(settings))
        await check_service_role(database)
        providers = await stack.enter_async_context(open_providers(settings, preload_extraction=takes_jobs))
        extractor = None if settings.extraction_provider == "none" else providers.extraction
        await check_embedding_model(database, providers.embedding.model)
        redis = await stack.enter_async_context(open_redis(settings))
        tail = await stack.enter_async_context(RedisEventTail(redis))
        pings = await stack.enter_async_context(open_database(settings.model_copy(update={"database_pool_size": 1})))
        calendar = Calendar(time_zone_of(settings.time_zone))
        margin = settings.margin_basis_points
        holds = CreditHolds(calendar, margin_basis_points=margin)
        price_store = PostgresPriceStore(database)
        prices = await stack.enter_async_context(PriceBook(price_store, clock, refresh=settings.price_refresh))
        bounds = CostBounds(prices, providers.embedding, extractor, margin_basis_points=margin)
        calls = PostgresCallStore(database, holds, margin_basis_points=margin)
        job_store, run_store = PostgresJobStore(database, holds), PostgresRunStore(database, holds)
        waiting = PostgresSchedulingStore(database)
        retry = RetryPolicy(settings.job_retry_base, settings.job_retry_max)
        hints = RedisHintQueue(redis)
        retries = PostgresRetryStore(database, holds, bounds)
        breakers = BreakerService(PostgresBudgetStore(database), calendar, clock)
        deferrals = PostgresDeferralStore(database, holds, calendar)
        releaser = Releaser(deferrals, breakers, tail, clock)
        tenancy_store = PostgresTenancyStore(database)
        authenticator = Authenticator(tenancy_store, clock, ttl=settings.auth_cache_ttl)
        worker = _this_worker(settings, clock)
        heart = await stack.enter_async_context(
            Heart(
                lambda: open_lease_store(settings),
                clock,
                lease=settings.job_lease,
                interval=settings.job_heartbeat,
                worker=worker if takes_jobs else None,
            )
        )
        make_handlers = handlers or (lambda _: _handlers(database, holds, providers.embedding, extractor, clock))
        runner = await stack.enter_async_context(
            JobRunner(
                job_store,
                run_store,
                tail,
                heart,
                make_handlers(run_store),
                CostGuard(calls, prices, calendar, clock),
                clock,
                RunPolicy(settings.job_lease, settings.job_timeout, retry, settings.job_timeouts),
                worker_id=worker.id,
            )
        )
        hinter = BackgroundHinter(hints, authenticator.tier_of)
        stack.push_async_callback(hinter.close)
        memories = MemoryService(
            PostgresMemoryStore(database, holds),
            job_store,
            hinter,
            runner,
            clock,
            bounds,
            priorities=PriorityRule(settings.long_conversation, settings.short_text),
            max_attempts=settings.job_max_attempts,
        )
        stack.push_async_callback(memories.close)
        credit_store = PostgresCreditStore(database)
        billing = BillingService(credit_store, clock)
        recurring = _recurring(settings, database, billing, clock)
        stack.push_async_callback(recurring.close)
        webhook_store = PostgresWebhookStore(database)
        seal = SecretSeal(settings.secret_key.get_secret_value() if settings.secret_key else None)
        sender = await stack.enter_async_context(open_sender(allow_private=settings.webhook_allow_private))
        alert_store, queue_store = PostgresAlertStore(database), PostgresQueueStore(database, holds)
        answers = PostgresAnswerStore(database)
        alert_router = await stack.enter_async_context(open_alert_router(settings))
        pricing = PricingService(price_store, prices, bounds, credit_store, clock)
        yield Container(
            settings=settings,
            clock=clock,
            database=database,
            pings=pings,
            redis=redis,
            memories=memories,
            pricing=pricing,
            search=SearchService(
                PostgresSearchStore(database, exact_limit=settings.exact_search_limit),
                providers.embedding,
                WordVectors(providers.words) if providers.words else None,
            ),
            graph=GraphService(PostgresGraphStore(database), clock),
            jobs=JobsService(job_store, retries, tail, clock, max_attempts=settings.job_max_attempts),
            operations=OperationsService(
                queue_store,
                retries,
                releaser,
                answers,
                tail,
                clock,
                max_attempts=settings.job_max_attempts,
                time_zone=time_zone_of(settings.time_zone),
            ),
            breakers=breakers,
            usage=UsageService(PostgresUsageStore(database), breakers, calendar, clock),
            watcher=await stack.enter_async_context(JobWatcher(job_store, tail, heartbeat=settings.watch_heartbeat)),
            tenant_watcher=await stack.enter_async_context(
                TenantWatcher(PostgresFeedStore(database), tail, heartbeat=settings.watch_heartbeat)
            ),
            tenancy=TenancyService(tenancy_store, clock),
            authenticator=authenticator,
            job_store=job_store,
            run_store=run_store,
            deferrals=deferrals,
            job_runner=runner,
            scheduler=Scheduler(
                run_store, releaser, waiting, hints, tail, clock, retry, hint_timeout=settings.hint_timeout
            ),
            waiting=waiting,
            hints=hints,
            event_tail=tail,
            recurring=recurring,
            billing=billing,
            credit_holds=holds,
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
            alerts=AlertService(alert_router, answers, clock),
            alert_deliverer=AlertDeliverer(
                alert_store,
                alert_router,
                clock,
                AlertPolicy(),
                interval=settings.alert_interval,
                retention=timedelta(seconds=settings.alert_retention),
            ),
            queue_monitor=QueueMonitor(
                queue_store,
                alert_store,
                clock,
                waiting=settings.alert_queue_waiting,
                failed=settings.alert_queue_failed,
                time_zone=time_zone_of(settings.time_zone),
            ),
        )


def _recurring(settings: Settings, database: Database, billing: BillingService, clock: Clock) -> Recurring:
    retention = Retention(
        PostgresRetentionStore(database),
        PostgresRequestStore(database),
        RetentionPolicy(timedelta(seconds=settings.kept_succeeded), timedelta(seconds=settings.kept_failed)),
    )
    zone = time_zone_of(settings.time_zone)
    schedules = [
        Schedule("retention", Cron(settings.retention_schedule, zone), retention.sweep),
        Schedule("credits.expire", Cron("* * * * *", zone), billing.expire),
    ]
    return Recurring(PostgresScheduleStore(database), schedules, clock)


def _handlers(
    database: Database,
    holds: CreditHolds,
    embedder: EmbeddingProvider,
    extractor: ExtractionProvider | None,
    clock: Clock,
) -> Mapping[JobKind, JobHandler]:
    enrich = EnrichmentHandler(
        PostgresEnrichmentStore(database, holds),
        embedder,
        extractor,
        clock,
    )
    return {JobKind.MEMORY_ENRICH: enrich}


def _this_worker(settings: Settings, clock: Clock) -> WorkerIdentity:
    host, process_id = socket.gethostname(), os.getpid()
    return WorkerIdentity(
        id=f"{host}:{process_id}:{secrets.token_hex(4)}",
        host=host,
        process_id=process_id,
        version=version("memoro-service"),
        concurrency=settings.worker_concurrency,
        started_at=clock.now(),
    )


@asynccontextmanager
async def open_lease_store(settings: Settings) -> AsyncIterator[LeaseStore]:
    async with open_database(settings.model_copy(update={"database_pool_size": 1})) as database:
        yield PostgresLeaseStore(database)
