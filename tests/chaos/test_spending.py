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
from random import Random
from typing import Any

import pytest
import pytest_asyncio
from asyncpg import Record
from pydantic_core import from_json

from memoro_core.billing.money import PICO_DOLLARS_PER_MICRO_CREDIT, ceiling, charge
from memoro_core.postgres.credit_store import PostgresCreditStore
from tests.chaos.conftest import SEED
from tests.fakes.openai_server import FakeOpenAI
from tests.support.doomed_scene import CREDITS, EMBEDDING, EXTRACTION, MARGIN, Scene, open_scene
from tests.support.jobs import until

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.slow,
    pytest.mark.timeout(300),
]

KILLS = 100
DOOMED = 3
UNDER_WAY = 24
"""Jobs that have not ended, as long as workers die."""
PRICES = {EMBEDDING: (20_000, 0), EXTRACTION: (150_000, 600_000)}
"""What the provider charges by its own price list, in pico-dollars a token."""


@pytest_asyncio.fixture
async def scene() -> AsyncIterator[Scene]:
    print(f"MEMORO_CHAOS_SEED={SEED}")  # shown with what fails
    async with open_scene(Random(SEED), kills=KILLS, tenants=2) as opened:
        yield opened


async def accept(scene: Scene) -> None:
    """One more job. All texts have one length, so that the shares of those in one request are exact."""
    number = scene.accepted
    text = f"Maria number {number:05d} works at Acme in Lyon."
    await scene.accept(scene.random.choice(scene.tenants), f"user-{number % 7}", text)


async def test_a_hundred_workers_die_and_every_job_is_charged_once_for_what_was_spent(scene: Scene) -> None:
    workers, provider = scene.workers, scene.provider
    await scene.start(DOOMED)
    provider.watch = workers.watch
    while workers.left:
        while await scene.under_way() < UNDER_WAY and workers.left:
            await asyncio.gather(*(accept(scene) for _ in range(8)))
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
