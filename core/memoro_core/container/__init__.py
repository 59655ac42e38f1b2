"""The one place that knows which adapter meets which port."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from memoro_core.alerts.delivery import AlertDeliverer
from memoro_core.alerts.queue_monitor import QueueMonitor
from memoro_core.alerts.service import AlertService
from memoro_core.audit.service import AuditService
from memoro_core.billing.breaker_service import BreakerService
from memoro_core.billing.pricing import PricingService
from memoro_core.billing.service import BillingService
from memoro_core.billing.usage import UsageService
from memoro_core.clock import Clock
from memoro_core.container.billing import Billing, open_billing
from memoro_core.container.callers import open_authenticator
from memoro_core.container.diagnosis import open_diagnosis
from memoro_core.container.ground import Ground, open_ground
from memoro_core.container.jobs import JobEngine, MakeHandlers, open_job_engine, open_lease_store
from memoro_core.container.limits import open_limits
from memoro_core.container.notices import open_notices
from memoro_core.diagnosis.service import DiagnosisService
from memoro_core.graph.service import GraphService
from memoro_core.jobs.deferral_ports import DeferralStore
from memoro_core.jobs.hinter import BackgroundHinter
from memoro_core.jobs.operations import OperationsService
from memoro_core.jobs.ports import EventTail, HintQueue, JobStore
from memoro_core.jobs.recurring import Recurring
from memoro_core.jobs.run_ports import RunStore
from memoro_core.jobs.runner import JobRunner
from memoro_core.jobs.scheduler import Scheduler
from memoro_core.jobs.scheduling_ports import SchedulingStore
from memoro_core.jobs.service import JobsService
from memoro_core.jobs.tenant_watch import TenantWatcher
from memoro_core.jobs.watch import JobWatcher
from memoro_core.limits.ports import Limiter, OpenStreams
from memoro_core.memory.priority import PriorityRule
from memoro_core.memory.search import SearchService
from memoro_core.memory.service import MemoryService
from memoro_core.memory.words import WordVectors
from memoro_core.postgres.audit_store import PostgresAuditStore
from memoro_core.postgres.credit_holds import CreditHolds
from memoro_core.postgres.database import Database
from memoro_core.postgres.graph_store import PostgresGraphStore
from memoro_core.postgres.memory_store import PostgresMemoryStore
from memoro_core.postgres.policy_changes import PolicyChanges
from memoro_core.postgres.search_store import PostgresSearchStore
from memoro_core.postgres.tenancy_store import PostgresTenancyStore
from memoro_core.postgres.tier_store import PostgresTierStore
from memoro_core.redis.client import RedisClient
from memoro_core.settings import Settings
from memoro_core.tenancy.authentication import Authenticator
from memoro_core.tenancy.service import TenancyService
from memoro_core.tenancy.tiers import TierService
from memoro_core.webhooks.delivery import WebhookDeliverer
from memoro_core.webhooks.service import WebhooksService

__all__ = ["Container", "MakeHandlers", "open_container", "open_lease_store"]


@dataclass(frozen=True, slots=True)
class Container:
    """Everything that a server or a worker is made of, open and ready."""

    settings: Settings
    clock: Clock
    database: Database
    pings: Database
    """One connection that requests can't use up: for signs of life."""
    redis: RedisClient
    event_tail: EventTail
    tenancy: TenancyService
    tiers: TierService
    authenticator: Authenticator
    policy_changes: PolicyChanges
    """To be run by what authenticates callers."""

    memories: MemoryService
    search: SearchService
    graph: GraphService

    jobs: JobsService
    operations: OperationsService
    watcher: JobWatcher
    tenant_watcher: TenantWatcher
    job_store: JobStore
    run_store: RunStore
    deferrals: DeferralStore
    waiting: SchedulingStore
    hints: HintQueue
    job_runner: JobRunner
    scheduler: Scheduler
    recurring: Recurring

    billing: BillingService
    pricing: PricingService
    breakers: BreakerService
    usage: UsageService
    credit_holds: CreditHolds

    webhooks: WebhooksService
    webhook_deliverer: WebhookDeliverer
    alerts: AlertService
    alert_deliverer: AlertDeliverer
    queue_monitor: QueueMonitor

    diagnosis: DiagnosisService
    audit: AuditService

    limiter: Limiter
    open_streams: OpenStreams


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
    async with AsyncExitStack() as stack:
        ground = await open_ground(settings, stack, takes_jobs=takes_jobs)
        billing = await open_billing(ground, stack)
        engine = await open_job_engine(ground, billing, stack, takes_jobs=takes_jobs, handlers=handlers)
        tenants = PostgresTenancyStore(ground.database)
        authenticator = await open_authenticator(ground, tenants, stack, takes_calls=not takes_jobs)
        notices = await open_notices(ground, billing, stack)
        limiting = await open_limits(ground, stack, serves=not takes_jobs)
        audit = AuditService(PostgresAuditStore(ground.database), ground.clock)
        stack.push_async_callback(audit.close)
        yield Container(
            settings=settings,
            clock=ground.clock,
            database=ground.database,
            pings=ground.pings,
            redis=ground.redis,
            event_tail=ground.tail,
            tenancy=TenancyService(tenants, ground.clock),
            tiers=TierService(PostgresTierStore(ground.database), ground.clock),
            authenticator=authenticator,
            audit=audit,
            policy_changes=PolicyChanges(settings, authenticator),
            memories=_memories(ground, billing, engine, authenticator, stack),
            search=_search(ground, billing),
            graph=GraphService(PostgresGraphStore(ground.database), ground.clock),
            jobs=engine.service,
            operations=engine.operations,
            watcher=engine.watcher,
            tenant_watcher=engine.tenant_watcher,
            job_store=engine.store,
            run_store=engine.runs,
            deferrals=engine.deferrals,
            waiting=engine.waiting,
            hints=engine.hints,
            job_runner=engine.runner,
            scheduler=engine.scheduler,
            recurring=engine.recurring,
            billing=billing.accounts,
            pricing=billing.pricing,
            breakers=billing.breakers,
            usage=billing.usage,
            credit_holds=billing.holds,
            webhooks=notices.webhooks,
            webhook_deliverer=notices.webhook_deliverer,
            alerts=notices.alerts,
            alert_deliverer=notices.alert_deliverer,
            queue_monitor=notices.queue_monitor,
            diagnosis=open_diagnosis(ground),
            limiter=limiting.limiter,
            open_streams=limiting.open_streams,
        )


def _memories(
    ground: Ground, billing: Billing, engine: JobEngine, authenticator: Authenticator, stack: AsyncExitStack
) -> MemoryService:
    settings = ground.settings
    hinter = BackgroundHinter(engine.hints, authenticator.tier_of)
    stack.push_async_callback(hinter.close)
    memories = MemoryService(
        PostgresMemoryStore(ground.database, billing.holds),
        engine.store,
        hinter,
        engine.runner,
        ground.clock,
        billing.bounds,
        priorities=PriorityRule(settings.long_conversation, settings.short_text),
        max_attempts=settings.job_max_attempts,
    )
    stack.push_async_callback(memories.close)
    return memories


def _search(ground: Ground, billing: Billing) -> SearchService:
    providers = ground.providers
    return SearchService(
        PostgresSearchStore(ground.database, exact_limit=ground.settings.exact_search_limit),
        providers.embedding,
        WordVectors(providers.words) if providers.words else None,
        meter=billing.questions,
    )
