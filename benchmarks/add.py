"""`CreateMemory`, every promise kept, against a bare echo: calls that one core of the server can carry.

Each call is paid for: a text costs a fee, so that what the job may cost is set aside in the transaction that stores it.
Beside it the same is measured of calls that cost nothing, and of paid ones that count against a daily budget. Then, in
turns, of a tenant with limits and of one without, next to which they may cost three percent. It is measured by the
processor time that the server's process spends per call, since the generator and PostgreSQL share the machine with it
and would otherwise decide the figure. A spinning process of the lowest class keeps the processor awake, so that commits
don't wait for it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Final

import psutil

from benchmarks.deployment import (
    Account,
    Deployment,
    add_account,
    give_credits,
    open_deployment,
    running,
    running_server,
)
from benchmarks.report import Result, publish, table
from benchmarks.turns import Target, middle, take_turns
from memoro_core.billing.model import DEPLOYMENT, BudgetKey, BudgetScope, Price
from memoro_core.embedded.ports import free_port
from memoro_core.ids import TenantId
from memoro_core.llm.local import LocalEmbeddingProvider
from memoro_core.llm.model import Operation
from memoro_core.postgres.budget_store import PostgresBudgetStore
from memoro_core.postgres.credit_store import PostgresCreditStore
from memoro_core.postgres.database import open_database
from memoro_core.postgres.price_store import PostgresPriceStore

METHOD: Final = "/memoro.v1.MemoryService/CreateMemory"
TARGET: Final = 0.5
LIMITS_TARGET: Final = 0.97
"""What calls with limits reach at least of calls without."""
FEE: Final = 7_500
"""What a text costs while calls are paid for, in micro-credits."""


@dataclass(frozen=True, slots=True)
class Round:
    """One burst of load on one server."""

    calls: int
    per_second: float
    per_core_second: float
    p50_ms: float
    p99_ms: float


async def main(
    rounds: int = 5, seconds: float = 3.0, concurrency: int = 64, turns: int = 40, profile: bool = False
) -> Result:
    """Interleaves bursts on the floor, on Memoro, and on Memoro at no cost and within a budget; the median of each."""
    floor_port = free_port()
    async with (
        open_deployment() as deployment,
        running("benchmarks.echo_server", str(floor_port)) as echo,
        running_server(deployment) as (server, endpoint),
        running("benchmarks.keep_awake"),
    ):
        payer = await add_account(deployment, "payer")
        await give_credits(deployment, payer.tenant_id)
        floor_endpoint, key = f"127.0.0.1:{floor_port}", payer.api_key
        for process, target in ((echo, floor_endpoint), (server, endpoint)):
            await _burst(process, target, key, 1.0, concurrency)
        floors: list[Round] = []
        paid: list[Round] = []
        free: list[Round] = []
        budgeted: list[Round] = []
        for number in range(rounds):
            floors.append(await _burst(echo, floor_endpoint, key, seconds, concurrency))
            kinds = (free, paid, budgeted)
            for kind in kinds if number % 2 else reversed(kinds):
                await _set_budget(deployment, 10**15 if kind is budgeted else None)
                await _set_fee(deployment, 0 if kind is free else FEE)
                kind.append(await _burst(server, endpoint, key, seconds, concurrency))
        await _set_budget(deployment, None)
        await _set_fee(deployment, FEE)
        if profile:
            await _profile(server, endpoint, key, concurrency)
        kept = await _kept(deployment, payer, turns)
        await _check(deployment, payer.tenant_id, paid)

    print(
        table(
            "CreateMemory against a bare echo",
            ("", "calls", "calls/s", "calls per core second", "p50 ms", "p99 ms"),
            [
                _row("echo", floors),
                _row("CreateMemory", paid),
                _row("at no cost", free),
                _row("within a budget", budgeted),
            ],
        )
    )
    print(f"with limits {100 * kept:.1f} % of the calls without; at least {100 * LIMITS_TARGET:.0f} %")
    value, floor = (median(one.per_core_second for one in kind) for kind in (paid, floors))
    return Result("add", value, floor, value / floor, TARGET, value / floor >= TARGET and kept >= LIMITS_TARGET)


async def _kept(deployment: Deployment, payer: Account, turns: int) -> float:
    """What calls with limits reach of those without."""
    unlimited = await add_account(deployment, "unlimited")
    await give_credits(deployment, unlimited.tenant_id)
    module = ("benchmarks.add_server", str(unlimited.tenant_id))
    async with running_server(deployment, module=module) as (process, endpoint):
        targets = {
            name: Target(endpoint, METHOD, process.pid, account.api_key)
            for name, account in (("limited", payer), ("unlimited", unlimited))
        }
        costs = await take_turns(targets, turns=turns, seconds=1.0)
    return middle(costs["unlimited"]) / middle(costs["limited"])


async def _set_fee(deployment: Deployment, fee: int) -> None:
    """What a text costs from now on, once the server knows."""
    now, model = datetime.now(UTC), LocalEmbeddingProvider().model
    price = Price(model.provider, model.name, Operation.EMBED, 0, 0, fee, now)
    async with open_database(deployment.settings) as database:
        await PostgresPriceStore(database).set_price(DEPLOYMENT, price, idempotency=None, now=now)
    await asyncio.sleep(2 * deployment.settings.price_refresh)


async def _set_budget(deployment: Deployment, limit: int | None) -> None:
    """What all tenants together may spend in a day from now on."""
    now = datetime.now(UTC)
    async with open_database(deployment.settings) as database:
        store = PostgresBudgetStore(database)
        await store.set_limit(BudgetKey(BudgetScope.DEPLOYMENT), limit, now.date(), None, now=now)


async def _check(deployment: Deployment, tenant_id: TenantId, paid: Sequence[Round]) -> None:
    """Makes sure that what was measured has kept its promise: a hold for each call, of its fee."""
    async with open_database(deployment.settings) as database:
        account = (await PostgresCreditStore(database).balance(tenant_id)).account
    calls = sum(one.calls for one in paid)
    if account.held < calls * FEE:
        raise RuntimeError(f"{calls} calls were to be paid, and {account.held // FEE} were held for")


def _row(name: str, rounds: Sequence[Round]) -> tuple[str, ...]:
    return (
        name,
        f"{sum(one.calls for one in rounds)}",
        *(
            f"{median(figures):.1f}"
            for figures in zip(
                *((one.per_second, one.per_core_second, one.p50_ms, one.p99_ms) for one in rounds), strict=True
            )
        ),
    )


async def _burst(server: psutil.Process, endpoint: str, key: str, seconds: float, concurrency: int) -> Round:
    """Load for so long, and what it cost the server's process."""
    before = _spent(server)
    generator = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "benchmarks.grpc_load", endpoint, METHOD),
        *("--seconds", str(seconds), "--concurrency", str(concurrency)),
        env={**os.environ, "BENCH_KEY": key},
        stdout=subprocess.PIPE,
    )
    output, _ = await generator.communicate()
    spent = _spent(server) - before
    report = json.loads(output)
    if report["failures"]:
        raise RuntimeError(f"calls failed: {report['failures']}")
    return Round(
        report["calls"],
        report["calls"] / report["seconds"],
        report["calls"] / spent,
        report["p50_ms"],
        report["p99_ms"],
    )


def _spent(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def _profile(server: psutil.Process, endpoint: str, key: str, concurrency: int) -> None:
    """Where the server's time goes, by py-spy: the share of samples whose innermost frame is in each place."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "profile.txt"
        sampler = await asyncio.create_subprocess_exec(
            Path(sys.executable).with_name("py-spy"),
            *("record", "--pid", str(server.pid), "--duration", "5", "--format", "raw"),
            *("--output", str(raw), "--native"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        await asyncio.gather(sampler.wait(), _burst(server, endpoint, key, 5.0, concurrency))
        places: Counter[str] = Counter()
        for line in raw.read_text("utf-8").splitlines():
            stack, _, count = line.rpartition(" ")
            places[stack.rsplit(";", 1)[-1]] += int(count)
    samples = sum(places.values())
    print(
        table(
            "Where the server's time goes",
            ("share", "place"),
            [(f"{100 * count / samples:.1f} %", place) for place, count in places.most_common(25)],
        )
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    publish(asyncio.run(main(options.rounds, options.seconds, options.concurrency, options.turns, options.profile)))
