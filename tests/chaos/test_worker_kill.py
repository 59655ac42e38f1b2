"""Workers are killed and Redis forgets everything in the middle of the work: every job still ends well, once."""

from __future__ import annotations

import asyncio
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from memoro_core.container import Container, open_container
from memoro_core.ids import TenantId, UserId
from memoro_core.memory.model import NewMemory
from memoro_core.settings import Settings
from memoro_core.tenancy.model import Tier
from tests.support.domain import fresh_name
from tests.support.jobs import until
from tests.support.stacks import StackFactory
from tests.support.workers import Workers, open_workers

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.timeout(180)]

JOBS = 200


@dataclass
class Deployment:
    """Servers, workers and a tenant of the test's own; `owner` sees all rows."""

    container: Container
    workers: Workers
    owner: asyncpg.Connection[asyncpg.Record]
    tenant: TenantId
    log: Path

    async def add(self, count: int) -> None:
        """So many memories, each with a job."""
        await asyncio.gather(
            *(
                self.container.memories.create(
                    self.tenant,
                    NewMemory(
                        UserId(f"user-{number % 7}"), f"Maria Lopez number {number} works at TechCorp in Berlin."
                    ),
                )
                for number in range(count)
            )
        )

    async def ended(self) -> int:
        """How many jobs have ended."""
        count: int = await self.owner.fetchval(
            "SELECT count(*) FROM jobs WHERE state IN ('SUCCEEDED', 'FAILED', 'CANCELLED')"
        )
        return count

    async def wait_until_ended(self, count: int) -> None:
        """Returns when so many jobs have ended."""

        async def enough() -> bool:
            return await self.ended() >= count

        try:
            await until(enough, seconds=60)
        except TimeoutError:
            states = await self.owner.fetch("SELECT state, count(*) FROM jobs GROUP BY state")
            sessions = await self.owner.fetch(
                "SELECT pid, application_name, state, wait_event, query FROM pg_stat_activity WHERE datname IS NOT NULL"
            )
            pytest.fail(f"{states}\n{sessions}\n{self.log.read_text()[-4000:]}")

    async def running_on(self, process: Process) -> int:
        """How many jobs that worker has claimed and not ended."""
        count: int = await self.owner.fetchval(
            "SELECT count(*) FROM jobs WHERE state = 'RUNNING' AND worker_id LIKE $1", f"%:{process.pid}:%"
        )
        return count

    async def check(self, count: int) -> None:
        """Each of so many jobs has succeeded and left one set of results."""
        states = await self.owner.fetch("SELECT state, count(*) FROM jobs GROUP BY state")
        assert [tuple(row) for row in states] == [("SUCCEEDED", count)], self.log.read_text()[-4000:]
        assert not await self.owner.fetch(
            """
            SELECT job_id FROM jobs JOIN job_events USING (tenant_id, job_id)
            GROUP BY tenant_id, job_id, last_seq
            HAVING count(*) FILTER (WHERE event ->> 'state' IN ('SUCCEEDED', 'FAILED', 'CANCELLED')) <> 1
                OR count(*) <> last_seq OR min(seq) <> 1 OR max(seq) <> last_seq
            """
        )
        assert not await self.owner.fetch(
            """
            SELECT jobs.job_id FROM jobs JOIN memories ON memories.memory_id = jobs.memory_ids[1]
            WHERE memories.status <> 'READY'
               OR (SELECT count(*) FROM memory_embeddings e WHERE e.memory_id = memories.memory_id) <> 1
               OR (SELECT count(*) FROM mentions m WHERE m.memory_id = memories.memory_id)
                  <> (result ->> 'entities')::integer
               OR (SELECT count(*) FROM relationship_sources s WHERE s.memory_id = memories.memory_id)
                  <> (result ->> 'relationships')::integer
               OR (result ->> 'entities')::integer = 0
            """
        )
        # However many workers met there: one entity for one name.
        assert not await self.owner.fetch(
            "SELECT 1 FROM entities GROUP BY tenant_id, user_id, normalized_name, type HAVING count(*) > 1"
        )


@pytest_asyncio.fixture
async def deployment(stack_factory: StackFactory, tmp_path: Path) -> AsyncIterator[Deployment]:
    stack = await stack_factory()
    settings = Settings.model_validate(
        {
            "database_url": stack.database_url,
            "redis_url": stack.redis_url,
            "job_lease": 2.0,
            "job_heartbeat": 0.5,
            "hint_timeout": 2.0,
            "scheduler_interval": 0.25,
            "database_timeout": 4.0,
        }
    )
    log = tmp_path / "workers.log"
    async with AsyncExitStack() as opened:
        container = await opened.enter_async_context(open_container(settings))
        workers = await opened.enter_async_context(open_workers(settings, log))
        owner = await asyncpg.connect(stack.owner_url)
        opened.push_async_callback(owner.close)
        tenant = await container.tenancy.create_tenant(None, fresh_name(), "", Tier.PRO)
        yield Deployment(container, workers, owner, tenant.id, log)


async def test_a_worker_is_killed_in_the_middle_of_its_jobs(deployment: Deployment) -> None:
    victim, survivor = await deployment.workers.start(), await deployment.workers.start()
    await deployment.add(JOBS)
    await deployment.wait_until_ended(JOBS // 8)
    while not await stopped_with_jobs(deployment, victim):
        await asyncio.sleep(0.01)
    assert await deployment.workers.end(victim, signal.SIGKILL) == -signal.SIGKILL
    await deployment.workers.start()
    await deployment.wait_until_ended(JOBS)
    await deployment.check(JOBS)
    retried = await deployment.owner.fetchval("SELECT count(*) FROM jobs WHERE attempt > 1")
    assert retried > 0
    assert await deployment.workers.end(survivor) == 0


async def test_redis_forgets_everything_in_the_middle_of_the_jobs(deployment: Deployment) -> None:
    for _ in range(2):
        await deployment.workers.start()
    await deployment.add(JOBS)
    for part in range(1, 5):
        await deployment.wait_until_ended(JOBS * part // 8)
        await deployment.container.redis.flushall()
    await deployment.wait_until_ended(JOBS)
    await deployment.check(JOBS)


async def test_a_worker_that_is_asked_to_stop_hands_its_jobs_on(deployment: Deployment) -> None:
    first = await deployment.workers.start()
    await deployment.add(JOBS)
    await deployment.wait_until_ended(JOBS // 8)
    assert await deployment.workers.end(first) == 0
    assert await deployment.running_on(first) == 0
    assert await deployment.ended() < JOBS
    await deployment.workers.start()
    await deployment.wait_until_ended(JOBS)
    await deployment.check(JOBS)
    assert await deployment.owner.fetchval("SELECT max(attempt) FROM jobs") == 1


async def test_a_worker_that_was_thought_dead_wakes_up_and_spoils_nothing(deployment: Deployment) -> None:
    zombie = await deployment.workers.start()
    await deployment.add(JOBS)
    await deployment.wait_until_ended(JOBS // 8)
    while not await stopped_with_jobs(deployment, zombie):
        await asyncio.sleep(0.01)
    await deployment.workers.start()
    await deployment.wait_until_ended(JOBS)
    zombie.send_signal(signal.SIGCONT)
    await asyncio.sleep(2)
    await deployment.check(JOBS)
    assert await deployment.workers.end(zombie) == 0


async def stopped_with_jobs(deployment: Deployment, process: Process) -> bool:
    """Stops the worker for good if it is in the middle of jobs."""
    process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(0.05)  # what it has sent arrives
    if await deployment.running_on(process):
        return True
    process.send_signal(signal.SIGCONT)
    return False
