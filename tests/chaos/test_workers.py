"""Workers are killed, stopped, blocked and starved in the middle of their jobs."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import pytest

from memoro_core.tasks import end_task
from tests.support.chaos import Deployment
from tests.support.chaos_checks import check
from tests.support.chaos_faults import SMALLEST_POOL, stall_with_jobs, stalling_worker
from tests.support.chaos_load import Load
from tests.support.run_poisoned_worker import POISON, POISONED_WORKER

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.slow,
    pytest.mark.timeout(180),
    pytest.mark.asyncio(loop_scope="module"),
]

JOBS = 120
FEW = 40
"""Little more than one worker has at once: what is given back is soon taken again."""
SEVERAL = 4
BLOCKED = 10.0
TAKEOVER = 6.0
"""Five seconds, and one in which this test may look too late."""
LOST = "SELECT count(*) FROM job_events WHERE tenant_id = $1 AND event -> 'error' ->> 'reason' = 'WORKER_LOST'"


async def test_a_worker_is_killed_in_the_middle_of_its_jobs(deployment: Deployment, load: Load) -> None:
    victim, _ = deployment.workers.alive
    await load.add(JOBS)
    await deployment.freeze_with_jobs(victim)
    assert await deployment.workers.end(victim, signal.SIGKILL) == -signal.SIGKILL
    await deployment.workers.start()
    await deployment.wait_until_ended(load)
    await check(deployment, load)
    assert await deployment.owner.fetchval(LOST, load.tenant_id) > 0


async def test_workers_that_were_thought_dead_wake_up_and_spoil_nothing(deployment: Deployment, load: Load) -> None:
    first, second = deployment.workers.alive
    second.send_signal(signal.SIGSTOP)
    await load.add(FEW)
    await deployment.freeze_with_jobs(first, at_least=SEVERAL)
    second.send_signal(signal.SIGCONT)
    # The second has jobs of the first and stands still with them, so that they are RUNNING when the first wakes up.
    await deployment.freeze_with_jobs(second, attempt=2, at_least=SEVERAL)
    first.send_signal(signal.SIGCONT)
    await asyncio.sleep(1)
    second.send_signal(signal.SIGCONT)
    await deployment.wait_until_ended(load)
    await check(deployment, load)
    assert [worker.returncode for worker in deployment.workers.alive] == [None, None], await deployment.report()


async def test_a_worker_that_is_asked_to_stop_hands_its_jobs_on(deployment: Deployment, load: Load) -> None:
    first, second = deployment.workers.alive
    second.send_signal(signal.SIGSTOP)
    await load.add(JOBS)
    await deployment.wait_until_ended(load, 1)
    assert await deployment.workers.end(first) == 0
    assert await deployment.running_on(first) == 0
    assert await deployment.ended(load) < JOBS
    second.send_signal(signal.SIGCONT)
    await deployment.wait_until_ended(load)
    await check(deployment, load)
    assert await deployment.owner.fetchval("SELECT max(attempt) FROM jobs WHERE tenant_id = $1", load.tenant_id) == 1


async def test_the_scheduler_that_leads_is_killed_and_another_is_stopped(deployment: Deployment, load: Load) -> None:
    leader = await deployment.wait_for_leader()
    async with load.adding():
        await deployment.workers.end(leader, signal.SIGKILL)
        second = await deployment.wait_for_leader(other_than=leader, seconds=TAKEOVER)
        await deployment.workers.start()
        await deployment.wait_for_workers()
        second.send_signal(signal.SIGSTOP)
        third = await deployment.wait_for_leader(other_than=second, seconds=TAKEOVER)
    second.send_signal(signal.SIGCONT)
    await deployment.wait_until_ended(load)
    assert await deployment.leader() is third
    await check(deployment, load)


async def test_a_worker_whose_loop_is_blocked_keeps_its_jobs(deployment: Deployment, load: Load) -> None:
    # On waking, a statement's own timeout would strike before its answer is read: an attempt that fails, no lost lease.
    async with stalling_worker(deployment, BLOCKED, MEMORO_DATABASE_TIMEOUT="30") as worker:
        await load.add(JOBS)
        held = await stall_with_jobs(deployment, worker)
        await asyncio.sleep(BLOCKED)
        await deployment.wait_until_ended(load)
    await check(deployment, load)
    rows = await deployment.owner.fetch("SELECT attempt FROM jobs WHERE job_id = ANY ($1)", held)
    assert {row["attempt"] for row in rows} == {1}


async def test_a_poison_job_fails_and_those_beside_it_do_not(deployment: Deployment, load: Load) -> None:
    for worker in list(deployment.workers.alive):
        await deployment.workers.end(worker)
    patient = {"MEMORO_JOB_MAX_ATTEMPTS": "3"}
    (server,) = deployment.servers.alive
    await deployment.servers.end(server)
    await deployment.servers.start(**patient)
    await load.add(1, user_id=POISON)
    await load.add(FEW)
    poison = next(answer.job_id for ask, answer in load.accepted.items() if ask.user_id == POISON)
    async with supervised(deployment, POISONED_WORKER) as deaths:
        await deployment.wait_until_ended(load)
        assert deaths == [-signal.SIGKILL] * 3
    await check(deployment, load, failed=[poison])
    error = await deployment.owner.fetchval("SELECT error ->> 'reason' FROM jobs WHERE job_id = $1", UUID(poison))
    assert error == "WORKER_LOST"


async def test_a_worker_and_a_server_have_far_fewer_connections_than_work(deployment: Deployment, load: Load) -> None:
    for processes in (deployment.servers, deployment.workers):
        for process in list(processes.alive):
            await processes.end(process)
        await processes.start(**SMALLEST_POOL)
    await load.add(JOBS)
    await deployment.wait_until_ended(load)
    await check(deployment, load)
    # Who waits for a connection keeps its lease meanwhile.
    assert await deployment.owner.fetchval(LOST, load.tenant_id) == 0


@asynccontextmanager
async def supervised(deployment: Deployment, script: str) -> AsyncIterator[list[int]]:
    """A worker that is started again whenever it ends; how it ended each time."""
    deaths: list[int] = []

    async def keep_running() -> None:
        while True:
            worker = await deployment.workers.start(script)
            deaths.append(await worker.wait())
            deployment.workers.alive.remove(worker)

    keeping = asyncio.create_task(keep_running())
    try:
        yield deaths
    finally:
        await end_task(keeping)
