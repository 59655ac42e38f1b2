"""Which accepted jobs workers are told of at once, and which wait for the scheduler."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from memoro_core.ids import ConversationId, UserId, new_id
from memoro_core.jobs.model import JobRef
from memoro_core.memory.model import (
    MemoryPatch,
    NewConversation,
    NewMemory,
    NewMessage,
    ProcessingMode,
)
from memoro_core.memory.ports import Draft, Stored
from memoro_core.postgres.queries import load_queries
from tests.support.domain import Domain, fresh_name
from tests.support.job_drafts import draft
from tests.support.jobs import claim

ALICE, BOB = UserId("alice"), UserId("bob")
SetTier = Callable[..., Awaitable[None]]


@pytest_asyncio.fixture
async def set_tier(domain: Domain, owner_database_url: str) -> AsyncIterator[SetTier]:
    """Puts the test's tenant into a tier of its own with these caps."""
    owner = await asyncpg.connect(owner_database_url)
    name = fresh_name()

    async def set_caps(tenant_in_flight: int, user_in_flight: int, *, paused: bool = False) -> None:
        await owner.execute(
            "INSERT INTO tiers (tier, weight, tenant_in_flight, user_in_flight, queue_paused_at)"
            " VALUES ($1, 1, $2, $3, CASE WHEN $4 THEN now() END)"
            " ON CONFLICT (tier) DO UPDATE SET tenant_in_flight = EXCLUDED.tenant_in_flight,"
            " user_in_flight = EXCLUDED.user_in_flight, queue_paused_at = EXCLUDED.queue_paused_at",
            name,
            tenant_in_flight,
            user_in_flight,
            paused,
        )
        await owner.execute("UPDATE tenants SET tier = $2 WHERE tenant_id = $1", domain.tenant, name)

    try:
        yield set_caps
    finally:
        await owner.execute("UPDATE tenants SET tier = 'pro' WHERE tier = $1", name)
        await owner.execute("DELETE FROM tiers WHERE tier = $1", name)
        await owner.close()


async def waiting(domain: Domain) -> int:
    """Jobs that wait for the scheduler to choose them."""
    async with domain.database.tenant_tx(domain.tenant) as connection:
        count: int = await connection.fetchval("SELECT count(*) FROM jobs WHERE state = 'QUEUED' AND hinted_at IS NULL")
    return count


async def add(domain: Domain, user: UserId = ALICE) -> None:
    await domain.memories.create(domain.tenant, NewMemory(user, "I moved to Lyon."))


async def accept(domain: Domain, drafts: Sequence[Draft]) -> list[bool]:
    """Which of the drafts, stored by one statement, are in flight."""
    verdicts = await domain.memory_store.accept(domain.tenant, drafts)
    assert [isinstance(verdict, Stored) for verdict in verdicts] == [True] * len(drafts)
    return [verdict.in_flight for verdict in verdicts if isinstance(verdict, Stored)]


async def test_a_user_beyond_the_cap_waits_and_leaves_room_for_others(domain: Domain, set_tier: SetTier) -> None:
    await set_tier(5, 2)
    for _ in range(4):
        await add(domain)
    await add(domain, BOB)
    assert len(domain.hinted) == 3
    assert await waiting(domain) == 2


async def test_a_tenant_beyond_the_cap_waits(domain: Domain, set_tier: SetTier) -> None:
    await set_tier(3, 2)
    for user in (ALICE, ALICE, BOB, BOB, UserId("carol")):
        await add(domain, user)
    assert len(domain.hinted) == 3


async def test_a_running_job_takes_room_and_an_ended_one_does_not(domain: Domain, set_tier: SetTier) -> None:
    await set_tier(1, 1)
    await add(domain)
    await claim(domain.run_store, domain.hinted[0])
    await add(domain)
    assert len(domain.hinted) == 1
    other = await domain.job_store.cancel(domain.tenant, domain.hinted[0].job_id, now=datetime.now(UTC))
    assert other is not None
    await add(domain)
    assert len(domain.hinted) == 1
    async with domain.database.tenant_tx(domain.tenant) as connection:
        await connection.execute(
            "UPDATE jobs SET state = 'SUCCEEDED', ended_at = now(), lease_expires_at = NULL WHERE job_id = $1",
            domain.hinted[0].job_id,
        )
    await add(domain)
    assert len(domain.hinted) == 2


async def test_while_the_queue_is_paused_no_job_is_hinted(domain: Domain, set_tier: SetTier) -> None:
    await set_tier(5, 5, paused=True)
    await add(domain)
    made = await domain.memories.add_conversation(
        domain.tenant, NewConversation(ALICE, ConversationId("talk"), [NewMessage("hello")])
    )
    await domain.memories.update(domain.tenant, made.memory.id, MemoryPatch(text="other words"))
    assert not domain.hinted
    assert await waiting(domain) == 3


async def test_conversations_and_updates_count_and_wait_as_texts_do(domain: Domain, set_tier: SetTier) -> None:
    await set_tier(10, 2)
    talk = NewConversation(ALICE, ConversationId("talk"), [NewMessage("hello"), NewMessage("again")])
    made = await domain.memories.add_conversation(domain.tenant, talk)
    await domain.memories.update(domain.tenant, made.memory.id, MemoryPatch(text="other words"))
    assert len(domain.hinted) == 2
    await domain.memories.add_conversation(domain.tenant, talk)
    await domain.memories.update(domain.tenant, made.memory.id, MemoryPatch(text="yet other words"))
    assert len(domain.hinted) == 2
    assert await waiting(domain) == 2


async def test_a_change_of_metadata_hints_nothing(domain: Domain) -> None:
    made = await domain.memories.create(domain.tenant, NewMemory(ALICE, "I moved to Lyon."))
    await domain.memories.update(domain.tenant, made.memory.id, MemoryPatch(metadata={"k": 1}))
    assert len(domain.hinted) == 1


async def test_what_the_call_runs_itself_is_not_hinted_and_not_left_to_the_scheduler(
    domain: Domain, set_tier: SetTier
) -> None:
    await set_tier(1, 1, paused=True)
    for _ in range(2):
        with pytest.raises(NotImplementedError):
            await domain.memories.create(domain.tenant, NewMemory(ALICE, "now"), processing=ProcessingMode.SYNC)
    assert not domain.hinted
    assert await waiting(domain) == 0


async def test_what_comes_together_shares_the_room_in_order(domain: Domain, set_tier: SetTier) -> None:
    await set_tier(4, 2)
    drafts = [draft(UserId(name)) for name in ("a", "a", "a", "b", "b", "b", "c")]
    assert await accept(domain, drafts) == [True, True, False, True, True, False, False]


@pytest.mark.parametrize("seed", range(8))
async def test_the_verdicts_are_those_of_counting_one_by_one(domain: Domain, set_tier: SetTier, seed: int) -> None:
    chance = random.Random(seed)
    tenant_cap, user_cap = chance.randint(1, 20), chance.randint(1, 8)
    await set_tier(tenant_cap, user_cap)
    of_user: Counter[UserId] = Counter()
    for _ in range(4):
        drafts = [
            draft(UserId(chance.choice("abcd")), run_by_caller=chance.random() < 0.1)
            for _ in range(chance.randint(1, 12))
        ]
        # What callers run takes its room whether there is any or not, before the others are looked at.
        own = Counter(one.job.user_id for one in drafts if one.run_by_caller)
        of_user.update(own)
        expected = []
        for one in drafts:
            user = one.job.user_id
            room = one.run_by_caller or (of_user[user] < user_cap and of_user.total() < tenant_cap)
            if room and not one.run_by_caller:
                of_user[user] += 1
            expected.append(room)
        assert await accept(domain, drafts) == expected, f"seed {seed}"


async def test_concurrent_calls_hint_what_was_stored_in_flight(domain: Domain, set_tier: SetTier) -> None:
    await set_tier(7, 7)
    await asyncio.gather(*(add(domain) for _ in range(30)))
    async with domain.database.tenant_tx(domain.tenant) as connection:
        rows = await connection.fetch("SELECT job_id FROM jobs WHERE in_flight")
    assert set(domain.hinted) == {JobRef(domain.tenant, row["job_id"]) for row in rows}
    assert len(domain.hinted) == 7


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for part in plan.get("Plans", ()) for node in nodes(part))]


@pytest.mark.parametrize("in_flight", [60, 600])
@pytest.mark.parametrize("analyzed", [False, True])
async def test_a_backlog_costs_an_add_nothing(
    domain: Domain, set_tier: SetTier, owner_database_url: str, *, analyzed: bool, in_flight: int
) -> None:
    """Of 50,000 jobs that wait and many in flight, at most the caps' worth is read, whatever the planner has seen."""
    queue = (
        "INSERT INTO jobs (tenant_id, job_id, kind, state, priority, user_id, memory_ids, stages, max_attempts, run_at,"
        " hinted_at, last_seq, created_at) SELECT current_tenant(), gen_random_uuid(), 'memory.enrich', 'QUEUED', 2,"
        " 'u' || n % 3, '{}', '[]', 3, now(), CASE WHEN $2 THEN now() END, 1, now() FROM generate_series(1, $1) AS n"
    )
    await set_tier(64, 16)
    owner = await asyncpg.connect(owner_database_url)
    try:
        async with domain.database.tenant_tx(domain.tenant) as connection:
            await connection.execute(queue, 50_000, False, timeout=120)
            await connection.execute(queue, in_flight, True)
        if analyzed:
            await owner.execute("ANALYZE jobs", timeout=120)
        ids = [[new_id() for _ in range(64)] for _ in range(2)]
        at = [datetime.now(UTC)] * 64
        users = [f"u{n % 10}" for n in range(64)]
        texts, nothing = ["text"] * 64, [None] * 64
        arguments = (domain.tenant, at, *ids, users, texts, [b"hash"] * 64, [{}] * 64, at, [2] * 64, nothing, nothing)
        explain = "EXPLAIN (ANALYZE, FORMAT JSON) " + load_queries("memories")["accept"]
        async with domain.database.tenant_tx(domain.tenant) as connection:
            text = await connection.fetchval(
                explain, *arguments, [], 3, [{}] * 64, [False] * 64, nothing, [0] * 64, nothing, nothing
            )
        reads = [node for node in nodes(json.loads(text)[0]["Plan"]) if node.get("Relation Name") == "jobs"]
        scans = [node for node in reads if node["Node Type"] != "ModifyTable"]
        assert {node.get("Index Name") for node in scans} == {"jobs_in_flight"}
        # 64 of the tenant, and 16 of each of three busy users.
        assert sum(node["Actual Rows"] * node["Actual Loops"] for node in scans) <= 64 + 3 * 16
    finally:
        async with domain.database.tenant_tx(domain.tenant) as connection:
            await connection.execute("DELETE FROM jobs", timeout=120)
        await owner.execute("VACUUM ANALYZE jobs", timeout=120)
        await owner.close()
