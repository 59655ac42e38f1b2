"""Workers are killed a hundred times between a provider's answers and the settlement, and no money goes astray.

What is knowable, and what is not: a call is written down just before its request goes out, and again when its answer is
there. A worker that dies between leaves a call of which nobody knows whether it reached the provider. It is presumed to
have been made, at what the same call cost when it was made again: the house never pays for what a tenant had done. So
the books may be ahead of the provider's bill by calls that died in the few instructions between the commit and the
request, never behind it; by exactly which, only the provider can tell, and here it does.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest
import pytest_asyncio
from asyncpg import Record
from pydantic_core import from_json

from memoro_core.billing.model import Cause, Grant
from memoro_core.billing.money import PICO_DOLLARS_PER_MICRO_CREDIT, ceiling, charge
from memoro_core.container import Container, open_container
from memoro_core.ids import GrantId, TenantId, UserId, new_id
from memoro_core.memory.model import NewMemory
from memoro_core.postgres.credit_store import PostgresCreditStore
from memoro_core.postgres.leader import SCHEDULER_LOCK
from memoro_core.postgres.tenancy_store import PostgresTenancyStore
from memoro_core.settings import Settings
from tests.chaos.conftest import SEED
from tests.fakes.openai_server import FakeOpenAI
from tests.support.chaos import Owner
from tests.support.domain import make_tenant
from tests.support.doomed_workers import DoomedWorkers, open_doomed_workers
from tests.support.jobs import until
from tests.support.stacks import temporary_data_dir, temporary_stack

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.slow,
    pytest.mark.timeout(180),
]

KILLS = 100
DOOMED = 3
UNDER_WAY = 24
"""Jobs that have not ended, as long as workers die."""
MARGIN = 5_000
CREDITS = 10**12
EMBEDDING, EXTRACTION = "text-embedding-3-small", "gpt-4o-mini"
PRICES = {EMBEDDING: (20_000, 0), EXTRACTION: (150_000, 600_000)}
"""What the provider charges by its own price list, in pico-dollars a token."""


@dataclass
class Scene:
    """A deployment whose provider sends bills, and what there is to kill."""

    container: Container
    provider: FakeOpenAI
    workers: DoomedWorkers
    owner: Owner
    tenants: Sequence[TenantId]
    random: Random
    log: Path
    accepted: int = 0

    async def accept(self) -> None:
        """One more job. All texts have one length, so that the shares of those in one request are exact."""
        number, self.accepted = self.accepted, self.accepted + 1
        text = f"Maria number {number:05d} works at Acme in Lyon."
        new = NewMemory(UserId(f"user-{number % 7}"), text)
        await self.container.memories.create(self.random.choice(self.tenants), new)

    async def under_way(self) -> int:
        """How many jobs have not ended."""
        count: int = await self.owner.fetchval("SELECT count(*) FROM jobs WHERE ended_at IS NULL")
        return count


@pytest_asyncio.fixture
async def scene() -> AsyncIterator[Scene]:
    print(f"MEMORO_CHAOS_SEED={SEED}")  # shown with what fails
    lots = Random(SEED)
    async with AsyncExitStack() as opened:
        stack = await opened.enter_async_context(temporary_stack(durable=False))
        log = opened.enter_context(temporary_data_dir()) / "workers.log"
        provider = await opened.enter_async_context(FakeOpenAI(dimensions=64))
        provider.any_key = True
        settings = Settings.model_validate(
            {
                "database_url": stack.database_url,
                "redis_url": stack.redis_url,
                "worker_ops_port": 0,
                "worker_concurrency": 6,
                "job_lease": 0.9,
                "job_heartbeat": 0.3,
                "job_max_attempts": 100,
                "job_retry_base": 0.05,
                "job_retry_max": 0.2,
                "hint_timeout": 1.0,
                "scheduler_interval": 0.1,
                "embedding_provider": "openai",
                "extraction_provider": "openai",
                "openai_api_key": "nobody",
                "openai_base_url": provider.base_url,
                "openai_embedding_model": EMBEDDING,
                "openai_embedding_dimensions": 64,
                "openai_extraction_model": EXTRACTION,
                "openai_timeout": 5.0,
                "margin_basis_points": MARGIN,
            }
        )
        container = await opened.enter_async_context(open_container(settings))
        workers = await opened.enter_async_context(open_doomed_workers(settings, log, kills=KILLS, lots=lots))
        owner = Owner(stack.owner_url)
        opened.push_async_callback(owner.close)
        tenants = [await make_tenant(PostgresTenancyStore(container.database)) for _ in range(2)]
        credits, now = PostgresCreditStore(container.database), datetime.now(UTC)
        for tenant in tenants:
            grant = Grant(GrantId(new_id()), CREDITS, CREDITS, 0, None, "", now)
            await credits.add_credits(tenant, grant, Cause(), None, now=now)
        yield Scene(container, provider, workers, owner, tenants, lots, log)


async def test_a_hundred_workers_die_and_every_job_is_charged_once_for_what_was_spent(scene: Scene) -> None:
    workers, provider = scene.workers, scene.provider
    # The one that schedules lives, since only who sees a lease out for a while takes the job away.
    await workers.start(MEMORO_WORKER_CONCURRENCY="1")
    await until(lambda: leads(scene))
    for _ in range(DOOMED):
        await workers.start_doomed()
    provider.watch = workers.watch
    while workers.left:
        while await scene.under_way() < UNDER_WAY and workers.left:
            await asyncio.gather(*(scene.accept() for _ in range(8)))
        await asyncio.sleep(0.05)
    await workers.settle()
    await until(lambda: all_ended(scene))
    assert workers.killed == KILLS
    rows = await scene.owner.fetch(
        """
        SELECT ai_calls.*, ai_calls.cost_pico_dollars AS cost, jobs.state AS job_state, memories.text
        FROM ai_calls
        JOIN jobs USING (tenant_id, job_id)
        JOIN memories ON memories.tenant_id = jobs.tenant_id AND memories.memory_id = jobs.memory_ids[1]
        """
    )
    unsent = check_calls(rows, provider)
    house = sum(row["cost"] for row in rows)
    bill = provider.bill(PRICES)
    # To the pico-dollar: the books are the provider's bill, and calls of which only the provider knows that none came.
    assert house == bill + sum(unsent.values())
    await check_ledger(scene, rows)
    presumed = sum(row["state"] == "PRESUMED" for row in rows)
    print(f"{scene.accepted} jobs, {len(rows)} calls, {presumed} presumed, of which {len(unsent)} never left")
    # The kills did hit what they were meant for.
    assert presumed - len(unsent) >= KILLS // 4


async def leads(scene: Scene) -> bool:
    """Whether a worker schedules."""
    held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND objid = $1"
    return bool(await scene.owner.fetchval(held, SCHEDULER_LOCK))


async def all_ended(scene: Scene) -> bool:
    """Whether there is nothing left to do."""
    return await scene.under_way() == 0


def check_calls(rows: Sequence[Record], provider: FakeOpenAI) -> Mapping[Any, int]:
    """Compares the calls of each text with the bills for it; what is presumed and never reached the provider."""
    billed: Counter[tuple[str, str]] = Counter()
    for bill in provider.bills:
        for asked in bill.texts:
            text = from_json(asked)["text"] if bill.kind == "chat" else asked
            billed["extract" if bill.kind == "chat" else "embed", text] += 1
    written: defaultdict[tuple[str, str], list[Record]] = defaultdict(list)
    for row in rows:
        written[row["operation"], row["text"]].append(row)
    assert billed.keys() <= written.keys()
    unsent: dict[Any, int] = {}
    for key, calls in written.items():
        answered = [call for call in calls if call["state"] == "DONE" and not call["failed"]]
        lost = [call for call in calls if call["state"] == "PRESUMED"]
        # A job that succeeded has made each of its calls well, at least once, and each costs the same.
        assert answered, key
        assert {call["job_state"] for call in calls} == {"SUCCEEDED"}
        assert len({call["cost"] for call in [*answered, *lost]}) == 1, key
        assert all(call["state"] != "OPEN" for call in calls), key
        # Never a loss: whatever the provider charges for is in the books.
        assert len(answered) <= billed[key] <= len(answered) + len(lost), (key, calls)
        for number in range(len(answered) + len(lost) - billed[key]):
            unsent[key, number] = answered[0]["cost"]
    return unsent


async def check_ledger(scene: Scene, rows: Sequence[Record]) -> None:
    """Every job has one hold, which was settled once, for what its calls cost; the accounts and the house agree."""
    cost: Counter[Any] = Counter()
    for row in rows:
        cost[row["job_id"]] += row["cost"]
    jobs = {row["job_id"]: row for row in await scene.owner.fetch("SELECT * FROM jobs")}
    assert len(jobs) == scene.accepted
    entries = defaultdict(list)
    for entry in await scene.owner.fetch("SELECT * FROM ledger_entries WHERE job_id IS NOT NULL ORDER BY seq"):
        entries[entry["job_id"]].append(entry)
    for job_id, job in jobs.items():
        kinds = [entry["kind"] for entry in entries[job_id]]
        assert (kinds[0], kinds[-1]) == ("HOLD", "SETTLEMENT"), kinds
        assert set(kinds[1:-1]) <= {"EXTENSION"}, kinds
        end = entries[job_id][-1]
        charged = charge(cost[job_id], 0, margin_basis_points=MARGIN)
        assert job["charged"] == charged == sum(entry["held"] for entry in entries[job_id][:-1]) - end["available"]
        assert (end["provider_cost"], end["loss"]) == (ceiling(cost[job_id], PICO_DOLLARS_PER_MICRO_CREDIT), 0)
    assert await scene.owner.fetchval("SELECT count(*) FROM credit_holds WHERE state <> 'CAPTURED'") == 0
    for account in await scene.owner.fetch("SELECT * FROM credit_accounts"):
        spent = sum(job["charged"] for job in jobs.values() if job["tenant_id"] == account["tenant_id"])
        assert (account["held"], account["spent"]) == (0, spent)
        assert account["available"] == CREDITS - spent
    for tenant in scene.tenants:
        verified = await PostgresCreditStore(scene.container.database).verify(tenant, within=30.0)
        assert verified.valid, verified
