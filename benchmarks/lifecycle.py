"""Durable jobs against bare tasks: how many one core of a worker process sees through in a second.

Memoro: a job that waits in PostgreSQL is chosen, hinted, claimed, run by a handler that has nothing to do, and ended,
each step committed and each told as an event. Beside it stand, without a bar, jobs for which money was set aside when
they were accepted: it goes back with their end, through the ledger. Floor: Taskiq's own worker on a Redis stream, whose
task does nothing. Both have as many tasks under way at once. Both are measured by the processor time of the worker's
process, since PostgreSQL shares the machine with it and would otherwise decide the figure; the rates by the clock are
in the table. A spinning process of the lowest class keeps the processor awake, so that commits don't wait for it.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from dataclasses import dataclass
from statistics import median
from typing import Final

import asyncpg

from benchmarks.deployment import Deployment, give_credits, open_deployment, running
from benchmarks.report import Result, publish, table

TARGET: Final = 1.0
USERS: Final = 50
HOLD: Final = 1_000
"""What is set aside for a job, in micro-credits."""
ACCEPT: Final = """
    WITH made AS (
        INSERT INTO jobs (tenant_id, job_id, kind, state, priority, user_id, memory_ids, stages, max_attempts, run_at,
        last_seq, created_at, cost_bound)
        SELECT tenant_id, gen_random_uuid(), 'memory.enrich', 'QUEUED', 2, 'user-' || number % $2,
        ARRAY[gen_random_uuid()], '[{"stage": "SCREEN", "status": "PENDING", "completed": 0, "total": 0}, {"stage":
        "COMMIT", "status": "PENDING", "completed": 0, "total": 0}]', 5, now(), 1, now(), $3 FROM tenants,
        generate_series(1, $1) AS number WHERE name = 'dev' RETURNING tenant_id, job_id, user_id
    ), set_aside AS (
        INSERT INTO credit_holds (tenant_id, job_id, user_id, state, amount, margin_basis_points, day, created_at)
        SELECT tenant_id, job_id, user_id, 'PENDING', $3, 0, now()::date, now() FROM made WHERE $3 > 0
    ), held AS (
        UPDATE credit_accounts SET available = available - $1 * $3, held = held + $1 * $3
        FROM tenants WHERE tenants.tenant_id = credit_accounts.tenant_id AND name = 'dev'
    )
    INSERT INTO job_events (tenant_id, job_id, seq, event, created_at)
    SELECT tenant_id, job_id, 1, jsonb_build_object('seq', 1, 'state', 'QUEUED', 'attempt', 0, 'at', now()), now() FROM
    made
"""


@dataclass(frozen=True, slots=True)
class Rate:
    """Jobs or tasks that one process saw through: per second, and per second of its processor time."""

    per_second: float
    per_core_second: float


async def main(rounds: int = 5, jobs: int = 6000, concurrency: int = 128) -> Result:
    """Interleaves bursts on the floor and on Memoro; the median of each."""
    async with open_deployment() as deployment, running("benchmarks.keep_awake"):
        owner = await asyncpg.connect(deployment.stack.owner_url)
        await owner.execute("UPDATE tenants SET tier = 'enterprise' WHERE name = 'dev'")
        dev = await owner.fetchval("SELECT tenant_id FROM tenants WHERE name = 'dev'")
        await give_credits(deployment, dev)
        floors: list[Rate] = []
        values: list[Rate] = []
        paid: list[Rate] = []
        for _ in range(rounds):
            floors.append(await asyncio.to_thread(_floor, deployment, jobs, concurrency))
            for rates, hold in ((values, 0), (paid, HOLD)):
                rates.append(await _round(deployment, owner, jobs, concurrency, hold))
            if await owner.fetchval("SELECT held FROM credit_accounts WHERE tenant_id = $1", dev):
                raise RuntimeError("jobs have ended, and what was set aside for them was not given back")
        await owner.close()
    rows = [
        [
            *(f"{rate.per_core_second:,.0f}" for rate in (floor, value, settled)),
            f"{value.per_core_second / floor.per_core_second:.2f}",
            *(f"{rate.per_second:,.0f}" for rate in (floor, value, settled)),
        ]
        for floor, value, settled in zip(floors, values, paid, strict=True)
    ]
    kinds = ("durable job", "with money set aside")
    header = ("bare task, per core and second", *kinds, "ratio", "by the clock: bare task", *kinds)
    print(table("one worker process", header, rows))
    floor, value = (median(rate.per_core_second for rate in rates) for rates in (floors, values))
    result = Result("lifecycle", value, floor, value / floor, TARGET, value / floor >= TARGET)
    publish(result)
    return result


def _floor(deployment: Deployment, tasks: int, concurrency: int) -> Rate:
    arguments = [deployment.stack.redis_url, str(tasks), str(concurrency)]
    command = [sys.executable, "-m", "benchmarks.taskiq_worker", *arguments]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return Rate(*map(float, said.split()))


async def _round(
    deployment: Deployment, owner: asyncpg.Connection[asyncpg.Record], jobs: int, concurrency: int, hold: int
) -> Rate:
    environment = {
        **deployment.environment,
        "MEMORO_WORKER_OPS_PORT": "0",
        "MEMORO_WORKER_CONCURRENCY": str(concurrency),
        "MEMORO_EXTRACTION_PROVIDER": "none",
    }
    async with running("benchmarks.noop_worker", environment=environment) as worker:
        # The worker is up when it has done something.
        await _see_through(owner, concurrency, hold)
        before = worker.cpu_times()
        seconds = await _see_through(owner, jobs, hold)
        after = worker.cpu_times()
    processor = after.user + after.system - before.user - before.system
    return Rate(jobs / seconds, jobs / processor)


async def _see_through(owner: asyncpg.Connection[asyncpg.Record], jobs: int, hold: int) -> float:
    """Seconds from the acceptance of so many jobs to the end of the last."""
    await owner.execute("TRUNCATE jobs, job_events, credit_holds")
    await owner.execute(ACCEPT, jobs, USERS, hold)
    started = time.perf_counter()
    async with asyncio.timeout(120):
        while await owner.fetchval("SELECT EXISTS (SELECT FROM jobs WHERE ended_at IS NULL)"):
            await asyncio.sleep(0.02)
    return time.perf_counter() - started


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=6000)
    parser.add_argument("--concurrency", type=int, default=128)
    options = parser.parse_args()
    asyncio.run(main(options.rounds, options.jobs, options.concurrency))
