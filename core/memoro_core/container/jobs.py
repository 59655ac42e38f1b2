"""The job engine: running, scheduling, operating and watching jobs, and what recurs."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version

from memoro_core.clock import Clock
from memoro_core.container.billing import Billing
from memoro_core.container.ground import Ground, open_single
from memoro_core.jobs.cron import Cron, time_zone_of
from memoro_core.jobs.deferral_ports import DeferralStore
from memoro_core.jobs.heart import Heart, LeaseStore, WorkerIdentity
from memoro_core.jobs.model import JobKind
from memoro_core.jobs.operations import OperationsService
from memoro_core.jobs.ports import HintQueue, JobStore
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
from memoro_core.memory.enrichment import EnrichmentHandler, RelationLimit
from memoro_core.memory.finding import GraphFinder
from memoro_core.memory.relating import RelatingHandler
from memoro_core.postgres.answer_store import PostgresAnswerStore
from memoro_core.postgres.audit_store import PostgresAuditStore
from memoro_core.postgres.deferral_store import PostgresDeferralStore
from memoro_core.postgres.enrichment_store import PostgresEnrichmentStore
from memoro_core.postgres.feed_store import PostgresFeedStore
from memoro_core.postgres.idempotency_store import PostgresRequestStore
from memoro_core.postgres.job_store import PostgresJobStore
from memoro_core.postgres.lease_store import PostgresLeaseStore
from memoro_core.postgres.queue_store import PostgresQueueStore
from memoro_core.postgres.relation_slots import PostgresRelationSlots
from memoro_core.postgres.retention_store import PostgresRetentionStore
from memoro_core.postgres.retry_store import PostgresRetryStore
from memoro_core.postgres.run_store import PostgresRunStore
from memoro_core.postgres.schedule_store import PostgresScheduleStore
from memoro_core.postgres.scheduling_store import PostgresSchedulingStore
from memoro_core.queue.hints import RedisHintQueue
from memoro_core.settings import Settings

MakeHandlers = Callable[[RunStore], Mapping[JobKind, JobHandler]]


@dataclass(frozen=True, slots=True)
class JobEngine:
    """What keeps and runs the jobs."""

    store: JobStore
    runs: RunStore
    deferrals: DeferralStore
    waiting: SchedulingStore
    hints: HintQueue
    runner: JobRunner
    scheduler: Scheduler
    recurring: Recurring
    service: JobsService
    operations: OperationsService
    watcher: JobWatcher
    tenant_watcher: TenantWatcher


async def open_job_engine(
    ground: Ground, billing: Billing, stack: AsyncExitStack, *, takes_jobs: bool, handlers: MakeHandlers | None
) -> JobEngine:
    """Puts the engine together; the stack stops it."""
    settings, database, clock, tail = ground.settings, ground.database, ground.clock, ground.tail
    store, runs = PostgresJobStore(database, billing.holds), PostgresRunStore(database, billing.holds)
    deferrals = PostgresDeferralStore(database, billing.holds, ground.calendar)
    retries = PostgresRetryStore(database, billing.holds, billing.bounds)
    waiting, hints = PostgresSchedulingStore(database), RedisHintQueue(ground.redis)
    releaser = Releaser(deferrals, billing.breakers, tail, clock)
    retry = RetryPolicy(settings.job_retry_base, settings.job_retry_max)
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
    runner = await stack.enter_async_context(
        JobRunner(
            store,
            runs,
            tail,
            heart,
            handlers(runs) if handlers else _handlers(ground, billing),
            billing.guard,
            clock,
            RunPolicy(settings.job_lease, settings.job_timeout, retry, settings.job_timeouts),
            worker_id=worker.id,
        )
    )
    recurring = _recurring(ground, billing)
    stack.push_async_callback(recurring.close)
    return JobEngine(
        store=store,
        runs=runs,
        deferrals=deferrals,
        waiting=waiting,
        hints=hints,
        runner=runner,
        scheduler=Scheduler(runs, releaser, waiting, hints, tail, clock, retry, hint_timeout=settings.hint_timeout),
        recurring=recurring,
        service=JobsService(store, retries, tail, clock, max_attempts=settings.job_max_attempts),
        operations=OperationsService(
            PostgresQueueStore(database, billing.holds),
            retries,
            releaser,
            PostgresAnswerStore(database),
            tail,
            clock,
            max_attempts=settings.job_max_attempts,
            time_zone=ground.calendar.time_zone,
        ),
        watcher=await stack.enter_async_context(JobWatcher(store, tail, heartbeat=settings.watch_heartbeat)),
        tenant_watcher=await stack.enter_async_context(
            TenantWatcher(PostgresFeedStore(database), tail, heartbeat=settings.watch_heartbeat)
        ),
    )


@asynccontextmanager
async def open_lease_store(settings: Settings) -> AsyncIterator[LeaseStore]:
    """What keeps leases, over a connection of its own."""
    async with open_single(settings) as database:
        yield PostgresLeaseStore(database)


def _handlers(ground: Ground, billing: Billing) -> Mapping[JobKind, JobHandler]:
    enrichments = PostgresEnrichmentStore(ground.database, billing.holds)
    finder = None if ground.extractor is None else GraphFinder(enrichments, ground.extractor)
    slots = PostgresRelationSlots(ground.database, billing.holds) if ground.settings.limits else None
    limit = RelationLimit(slots, billing.bounds, ground.clock) if slots else None
    return {
        JobKind.MEMORY_ENRICH: EnrichmentHandler(enrichments, ground.providers.embedding, finder, limit, ground.clock),
        JobKind.MEMORY_RELATE: RelatingHandler(enrichments, finder, slots, ground.clock),
    }


def _recurring(ground: Ground, billing: Billing) -> Recurring:
    settings, database = ground.settings, ground.database
    zone = time_zone_of(settings.time_zone)
    retention = Retention(
        PostgresRetentionStore(database),
        PostgresRequestStore(database),
        PostgresAuditStore(database),
        RetentionPolicy(
            timedelta(seconds=settings.kept_succeeded),
            timedelta(seconds=settings.kept_failed),
            timedelta(seconds=settings.audit_retention),
        ),
    )
    schedules = [
        Schedule("retention", Cron(settings.retention_schedule, zone), retention.sweep),
        Schedule("credits.expire", Cron("* * * * *", zone), billing.accounts.expire),
    ]
    return Recurring(PostgresScheduleStore(database), schedules, ground.clock)


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
