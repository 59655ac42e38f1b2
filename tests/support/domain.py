"""The domain over a real database, for tests of one of its parts, with a tenant of the test's own."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from memoro_core.clock import SystemClock
from memoro_core.ids import TenantId
from memoro_core.jobs.model import Job, JobRef
from memoro_core.memory.priority import PriorityRule
from memoro_core.memory.service import MemoryService
from memoro_core.postgres.database import Database, open_database
from memoro_core.postgres.job_store import PostgresJobStore
from memoro_core.postgres.lease_store import PostgresLeaseStore
from memoro_core.postgres.memory_store import PostgresMemoryStore
from memoro_core.postgres.run_store import PostgresRunStore
from memoro_core.postgres.scheduling_store import PostgresSchedulingStore
from memoro_core.postgres.tenancy_store import PostgresTenancyStore
from memoro_core.settings import Settings
from memoro_core.tenancy.model import ENTERPRISE_TIER
from memoro_core.tenancy.service import TenancyService
from tests.support.pricing import Money


def fresh_name() -> str:
    """A name that no other tenant has."""
    return f"test-{secrets.token_hex(6)}"


@dataclass
class Hints:
    """Notes the hints that would go to workers, and runs nothing."""

    refs: list[JobRef] = field(default_factory=list)

    def hint(self, ref: JobRef) -> None:
        self.refs.append(ref)

    async def execute(self, ref: JobRef) -> Job:
        raise NotImplementedError(ref)


@dataclass
class Domain:
    """One tenant, and the services over its data; no worker runs, so jobs stay as the calls leave them."""

    tenant: TenantId
    database: Database
    job_store: PostgresJobStore
    run_store: PostgresRunStore
    lease_store: PostgresLeaseStore
    waiting: PostgresSchedulingStore
    memory_store: PostgresMemoryStore
    tenancy_store: PostgresTenancyStore
    memories: MemoryService
    hinted: list[JobRef]
    money: Money

    async def new_tenant(self) -> TenantId:
        """One more tenant."""
        return await make_tenant(self.tenancy_store)

    async def count(self, table: str) -> int:
        """How many rows the tenant has in a table."""
        async with self.database.tenant_tx(self.tenant) as connection:
            count: int = await connection.fetchval(f"SELECT count(*) FROM {table}")
        return count


async def make_tenant(store: PostgresTenancyStore) -> TenantId:
    """A tenant that no other test has."""
    return (await TenancyService(store, SystemClock()).create_tenant(None, fresh_name(), "", ENTERPRISE_TIER)).id


@asynccontextmanager
async def open_domain(settings: Settings) -> AsyncIterator[Domain]:
    """The domain on these settings' database."""
    async with open_database(settings) as database:
        hints = Hints()
        money = Money(database)
        job_store, memory_store = PostgresJobStore(database, money.holds), PostgresMemoryStore(database, money.holds)
        tenancy_store = PostgresTenancyStore(database)
        memories = MemoryService(
            memory_store,
            job_store,
            hints,
            hints,
            SystemClock(),
            money.bounds,
            priorities=PriorityRule(),
            max_attempts=settings.job_max_attempts,
        )
        yield Domain(
            await make_tenant(tenancy_store),
            database,
            job_store,
            PostgresRunStore(database, money.holds),
            PostgresLeaseStore(database),
            PostgresSchedulingStore(database),
            memory_store,
            tenancy_store,
            memories,
            hints.refs,
            money,
        )
        await memories.close()
