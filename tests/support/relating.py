"""A tenant whose users have entities and facts found for so many jobs an hour, and time that goes as a test says."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, timedelta

from memoro_core.billing.calendar import Calendar
from memoro_core.ids import JobId, UserId
from memoro_core.jobs.model import Job, JobEvent, JobKind, JobRef
from memoro_core.jobs.run_ports import JobHandler
from memoro_core.memory.enrichment import EnrichmentHandler, RelationLimit
from memoro_core.memory.finding import GraphFinder
from memoro_core.memory.model import NewMemory
from memoro_core.memory.relating import RelatingHandler
from memoro_core.postgres.deferral_store import PostgresDeferralStore
from memoro_core.postgres.enrichment_store import PostgresEnrichmentStore
from memoro_core.postgres.relation_slots import PostgresRelationSlots
from tests.support.clocks import MovingClock
from tests.support.domain import Domain
from tests.support.enrichment import DirectionEmbedder, ScriptedExtractor, claim, run_of
from tests.support.jobs import job_of

HOUR = timedelta(hours=1)
ALICE = UserId("alice")


@dataclass
class Relater:
    """Adds texts and runs their jobs."""

    domain: Domain
    clock: MovingClock = field(default_factory=MovingClock)
    extractor: ScriptedExtractor = field(default_factory=ScriptedExtractor)
    embedder: DirectionEmbedder = field(default_factory=DirectionEmbedder)

    def __post_init__(self) -> None:
        self.slots = PostgresRelationSlots(self.domain.database, self.domain.money.holds)
        self.deferrals = PostgresDeferralStore(self.domain.database, self.domain.money.holds, Calendar(UTC))

    async def allow(self, per_hour: int | None) -> None:
        """Limits the tenant."""
        limits = {} if per_hour is None else {"relation_detections": per_hour}
        async with self.domain.database.system_tx() as connection:
            await connection.execute("UPDATE tenants SET limits = $2 WHERE tenant_id = $1", self.domain.tenant, limits)

    async def add(self, text: str, *, user: UserId = ALICE) -> JobRef:
        """A text, whose job waits."""
        accepted = await self.domain.memories.create(self.domain.tenant, NewMemory(user, text))
        assert accepted.job is not None
        return JobRef(self.domain.tenant, accepted.job.id)

    def handlers(self) -> dict[JobKind, JobHandler]:
        """What does the jobs."""
        store = PostgresEnrichmentStore(self.domain.database, self.domain.money.holds)
        finder = GraphFinder(store, self.extractor)
        limit = RelationLimit(self.slots, self.domain.money.bounds, self.clock)
        return {
            JobKind.MEMORY_ENRICH: EnrichmentHandler(store, self.embedder, finder, limit, self.clock),
            JobKind.MEMORY_RELATE: RelatingHandler(store, finder, self.slots, self.clock),
        }

    async def run(self, ref: JobRef) -> JobEvent:
        """An attempt of a job; its last event."""
        claimed = await claim(self.domain, ref, now=self.clock.now())
        return await self.handlers()[claimed.job.kind].run(run_of(self.domain, claimed))

    async def enrich(self, text: str, *, user: UserId = ALICE) -> Job | None:
        """A text whose job runs at once; the job that it leaves its graph to."""
        event = await self.run(await self.add(text, user=user))
        assert event.result is not None
        left = event.result.relate_job_id
        return None if left is None else await self.job(left)

    async def let_go(self, *, due_only: bool = True) -> list[JobRef]:
        """Lets go what is put off."""
        now, tenant = self.clock.now(), self.domain.tenant
        events = list(await self.deferrals.release(now=now, limit=1000, tenant_id=tenant, due_only=due_only))
        events += await self.deferrals.release_candidates(tenant, now=now, limit=1000)
        return [ref for ref, _ in events]

    async def job(self, job_id: JobId) -> Job:
        """The job as it is now."""
        return await job_of(self.domain, JobRef(self.domain.tenant, job_id))

    async def slots_taken(self) -> int:
        """How many slots the tenant's users have taken."""
        return await self.domain.count("relation_slots")
