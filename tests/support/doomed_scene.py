"""Workers that are killed while a provider, who sends bills, is at work for them; and callers of some tenants."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random

from memoro_core.billing.model import Cause, Grant
from memoro_core.container import Container, open_container
from memoro_core.ids import GrantId, TenantId, UserId, new_id
from memoro_core.memory.model import NewMemory
from memoro_core.postgres.credit_store import PostgresCreditStore
from memoro_core.postgres.leader import SCHEDULER_LOCK
from memoro_core.postgres.tenancy_store import PostgresTenancyStore
from memoro_core.settings import Settings
from tests.fakes.openai_server import FakeOpenAI
from tests.support.chaos import Owner
from tests.support.domain import make_tenant
from tests.support.doomed_workers import DoomedWorkers, open_doomed_workers
from tests.support.jobs import until
from tests.support.stacks import temporary_data_dir, temporary_stack

MARGIN = 5_000
CREDITS = 10**12
"""What each tenant has."""
EMBEDDING, EXTRACTION = "text-embedding-3-small", "gpt-4o-mini"


@dataclass
class Scene:
    """A deployment whose provider sends bills, and what there is to kill."""

    settings: Settings
    container: Container
    provider: FakeOpenAI
    workers: DoomedWorkers
    owner: Owner
    tenants: Sequence[TenantId]
    random: Random
    accepted: int = 0

    async def accept(self, tenant_id: TenantId, user_id: str, text: str) -> None:
        """One more job."""
        self.accepted += 1
        await self.container.memories.create(tenant_id, NewMemory(UserId(user_id), text))

    async def start(self, doomed: int) -> None:
        """Begins so many workers that are to be killed, and one that lives.

        That one schedules, since only who sees a lease out for a while takes the job away.
        """
        await self.workers.start(MEMORO_WORKER_CONCURRENCY="1")
        await until(self._led)
        for _ in range(doomed):
            await self.workers.start_doomed()

    async def under_way(self) -> int:
        """How many jobs have not ended."""
        count: int = await self.owner.fetchval("SELECT count(*) FROM jobs WHERE ended_at IS NULL")
        return count

    async def _led(self) -> bool:
        held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND objid = $1"
        return bool(await self.owner.fetchval(held, SCHEDULER_LOCK))


@asynccontextmanager
async def open_scene(lots: Random, *, kills: int, tenants: int = 1) -> AsyncIterator[Scene]:
    """Such a deployment, without workers yet; each tenant has credits in plenty."""
    async with AsyncExitStack() as opened:
        stack = await opened.enter_async_context(temporary_stack(durable=False))
        log = opened.enter_context(temporary_data_dir()) / "workers.log"
        provider = await opened.enter_async_context(FakeOpenAI(dimensions=64))
        provider.any_key = True
        settings = Settings.model_validate(
            {
                "database_url": stack.database_url,
                "redis_url": stack.redis_url,
                "worker_ops_port": 0,
                "worker_concurrency": 6,
                "job_lease": 0.9,
                "job_heartbeat": 0.3,
                "job_max_attempts": 100,
                "job_retry_base": 0.05,
                "job_retry_max": 0.2,
                "hint_timeout": 1.0,
                "scheduler_interval": 0.1,
                "embedding_provider": "openai",
                "extraction_provider": "openai",
                "openai_api_key": "nobody",
                "openai_base_url": provider.base_url,
                "openai_embedding_model": EMBEDDING,
                "openai_embedding_dimensions": 64,
                "openai_extraction_model": EXTRACTION,
                "openai_timeout": 5.0,
                "margin_basis_points": MARGIN,
            }
        )
        container = await opened.enter_async_context(open_container(settings))
        workers = await opened.enter_async_context(open_doomed_workers(settings, log, kills=kills, lots=lots))
        owner = Owner(stack.owner_url)
        opened.push_async_callback(owner.close)
        made = [await make_tenant(PostgresTenancyStore(container.database)) for _ in range(tenants)]
        credits, now = PostgresCreditStore(container.database), datetime.now(UTC)
        for tenant in made:
            grant = Grant(GrantId(new_id()), CREDITS, CREDITS, 0, None, "", now)
            await credits.add_credits(tenant, grant, Cause(), None, now=now)
        yield Scene(settings, container, provider, workers, owner, made, lots)
