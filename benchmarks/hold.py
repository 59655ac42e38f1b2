"""Holds on one account: how many a process sets aside in a second for callers that all come at once.

Memoro: each caller asks for a job of its own and gets a verdict of its own; those that ask while a transaction is under
way go into the next one together. Floor: the same holds, each in a transaction of its own, over as many connections as
the pool has. Both are durable when they are told, and both end in the same ledger, which is verified at the end. A
spinning process of the lowest class keeps the processor awake, so that commits don't wait for it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import Final

import uvloop

from benchmarks.deployment import add_account, open_deployment, running
from benchmarks.report import Result, percentile, publish, table
from memoro_core.batching import Coalescer
from memoro_core.billing.calendar import Calendar
from memoro_core.billing.model import BudgetKey, BudgetScope, Cause, Grant, Held, HoldRequest, HoldVerdict
from memoro_core.ids import GrantId, JobId, TenantId, UserId, new_id
from memoro_core.postgres.budget_store import PostgresBudgetStore
from memoro_core.postgres.credit_holds import CreditHolds
from memoro_core.postgres.credit_store import PostgresCreditStore
from memoro_core.postgres.database import Database, open_database

TARGET: Final = 10.0
PER_SECOND: Final = 20_000.0
"""The second bar: holds in a second, by the clock."""
BOUND: Final = 7_500
BATCH: Final = 2_000
_VERIFY_WITHIN: Final = 120.0

Hold = Callable[[HoldRequest], Awaitable[HoldVerdict]]


@dataclass(frozen=True, slots=True)
class Rate:
    """What a burst came to: holds in a second, and how long callers waited, in milliseconds."""

    per_second: float
    milliseconds: Sequence[float]


@dataclass(frozen=True, slots=True)
class Account:
    """One tenant's account, and both ways to set something aside in it."""

    database: Database
    tenant_id: TenantId
    holds: CreditHolds

    async def hold_all(self, tenant_id: TenantId, requests: Sequence[HoldRequest]) -> Sequence[HoldVerdict]:
        async with self.database.tenant_tx(tenant_id) as connection:
            return await self.holds.hold_in(connection, tenant_id, requests, now=datetime.now(UTC))

    async def hold_one(self, request: HoldRequest) -> HoldVerdict:
        [verdict] = await self.hold_all(self.tenant_id, [request])
        return verdict


async def main(rounds: int = 5, holds: int = 40_000, floor_holds: int = 3_000, callers: int = 4_000) -> Result:
    """Interleaves bursts on the floor and on Memoro; the median of each."""
    async with open_deployment() as deployment, running("benchmarks.keep_awake"):
        tenant_id = (await add_account(deployment, "holds")).tenant_id
        async with open_database(deployment.settings) as database:
            store = PostgresCreditStore(database)
            now = datetime.now(UTC)
            grant = Grant(GrantId(new_id()), 10**15, 10**15, 0, None, "", now)
            await store.add_credits(tenant_id, grant, Cause(), None, now=now)
            account = Account(database, tenant_id, CreditHolds(Calendar(UTC), margin_basis_points=5_000))
            coalescer: Coalescer[TenantId, HoldRequest, HoldVerdict] = Coalescer(account.hold_all, max_items=BATCH)

            async def hold(request: HoldRequest) -> HoldVerdict:
                return await coalescer.submit(tenant_id, request)

            await _burst(hold, holds // 4, callers)
            floors: list[Rate] = []
            values: list[Rate] = []
            for _ in range(rounds):
                floors.append(await _burst(account.hold_one, floor_holds, deployment.settings.database_pool_size))
                values.append(await _burst(hold, holds, callers))
            budgeted = await _within_budget(database, hold, holds, callers)
            await coalescer.close()
            verification = await store.verify(tenant_id, within=_VERIFY_WITHIN)
    rows = [
        [
            f"{floor.per_second:,.0f}",
            f"{value.per_second:,.0f}",
            f"{value.per_second / floor.per_second:.1f}",
            f"{percentile(floor.milliseconds, 99):.1f}",
            f"{percentile(value.milliseconds, 50):.1f}",
            f"{percentile(value.milliseconds, 99):.1f}",
        ]
        for floor, value in zip(floors, values, strict=True)
    ]
    header = (
        "one by one, per second",
        "Memoro",
        "ratio",
        "one by one: p99, ms",
        f"{callers} callers: p50, ms",
        "p99, ms",
    )
    print(table(f"holds on one account, {callers} callers", header, rows))
    print(
        f"with a budget of the deployment: {budgeted.per_second:,.0f} per second, "
        f"p99 {percentile(budgeted.milliseconds, 99):.1f} ms"
    )
    print(f"{verification.entries:,} entries of the ledger checked: {verification.problem or 'nothing is wrong'}\n")
    floor, value = (median(rate.per_second for rate in rates) for rates in (floors, values))
    ratio = value / floor
    passed = ratio >= TARGET and value >= PER_SECOND and verification.valid
    result = Result("hold", value, floor, ratio, TARGET, passed)
    publish(result)
    return result


async def _within_budget(database: Database, hold: Hold, holds: int, callers: int) -> Rate:
    """The same while a daily budget counts all that is held; told, and no part of the figure."""
    store, now = PostgresBudgetStore(database), datetime.now(UTC)
    key = BudgetKey(BudgetScope.DEPLOYMENT)
    await store.set_limit(key, 10**15, now.date(), None, now=now)
    try:
        return await _burst(hold, holds, callers)
    finally:
        await store.set_limit(key, None, now.date(), None, now=now)


async def _burst(hold: Hold, holds: int, callers: int) -> Rate:
    """So many holds by so many callers, each of whom asks again when it has its verdict."""
    requests = iter([HoldRequest(JobId(new_id()), UserId(f"user-{number % 50}"), BOUND) for number in range(holds)])
    milliseconds: list[float] = []
    # What the benchmark itself has made is not to be looked through again and again while it measures.
    gc.collect()
    gc.freeze()

    async def call() -> None:
        for request in requests:
            asked = time.perf_counter()
            verdict = await hold(request)
            milliseconds.append((time.perf_counter() - asked) * 1000)
            assert isinstance(verdict, Held)

    started = time.perf_counter()
    await asyncio.gather(*(call() for _ in range(callers)))
    return Rate(holds / (time.perf_counter() - started), milliseconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--holds", type=int, default=40_000)
    parser.add_argument("--floor-holds", type=int, default=3_000)
    parser.add_argument("--callers", type=int, default=4_000)
    options = parser.parse_args()
    uvloop.run(main(options.rounds, options.holds, options.floor_holds, options.callers))
