"""What is lost, and for how long, when a worker is killed and when Redis forgets everything.

First: workers with the default settings are killed in the middle of jobs, and each of these jobs is timed from the kill
to its next claim. The floor is the lease, within which a silent worker may still be at work. Then: a load of adds with
and without `FLUSHALL` in its middle and at its end, in turn; the floor is how long the workers take after the last add.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import Final, TypeAlias

import asyncpg
import psutil
from redis.asyncio import Redis

from benchmarks.deployment import Deployment, add_account, open_deployment, running, running_server, running_worker
from benchmarks.outcome import Outcome, count_unended, read_outcome
from benchmarks.report import Result, percentile, publish, table
from memoro import AsyncClient, NewMemory
from memoro_core.ids import TenantId
from memoro_core.settings import Settings
from tests.fakes.openai_server import FakeOpenAI

LONGEST: Final = 8.0
"""Seconds from a kill to the job's next claim, for 99 of 100 jobs."""
LATER: Final = 10.0
"""Seconds by which the work may end later for a Redis that forgot."""
_ANSWER: Final = 0.1
"""Seconds that the provider takes for an answer while adds go on."""
_LOOK: Final = 0.1
_GIVE_UP: Final = 120.0

Owner: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@dataclass(frozen=True, slots=True)
class Drain:
    """One load: how long its jobs took after the last add was accepted, and what became of them."""

    flushed: bool
    seconds: float
    outcome: Outcome


async def main(kills: int = 12, jobs: int = 12, rounds: int = 3, adds: int = 600, rate: float = 100.0) -> Result:
    """Kills first, then loads with and without flushes in turn."""
    async with FakeOpenAI() as provider, open_deployment() as deployment, running("benchmarks.keep_awake"):
        owner = await asyncpg.connect(deployment.stack.owner_url)
        try:
            async with running_server(deployment) as (_, endpoint), _open_crew(deployment, provider) as crew:
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
    later = median(one.seconds for one in flushed) - median(one.seconds for one in without)
    whole = all(one.whole for one in (killed, *(drain.outcome for drain in drains)))
    return Result(
        "recover", value, lease, value / lease, LONGEST / lease, value <= LONGEST and later <= LATER and whole
    )


_OUTCOME: Final = ("accepted", "lost", "not ended once", "results not once")


def _cells(outcome: Outcome) -> tuple[str, ...]:
    return (
        f"{outcome.accepted}",
        f"{outcome.lost}",
        f"{outcome.not_ended_once}",
        f"{outcome.results_not_once}",
    )


def _row(name: str, drains: Sequence[Drain]) -> tuple[str, ...]:
    seconds = [one.seconds for one in drains]
    whole = Outcome.sum(one.outcome for one in drains)
    return name, f"{median(seconds):.2f}", f"{max(seconds):.2f}", *_cells(whole)


class _Crew:
    """Two workers, oldest first: the oldest leads the scheduling, unless it has just been killed."""

    def __init__(self, deployment: Deployment, provider: FakeOpenAI) -> None:
        self._deployment = deployment
        self._settings = {
            "MEMORO_EXTRACTION_PROVIDER": "openai",
            "OPENAI_API_KEY": provider.api_key,
            "MEMORO_OPENAI_BASE_URL": provider.base_url,
            "MEMORO_OPENAI_TIMEOUT": "120",
            # Workers warn of what is done to them here.
            "MEMORO_LOG_LEVEL": "error",
        }
        self._workers: list[tuple[psutil.Process, AsyncExitStack]] = []

    async def start(self) -> None:
        """One more worker, with the default settings for its leases."""
        stack = AsyncExitStack()
        process = await stack.enter_async_context(running_worker(self._deployment, **self._settings))
        self._workers.append((process, stack))

    async def kill(self, place: int) -> tuple[int, datetime]:
        """The worker's pid, and the moment before its end."""
        process, stack = self._workers.pop(place)
        moment = datetime.now(UTC)
        process.kill()
        await stack.aclose()
        return process.pid, moment

    async def stop(self) -> None:
        """Ends all."""
        for _, stack in self._workers:
            await stack.aclose()


@asynccontextmanager
async def _open_crew(deployment: Deployment, provider: FakeOpenAI) -> AsyncIterator[_Crew]:
    crew = _Crew(deployment, provider)
    try:
        for _ in range(2):
            await crew.start()
        yield crew
    finally:
        await crew.stop()


async def _kill_all(
    deployment: Deployment,
    endpoint: str,
    crew: _Crew,
    owner: Owner,
    provider: FakeOpenAI,
    kills: int,
    jobs: int,
) -> tuple[Sequence[float], Outcome]:
    account = await add_account(deployment, "kills")
    recoveries: list[float] = []
    accepted: list[str] = []
    async with AsyncClient(endpoint, api_key=account.api_key) as client:
        for number in range(kills):
            # Held here, in the middle of their work, jobs last as long as it takes.
            provider.open.clear()
            while not (victims := await _kill_one(client, crew, owner, account.tenant_id, number, jobs, accepted)):
                provider.open.set()
                await _until_ended(owner, account.tenant_id)
                provider.open.clear()
            recoveries += victims
            provider.open.set()
            await _until_ended(owner, account.tenant_id)
    return recoveries, await read_outcome(owner, account.tenant_id, accepted)


async def _kill_one(
    client: AsyncClient,
    crew: _Crew,
    owner: Owner,
    tenant_id: TenantId,
    number: int,
    jobs: int,
    accepted: list[str],
) -> Sequence[float]:
    """Seconds from the kill of one worker to the next claim of each of its jobs; empty when it had none."""
    accepted += [await _add(client, f"kill-{number}", place) for place in range(jobs)]
    await _until(owner, _RUNNING, tenant_id, jobs)
    # Anywhere between two heartbeats, and whether it leads the scheduling or not.
    await asyncio.sleep(random.uniform(0, Settings.model_fields["job_heartbeat"].default))
    pid, moment = await crew.kill(number % 2)
    victims = [
        row["job_id"]
        for row in await owner.fetch(
            "SELECT job_id FROM jobs WHERE tenant_id = $1 AND state = 'RUNNING' AND worker_id LIKE $2",
            tenant_id,
            f"%:{pid}:%",
        )
    ]
    try:
        await _until(owner, _RUNNING_AGAIN, tenant_id, len(victims), victims)
    finally:
        await crew.start()
    rows = await owner.fetch(
        "SELECT started_at FROM jobs WHERE tenant_id = $1 AND job_id = ANY ($2)", tenant_id, victims
    )
    return [(row["started_at"] - moment).total_seconds() for row in rows]


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
    account = await add_account(deployment, name.lower())
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
    return Drain(flush, time.monotonic() - last, await read_outcome(owner, account.tenant_id, accepted))


async def _add(client: AsyncClient, name: str, number: int) -> str:
    memory = NewMemory(f"user-{number % 7}", f"On day {number} of {name} Maria Lopez met Anna Berg in Lisbon.")
    added = await client.memories.create(user_id=memory.user_id, text=memory.text)
    return added.job.id


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--jobs", type=int, default=12, help="jobs under way at each kill")
    parser.add_argument("--rounds", type=int, default=3, help="loads of each kind")
    parser.add_argument("--adds", type=int, default=600)
    parser.add_argument("--rate", type=float, default=100.0, help="adds a second")
    options = parser.parse_args()
    publish(asyncio.run(main(options.kills, options.jobs, options.rounds, options.adds, options.rate)))
