"""What is lost, and for how long, when a worker is killed and when Redis forgets everything.

First: workers with the default settings are killed in the middle of jobs, and each of these jobs is timed from the kill
to its next claim. The floor is the lease, within which a silent worker may still be at work. Then: a load of adds with
and without `FLUSHALL` in its middle and at its end, in turn; the floor is how long the workers take after the last add.
All jobs are paid for, and in the end each account and its ledger must be what its jobs have cost, once.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final, TypeAlias

import asyncpg
from redis.asyncio import Redis

from benchmarks.crew import WORKERS, Crew, Kill, open_crew
from benchmarks.deployment import (
    Account,
    Deployment,
    add_account,
    give_credits,
    open_deployment,
    running,
    running_server,
)
from benchmarks.outcome import Outcome, count_unended, ledger_stands, read_outcome
from benchmarks.report import Result, percentile, publish, table
from memoro import AsyncClient, NewMemory
from memoro_core.ids import TenantId
from memoro_core.settings import Settings
from tests.fakes.openai_server import FakeOpenAI

LONGEST: Final = 8.0
"""Seconds from a kill to the job's next claim, for 99 of 100 jobs."""
LATER: Final = 10.0
"""Seconds after the last add, and after Redis forgot, within which all work has ended."""
_ANSWER: Final = 0.1
"""Seconds that the provider takes for an answer while adds go on."""
_LOOK: Final = 0.1
_AT_ONCE: Final = 4
"""Workers that are killed before any of them is replaced."""
_GIVE_UP: Final = 120.0

Owner: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@dataclass(frozen=True, slots=True)
class Drain:
    """One load: how long its jobs took after the last add was accepted, and what became of them."""

    flushed: bool
    seconds: float
    outcome: Outcome


async def main(kills: int = 32, jobs: int = 24, rounds: int = 3, adds: int = 400, rate: float = 100.0) -> Result:
    """Kills first, then loads with and without flushes in turn."""
    async with FakeOpenAI() as provider, open_deployment() as deployment, running("benchmarks.keep_awake"):
        settings = _paid(provider)
        owner = await asyncpg.connect(deployment.stack.owner_url)
        try:
            async with (
                running_server(deployment, **settings) as (_, endpoint),
                open_crew(deployment, settings) as crew,
            ):
                recoveries, killed = await _kill_all(deployment, endpoint, crew, owner, provider, kills, jobs)
                provider.delay = _ANSWER
                drains = [
                    await _drain(deployment, endpoint, owner, f"flush-{number}-{flush}", adds, rate, flush=flush)
                    for number in range(rounds)
                    for flush in (False, True)
                ]
        finally:
            await owner.close()

    lease: float = Settings.model_fields["job_lease"].default
    value = percentile(recoveries, 99)
    print(
        table(
            "From SIGKILL to the next claim",
            ("kills", "jobs", "p50 s", "p99 s", "longest s", "lease s", *_OUTCOME),
            [
                (
                    f"{kills}",
                    f"{len(recoveries)}",
                    *(f"{percentile(recoveries, rank):.2f}" for rank in (50, 99)),
                    f"{max(recoveries):.2f}",
                    f"{lease:.1f}",
                    *_cells(killed),
                )
            ],
        )
    )
    without, flushed = ([one for one in drains if one.flushed is flush] for flush in (False, True))
    print(
        table(
            f"FLUSHALL during {adds} adds",
            ("", "drained after s", "slowest s", *_OUTCOME),
            [_row("without", without), _row("twice a round", flushed)],
        )
    )
    drained = max(one.seconds for one in flushed)
    whole = all(one.whole for one in (killed, *(drain.outcome for drain in drains)))
    return Result(
        "recover", value, lease, value / lease, LONGEST / lease, value <= LONGEST and drained <= LATER and whole
    )


def _paid(provider: FakeOpenAI) -> Mapping[str, str]:
    """The settings of processes whose jobs pay this provider."""
    return {
        "MEMORO_EXTRACTION_PROVIDER": "openai",
        "OPENAI_API_KEY": provider.api_key,
        "MEMORO_OPENAI_BASE_URL": provider.base_url,
        "MEMORO_OPENAI_TIMEOUT": "120",
        # Workers warn of what is done to them here.
        "MEMORO_LOG_LEVEL": "error",
    }


_OUTCOME: Final = ("accepted", "lost", "not ended once", "results not once", "wrongly charged")


def _cells(outcome: Outcome) -> tuple[str, ...]:
    return (
        f"{outcome.accepted}",
        f"{outcome.lost}",
        f"{outcome.not_ended_once}",
        f"{outcome.results_not_once}",
        f"{outcome.wrongly_charged}",
    )


def _row(name: str, drains: Sequence[Drain]) -> tuple[str, ...]:
    seconds = [one.seconds for one in drains]
    whole = Outcome.sum(one.outcome for one in drains)
    return name, f"{median(seconds):.2f}", f"{max(seconds):.2f}", *_cells(whole)


async def _kill_all(
    deployment: Deployment,
    endpoint: str,
    crew: Crew,
    owner: Owner,
    provider: FakeOpenAI,
    kills: int,
    jobs: int,
) -> tuple[Sequence[float], Outcome]:
    account = await _add_payer(deployment, "kills")
    recoveries: list[float] = []
    accepted: list[str] = []
    struck = 0
    async with AsyncClient(endpoint, api_key=account.api_key) as client:
        while struck < kills:
            # Held here, in the middle of their work, jobs last as long as it takes.
            provider.open.clear()
            accepted += [await _add(client, f"kill-{struck}", place) for place in range(jobs)]
            await _until(owner, _RUNNING, account.tenant_id, jobs)
            times = await _kill_some(crew, owner, account.tenant_id, min(_AT_ONCE, kills - struck))
            struck += len(times)
            recoveries += [one for of_worker in times for one in of_worker]
            provider.open.set()
            await _until_ended(owner, account.tenant_id)
    return recoveries, await _outcome(deployment, owner, account, accepted)


async def _kill_some(crew: Crew, owner: Owner, tenant_id: TenantId, count: int) -> Sequence[Sequence[float]]:
    """Of each killed worker that had jobs: seconds from its end to the next claim of each of them."""
    killed: list[Kill] = []
    for left in range(WORKERS, WORKERS - count, -1):
        # Anywhere between two heartbeats, and whether it leads the scheduling or not.
        await asyncio.sleep(random.uniform(0, Settings.model_fields["job_heartbeat"].default) / count)
        killed.append(await crew.kill(random.randrange(left)))
    victims = [
        (kill, jobs)
        for kill in killed
        if (jobs := [row["job_id"] for row in await owner.fetch(_VICTIMS, tenant_id, f"%:{kill.pid}:%")])
    ]
    again = [job_id for _, jobs in victims for job_id in jobs]
    # As whoever keeps workers running would do it: others start at once.
    await asyncio.gather(crew.fill(), _until(owner, _RUNNING_AGAIN, tenant_id, len(again), again))
    rows = await owner.fetch("SELECT job_id, started_at FROM jobs WHERE job_id = ANY ($1)", again)
    started = {row["job_id"]: row["started_at"] for row in rows}
    return [[(started[job_id] - kill.moment).total_seconds() for job_id in jobs] for kill, jobs in victims]


_VICTIMS: Final = """
    SELECT job_id FROM jobs WHERE tenant_id = $1 AND state = 'RUNNING' AND attempt = 1 AND worker_id LIKE $2
    """
_RUNNING: Final = "SELECT count(*) FROM jobs WHERE tenant_id = $1 AND state = 'RUNNING'"
_RUNNING_AGAIN: Final = f"{_RUNNING} AND attempt = 2 AND job_id = ANY ($2)"


async def _until(owner: Owner, question: str, tenant_id: TenantId, count: int, *more: object) -> None:
    async with asyncio.timeout(_GIVE_UP):
        while await owner.fetchval(question, tenant_id, *more) != count:
            await asyncio.sleep(_LOOK)


async def _until_ended(owner: Owner, tenant_id: TenantId) -> None:
    async with asyncio.timeout(_GIVE_UP):
        while await count_unended(owner, tenant_id):
            await asyncio.sleep(_LOOK)


async def _drain(
    deployment: Deployment, endpoint: str, owner: Owner, name: str, adds: int, rate: float, *, flush: bool
) -> Drain:
    account = await _add_payer(deployment, name.lower())
    async with (
        AsyncClient(endpoint, api_key=account.api_key) as client,
        Redis.from_url(deployment.stack.redis_url, protocol=2) as redis,
    ):
        calls: list[asyncio.Task[str]] = []
        began = time.monotonic()
        for number in range(adds):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            calls.append(asyncio.create_task(_add(client, name, number)))
            if flush and number == adds // 2:
                await redis.flushall()
        accepted = await asyncio.gather(*calls)
        last = time.monotonic()
        if flush:
            await redis.flushall()
        await _until_ended(owner, account.tenant_id)
    return Drain(flush, time.monotonic() - last, await _outcome(deployment, owner, account, accepted))


async def _add_payer(deployment: Deployment, name: str) -> Account:
    account = await add_account(deployment, name)
    await give_credits(deployment, account.tenant_id)
    return account


async def _outcome(deployment: Deployment, owner: Owner, account: Account, accepted: Sequence[str]) -> Outcome:
    if not await ledger_stands(deployment.settings, account.tenant_id):
        raise RuntimeError(f"the ledger of {account.tenant_id} is not whole")
    if not await owner.fetchval("SELECT spent FROM credit_accounts WHERE tenant_id = $1", account.tenant_id):
        raise RuntimeError("jobs were to be paid, and nothing was")
    return await read_outcome(owner, account.tenant_id, accepted)


async def _add(client: AsyncClient, name: str, number: int) -> str:
    memory = NewMemory(f"user-{number % 7}", f"On day {number} of {name} Maria Lopez met Anna Berg in Lisbon.")
    added = await client.memories.create(user_id=memory.user_id, text=memory.text)
    return added.job.id


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=32)
    parser.add_argument("--jobs", type=int, default=24, help="jobs under way at each kill, no more than are run by two")
    parser.add_argument("--rounds", type=int, default=3, help="loads of each kind")
    parser.add_argument("--adds", type=int, default=400)
    parser.add_argument("--rate", type=float, default=100.0, help="adds a second")
    options = parser.parse_args()
    publish(asyncio.run(main(options.kills, options.jobs, options.rounds, options.adds, options.rate)))
