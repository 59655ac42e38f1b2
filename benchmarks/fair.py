"""How soon a light tenant's job starts while another tenant has very many in the queue, against an idle queue.

The light tenant adds one memory after the other over gRPC; a job's start is measured from its acceptance, as its row
tells it, to the moment in which a worker begins its work. The jobs of both wait as for a provider. Both tenants are of
the tier `pro`, and this has the bar. The rest stands beside it, and is measured in the first rounds only: a short
queue, which keeps the workers as busy, tells what is due to the queue's length and what to the processors, which all
here share; `saturated`, the other tenant adds so many more over gRPC that no slot stays free; and a tenant of the tier
`free` is measured against one of the tier `enterprise`.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final, TypeAlias
from uuid import UUID

import asyncpg

from benchmarks import backlog
from benchmarks.deployment import (
    Account,
    Deployment,
    add_account,
    open_deployment,
    running,
    running_server,
    running_worker,
)
from benchmarks.outcome import count_unended
from benchmarks.report import Result, percentile, publish, table
from benchmarks.waiting_worker import read_starts
from memoro import AsyncClient
from memoro_core.tasks import end_task
from memoro_core.tenancy.model import ENTERPRISE_TIER, FREE_TIER, PRO_TIER, TierName

TARGET: Final = 1.5
Pair = tuple[TierName, TierName]
PAIRS: Final[tuple[Pair, ...]] = ((PRO_TIER, PRO_TIER), (FREE_TIER, ENTERPRISE_TIER))
"""The light tenant's tier and the heavy one's; the first pair has the bar."""
_BESIDE: Final = 1
"""Rounds in which what has no bar is measured too."""
_PAUSE: Final = 0.1
_FIRST: Final = 20
"""Adds of a phase that are not measured."""
_SETTLE: Final = 2.0
"""Seconds before a phase, for what making or dropping a backlog leaves to do."""
_PATIENCE: Final = 30.0
"""Seconds after which a job that has not started counts as it stands."""

Owner: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@dataclass(frozen=True, slots=True)
class Load:
    """What the heavy tenant and the workers are."""

    queued: int
    short: int
    workers: int
    concurrency: int
    wait: float

    @property
    def pause(self) -> float:
        """Between two adds that together keep all slots busy, in seconds."""
        return self.wait / (self.workers * self.concurrency)


@dataclass(frozen=True, slots=True)
class Phase:
    """The light tenant's start latencies, how many of its jobs never started, and what the heavy tenant got done."""

    milliseconds: Sequence[float]
    unstarted: int
    heavy_per_second: float
    heavy_left: int


async def main(load: Load, rounds: int = 5, seconds: float = 8.0) -> Result:
    """Idle and loaded phases in turn; in the first rounds also what stands beside them."""
    measured: defaultdict[tuple[Pair, str], list[Phase]] = defaultdict(list)
    idle, short, long = "idle", f"{load.short} queued", f"{load.queued} queued"
    saturated = f"{long}, saturated"
    async with AsyncExitStack() as stack:
        deployment = await stack.enter_async_context(open_deployment())
        await stack.enter_async_context(running("benchmarks.keep_awake"))
        owner, other = [await asyncpg.connect(deployment.stack.owner_url) for _ in range(2)]
        stack.push_async_callback(owner.close)
        stack.push_async_callback(other.close)
        _, endpoint = await stack.enter_async_context(running_server(deployment))
        starts = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="memoro-bench-")))
        await _start_workers(stack, deployment, load, starts)
        accounts = {
            (light, heavy): (
                await add_account(deployment, f"light-{light}", light),
                await add_account(deployment, f"heavy-{heavy}", heavy),
            )
            for light, heavy in PAIRS
        }
        for number in range(rounds):
            for pair, (light, heavy) in accounts.items():
                beside = number < _BESIDE
                if pair != PAIRS[0] and not beside:
                    continue
                phase = partial(_phase, owner, endpoint, light, heavy, starts, seconds)
                measured[pair, idle].append(await phase())
                if beside:
                    topping_up = asyncio.create_task(backlog.keep_short(other, heavy.tenant_id, load.short))
                    measured[pair, short].append(await phase())
                    await end_task(topping_up)
                await backlog.fill(owner, heavy.tenant_id, load.queued)
                measured[pair, long].append(await phase())
                if beside and pair == PAIRS[0]:
                    adding = asyncio.create_task(_keep_adding(endpoint, heavy, load.pause))
                    measured[pair, saturated].append(await phase())
                    await end_task(adding)
                await backlog.drop(owner, heavy.tenant_id)

    print(
        table(
            f"From acceptance to start, {load.workers} workers of {load.concurrency}, jobs of {load.wait * 1000:g} ms",
            ("light tenant", "heavy tenant", "starts", "not started", "p50 ms", "p99 ms", "longest ms", *_HEAVY),
            [
                _row(pair[0], f"{pair[1]}, {kind}", measured[pair, kind])
                for pair in PAIRS
                for kind in (idle, short, long, saturated)
                if (pair, kind) in measured
            ],
        )
    )
    value, floor = (_p99(measured[PAIRS[0], kind]) for kind in (long, idle))
    started = not any(one.unstarted for one in measured[PAIRS[0], long])
    return Result("fair", value, floor, value / floor, TARGET, started and value / floor <= TARGET)


_HEAVY: Final = ("heavy jobs/s", "left in queue")


def _row(light: TierName, other: str, phases: Sequence[Phase]) -> tuple[str, ...]:
    times = [time for one in phases for time in one.milliseconds]
    return (
        str(light),
        other,
        f"{len(times)}",
        f"{sum(one.unstarted for one in phases)}",
        *(f"{percentile(times, rank):.1f}" for rank in (50, 99)),
        f"{max(times):.1f}",
        f"{sum(one.heavy_per_second for one in phases) / len(phases):.0f}",
        f"{min(one.heavy_left for one in phases)}",
    )


def _p99(phases: Sequence[Phase]) -> float:
    """Of the rounds' tails the middle one: a moment in which the whole machine stands still is nobody's."""
    return median(percentile(one.milliseconds, 99) for one in phases)


async def _start_workers(stack: AsyncExitStack, deployment: Deployment, load: Load, starts: Path) -> None:
    for _ in range(load.workers):
        await stack.enter_async_context(
            running_worker(
                deployment,
                module=("benchmarks.waiting_worker", f"{load.wait}", f"{starts}"),
                MEMORO_WORKER_CONCURRENCY=f"{load.concurrency}",
                # They warn of jobs that are gone from under them when a backlog is dropped.
                MEMORO_LOG_LEVEL="error",
            )
        )


async def _phase(owner: Owner, endpoint: str, light: Account, heavy: Account, starts: Path, seconds: float) -> Phase:
    await asyncio.sleep(_SETTLE)
    async with AsyncClient(endpoint, api_key=light.api_key) as client:
        await _add(client, _FIRST)
        began, ended = time.monotonic(), await _ended(owner, heavy)
        jobs = await _add(client, round(seconds / _PAUSE))
        took, done = time.monotonic() - began, await _ended(owner, heavy) - ended
        left: int = await owner.fetchval(
            "SELECT count(*) FROM jobs WHERE tenant_id = $1 AND state = 'QUEUED'", heavy.tenant_id
        )
    try:
        async with asyncio.timeout(_PATIENCE):
            while await count_unended(owner, light.tenant_id):
                await asyncio.sleep(0.2)
    except TimeoutError:
        pass
    rows = await owner.fetch(
        "SELECT job_id, extract(epoch FROM created_at)::float8 AS accepted FROM jobs WHERE job_id = ANY ($1)", jobs
    )
    now, began_at = time.time(), read_starts(starts)
    times = [(began_at.get(row["job_id"], now) - row["accepted"]) * 1000 for row in rows]
    return Phase(times, len(set(jobs) - began_at.keys()), done / took, left)


async def _ended(owner: Owner, account: Account) -> int:
    count: int = await owner.fetchval(
        "SELECT count(*) FROM jobs WHERE tenant_id = $1 AND ended_at IS NOT NULL", account.tenant_id
    )
    return count


async def _add(client: AsyncClient, count: int) -> Sequence[UUID]:
    """Adds one memory at each tick, whether the one before is accepted or not."""
    calls = []
    began = time.monotonic()
    for number in range(count):
        await asyncio.sleep(max(0.0, began + number * _PAUSE - time.monotonic()))
        call = client.memories.create(user_id=f"user-{number % 10}", text=backlog.TEXT.format(number))
        calls.append(asyncio.create_task(call))
    return [UUID(added.job.id) for added in await asyncio.gather(*calls)]


async def _keep_adding(endpoint: str, account: Account, pause: float) -> None:
    """Adds at this pace, for ever, however long the calls take."""
    async with AsyncClient(endpoint, api_key=account.api_key) as client, asyncio.TaskGroup() as calls:
        for number in itertools.count():
            text = backlog.TEXT.format(number)
            calls.create_task(client.memories.create(user_id=f"user-{number % backlog.USERS}", text=text))
            await asyncio.sleep(pause)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each phase")
    parser.add_argument("--queued", type=int, default=50_000)
    parser.add_argument("--short", type=int, default=100, help="the short queue")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--wait", type=float, default=0.5, help="seconds that each job waits, as for a provider")
    options = parser.parse_args()
    load = Load(options.queued, options.short, options.workers, options.concurrency, options.wait)
    publish(asyncio.run(main(load, options.rounds, options.seconds)))
