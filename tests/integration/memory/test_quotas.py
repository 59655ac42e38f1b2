"""What a tenant has stored is known, and no more is stored than it may."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from pydantic import JsonValue

from memoro_core.errors import MemoroError, Reason
from memoro_core.idempotency import Idempotency
from memoro_core.ids import ConversationId, UserId
from memoro_core.limits.model import Quota, TenantUsage
from memoro_core.llm.model import Operation
from memoro_core.memory.model import MemoryPatch, NewConversation, NewMemory, NewMessage
from memoro_core.memory.ports import Replay, Stored
from tests.support.domain import Domain
from tests.support.job_drafts import draft

ANN = UserId("ann")
EMPTY = len("{}")


async def usage(domain: Domain) -> TenantUsage:
    return await domain.tenancy_store.tenant_usage(domain.tenant)


async def counted(domain: Domain) -> TenantUsage:
    """What there really is."""
    async with domain.database.tenant_tx(domain.tenant) as connection:
        row = await connection.fetchrow(
            "SELECT count(*) AS memories, coalesce(sum(octet_length(text) + octet_length(metadata::text)), 0)::bigint"
            " AS bytes FROM memories"
        )
    assert row is not None
    return TenantUsage(row["memories"], row["bytes"])


async def refused(doing: Any, limit: str) -> None:
    with pytest.raises(MemoroError) as caught:
        await doing
    assert (caught.value.reason, caught.value.metadata["limit"]) == (Reason.QUOTA_EXCEEDED, limit)
    assert caught.value.retry_after is None


def talk(*texts: str) -> NewConversation:
    return NewConversation(ANN, ConversationId("c"), [NewMessage(text) for text in texts])


async def test_all_that_is_stored_changed_and_deleted_is_counted(domain: Domain) -> None:
    chance, memories, tenant = random.Random(5), domain.memories, domain.tenant
    ids = []
    for step in range(40):
        metadata: dict[str, JsonValue] = {"ä": [step, 1.5, None]} if step % 3 else {}
        if step % 4 == 0:
            accepted = await memories.add_conversation(tenant, talk("Zoë", "b" * step or "b"))
            ids += [memory.id for memory in accepted.memories]
        elif step % 4 == 1:
            together = [memories.create(tenant, NewMemory(ANN, f"text {n}", metadata=metadata)) for n in range(5)]
            ids += [one.memory.id for one in await asyncio.gather(*together)]
        elif step % 4 == 2:
            patch = MemoryPatch(text="ü" * step, metadata=metadata)
            await memories.update(tenant, chance.choice(ids), patch)
        else:
            await memories.delete(tenant, ids.pop(chance.randrange(len(ids))))
    assert await usage(domain) == await counted(domain)
    async with domain.database.tenant_tx(tenant) as connection:
        await connection.execute("DELETE FROM memories")
    assert await usage(domain) == TenantUsage(0, 0)


async def test_a_repeated_request_is_counted_once_and_answers_when_all_is_full(domain: Domain) -> None:
    quota, again = Quota(1, None), Idempotency("again", b"same")
    first = await domain.memories.create(domain.tenant, NewMemory(ANN, "a"), idempotency=again, quota=quota)
    await refused(domain.memories.create(domain.tenant, NewMemory(ANN, "b"), quota=quota), "max_memories")
    second = await domain.memories.create(domain.tenant, NewMemory(ANN, "a"), idempotency=again, quota=quota)
    assert second.memory.id == first.memory.id
    assert await usage(domain) == TenantUsage(1, 1 + EMPTY)
    said = Idempotency("said", b"same")
    whole = await domain.memories.add_conversation(domain.tenant, talk("x", "y"), idempotency=said, quota=Quota(3))
    repeated = await domain.memories.add_conversation(domain.tenant, talk("x", "y"), idempotency=said, quota=Quota(3))
    assert [one.id for one in repeated.memories] == [one.id for one in whole.memories]


@pytest.mark.parametrize("fee", [0, 2])
async def test_of_a_batch_each_has_its_own_verdict_in_order(domain: Domain, fee: int) -> None:
    domain.money.prices.set(Operation.EMBED, fee=fee)
    await domain.money.give(domain.tenant, 1000)
    texts = ("a" * 10, "b" * 30, "c" * 10, "d" * 10, "e")
    quota = Quota(None, 2 * (10 + EMPTY) + 3)
    results = await asyncio.gather(
        *(domain.memories.create(domain.tenant, NewMemory(ANN, text), quota=quota) for text in texts),
        return_exceptions=True,
    )
    assert [isinstance(result, MemoroError) for result in results] == [False, True, False, True, False]
    assert await usage(domain) == await counted(domain) == TenantUsage(3, 21 + 3 * EMPTY)
    assert await domain.count("jobs") == 3
    assert len(await domain.money.holds_of(domain.tenant)) == (3 if fee else 0)


@pytest.mark.parametrize("bound", [0, 2])
async def test_a_request_that_comes_twice_at_once_gets_one_answer(domain: Domain, bound: int) -> None:
    await domain.money.give(domain.tenant, 1000)
    known, other = Idempotency("one", b"same"), Idempotency("two", b"same")
    made = [draft(ANN, cost_bound=bound, idempotency=request) for request in (known, known, other, other)]
    for one in made:
        object.__setattr__(one, "quota", Quota(1))
    verdicts = await domain.memory_store.accept(domain.tenant, made)
    assert [type(verdict) for verdict in verdicts] == [Stored, Replay, MemoroError, MemoroError]
    assert await usage(domain) == await counted(domain)
    again = await domain.memory_store.accept(domain.tenant, made)
    assert [type(verdict) for verdict in again] == [Replay, Replay, MemoroError, MemoroError]


@pytest.mark.parametrize("fee", [0, 2])
async def test_a_conversation_is_stored_whole_or_not_at_all(domain: Domain, fee: int) -> None:
    domain.money.prices.set(Operation.EMBED, fee=fee)
    await domain.money.give(domain.tenant, 1000)
    request = Idempotency("said", b"same")
    new = talk("a", "b", "c")
    await refused(
        domain.memories.add_conversation(domain.tenant, new, idempotency=request, quota=Quota(2)), "max_memories"
    )
    assert (await domain.count("memories"), await domain.count("jobs")) == (0, 0)
    assert (await domain.count("idempotency_records"), await domain.count("conversations")) == (0, 0)
    accepted = await domain.memories.add_conversation(domain.tenant, new, idempotency=request, quota=Quota(3))
    assert len(accepted.memories) == 3
    assert await usage(domain) == await counted(domain)


async def test_a_memory_may_not_grow_beyond_but_may_change_and_shrink(domain: Domain) -> None:
    quota, tenant, memories = Quota(None, 10 + EMPTY), domain.tenant, domain.memories
    (memory,) = (await memories.create(tenant, NewMemory(ANN, "a" * 10), quota=quota)).memories
    request = Idempotency("grow", b"same")
    await refused(
        memories.update(tenant, memory.id, MemoryPatch(text="a" * 11), idempotency=request, quota=quota), "max_bytes"
    )
    await refused(memories.update(tenant, memory.id, MemoryPatch(metadata={"a": 1}), quota=quota), "max_bytes")
    assert (await memories.get(tenant, memory.id)).version == 1
    await memories.update(tenant, memory.id, MemoryPatch(text="b" * 10), quota=Quota(1, 5))
    await memories.update(tenant, memory.id, MemoryPatch(text="b" * 9), quota=Quota(1, 5))
    grown = await memories.update(tenant, memory.id, MemoryPatch(text="a" * 10), idempotency=request, quota=quota)
    again = await memories.update(tenant, memory.id, MemoryPatch(text="a" * 10), idempotency=request, quota=Quota(1, 1))
    assert again.memory.version == grown.memory.version
    assert await usage(domain) == await counted(domain)


async def test_what_is_deleted_makes_room(domain: Domain) -> None:
    quota, tenant = Quota(1), domain.tenant
    first = await domain.memories.create(tenant, NewMemory(ANN, "a"), quota=quota)
    await refused(domain.memories.create(tenant, NewMemory(ANN, "b"), quota=quota), "max_memories")
    await domain.memories.delete(tenant, first.memory.id)
    await domain.memories.create(tenant, NewMemory(ANN, "b"), quota=quota)


async def test_tenants_don_t_count_for_each_other(domain: Domain) -> None:
    other = await domain.new_tenant()
    await domain.memories.create(other, NewMemory(ANN, "a"))
    assert await usage(domain) == TenantUsage(0, 0)
    await domain.memories.create(domain.tenant, NewMemory(ANN, "a"), quota=Quota(1))
