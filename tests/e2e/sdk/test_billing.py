"""Paying through the SDK, against a whole deployment whose models cost something."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from memoro import (
    AiOperation,
    AsyncClient,
    BreakerState,
    BudgetScope,
    Client,
    InsufficientCredits,
    JobState,
    LedgerAccount,
    LedgerEntryKind,
    MemoryHandle,
    Message,
    NewMemory,
    NotFound,
    PermissionDenied,
    Scope,
    UsageDimension,
)
from tests.support.dev import Dev

pytestmark = pytest.mark.e2e

TEXT = "Anna Keller works at TechCorp."
PLENTY = 100_000_000


@dataclass(frozen=True)
class Payer:
    """A tenant of its own, without credits."""

    tenant_id: str
    key: str
    client: AsyncClient


@pytest_asyncio.fixture
async def operator(priced_dev: Dev) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(priced_dev.endpoint, api_key=priced_dev.admin_key) as connected:
        yield connected


@pytest_asyncio.fixture
async def payer(priced_dev: Dev, operator: AsyncClient) -> AsyncIterator[Payer]:
    tenant = await operator.admin.tenants.create(f"t-{uuid.uuid4().hex[:12]}", tier="enterprise")
    created = await operator.admin.keys.create(tenant.id)
    assert created.secret is not None
    async with AsyncClient(priced_dev.endpoint, api_key=created.secret) as client:
        yield Payer(tenant.id, created.secret, client)


async def test_what_cannot_be_paid_is_refused_and_leaves_nothing(operator: AsyncClient, payer: Payer) -> None:
    client = payer.client
    estimate = await client.billing.estimate(TEXT)
    assert estimate.amount > 0
    assert not estimate.affordable
    request_id = uuid.uuid4().hex
    with pytest.raises(InsufficientCredits) as caught:
        await client.memories.create(user_id="ann", text=TEXT, request_id=request_id)
    assert (caught.value.need, caught.value.have) == (estimate.amount, 0)
    assert [memory async for memory in client.memories.list()] == []
    assert [entry async for entry in client.billing.ledger()] == []
    # Not even the request id was stored: the same call goes through once there are credits, here exactly enough.
    await operator.billing.add_credits(payer.tenant_id, estimate.amount)
    added = await client.memories.create(user_id="ann", text=TEXT, request_id=request_id)
    assert added.job.latest is not None
    assert added.job.latest.cost_bound == estimate.amount
    await added.job.result(timeout=60)


async def test_a_job_is_held_for_settled_and_told_of(operator: AsyncClient, payer: Payer) -> None:
    client = payer.client
    given = await operator.billing.add_credits(payer.tenant_id, PLENTY, note="invoice 7", request_id="invoice-7")
    assert given.balance.available == PLENTY
    # Given once, however often it is asked for.
    again = await operator.billing.add_credits(payer.tenant_id, PLENTY, note="invoice 7", request_id="invoice-7")
    assert again.grant.id == given.grant.id
    added = await client.memories.create(user_id="ann", text=TEXT)
    await added.job.result(timeout=60)
    job = added.job.latest
    assert job is not None
    charged = job.usage.charged
    assert 0 < charged <= job.cost_bound
    assert (await client.jobs.get(job.id)).usage.charged == charged

    balance = await client.billing.balance()
    assert (balance.available, balance.held, balance.spent) == (PLENTY - charged, 0, charged)
    assert [(grant.remaining, grant.note) for grant in balance.grants] == [(PLENTY - charged, "invoice 7")]
    entries = [entry async for entry in client.billing.ledger()]
    kinds = (LedgerEntryKind.SETTLEMENT, LedgerEntryKind.HOLD, LedgerEntryKind.GRANT)
    assert tuple(entry.kind for entry in entries) == kinds
    assert [entry.sequence for entry in entries] == [3, 2, 1]
    assert all(sum(entry.postings.values()) == 0 for entry in entries)
    assert entries[0].postings[LedgerAccount.HELD] == -job.cost_bound
    assert entries[0].postings[LedgerAccount.AVAILABLE] == job.cost_bound - charged
    assert [entry.job_id for entry in entries] == [job.id, job.id, ""]
    held = [entry.sequence async for entry in client.billing.ledger(kinds=[LedgerEntryKind.HOLD], job_id=job.id)]
    assert held == [2]

    usage = await client.billing.usage(group_by=[UsageDimension.OPERATION, UsageDimension.USER])
    assert usage.charged == charged
    assert {(row.operation, row.user_id, row.calls) for row in usage.rows} == {
        (AiOperation.EMBED, "ann", 1),
        (AiOperation.EXTRACT, "ann", 1),
    }
    costs = await operator.admin.ai_costs(tenant_id=payer.tenant_id)
    assert {call.job_id for call in costs.recent_calls} == {job.id}
    assert sum(one.cost_nano_dollars for one in costs.operations) == costs.cost_nano_dollars
    house = LedgerAccount.REVENUE, LedgerAccount.PROVIDER_COST, LedgerAccount.ROUNDING
    assert sum(costs.house.get(account, 0) for account in house) == charged
    proof = await operator.admin.verify_ledger(payer.tenant_id)
    assert (proof.valid, proof.complete, proof.entries, proof.head_hash) == (True, True, 3, entries[0].hash)


async def test_each_item_of_a_batch_has_a_verdict(operator: AsyncClient, payer: Payer) -> None:
    texts = (TEXT, TEXT)
    one = (await payer.client.billing.estimate(TEXT)).amount
    both = (await payer.client.billing.estimate_batch(texts)).amount
    talk = (await payer.client.billing.estimate_conversation([Message(text) for text in texts])).amount
    assert one < both <= 2 * one <= talk + 1
    await operator.billing.add_credits(payer.tenant_id, one)
    paid, refused = await payer.client.memories.create_batch([NewMemory("ann", text) for text in texts])
    assert isinstance(paid, MemoryHandle)
    assert isinstance(refused, InsufficientCredits)
    assert (refused.need, refused.have) == (one, 0)
    await paid.job.result(timeout=60)


async def test_a_budget_that_is_used_up_puts_jobs_off(operator: AsyncClient, payer: Payer) -> None:
    client, tenant_id = payer.client, payer.tenant_id
    with pytest.raises(NotFound):
        await operator.admin.reset_breaker(BudgetScope.TENANT, tenant_id=tenant_id)
    await operator.billing.add_credits(tenant_id, PLENTY)
    bound = (await client.billing.estimate(TEXT)).amount
    set_to = await operator.admin.set_budget(BudgetScope.TENANT, bound, tenant_id=tenant_id)
    assert set_to is not None
    assert (set_to.limit, set_to.state) == (bound, BreakerState.CLOSED)
    first = await client.memories.create(user_id="ann", text=TEXT)
    second = await client.memories.create(user_id="ann", text=TEXT)
    assert second.job.latest is not None
    assert second.job.latest.state is JobState.DEFERRED
    assert second.job.latest.run_time is not None
    await first.job.result(timeout=60)
    breakers = {one.scope: one for one in await operator.admin.breakers(tenant_id)}
    assert breakers[BudgetScope.TENANT].state is BreakerState.OPEN
    assert breakers[BudgetScope.TENANT].deferred_jobs == 1
    reset = await operator.admin.reset_breaker(BudgetScope.TENANT, tenant_id=tenant_id)
    assert reset.limit == 2 * bound
    await second.job.result(timeout=60)
    assert await operator.admin.set_budget(BudgetScope.TENANT, None, tenant_id=tenant_id) is None


async def test_who_may_see_and_set_what(priced_dev: Dev, operator: AsyncClient, payer: Payer) -> None:
    assert (await operator.billing.balance(payer.tenant_id)).tenant_id == payer.tenant_id
    # The key of `memoro dev` has the scope; others see their own tenant only.
    async with AsyncClient(priced_dev.endpoint, api_key=priced_dev.api_key) as other:
        assert (await other.billing.balance()).tenant_id != payer.tenant_id
        with pytest.raises(PermissionDenied):
            await other.billing.balance(payer.tenant_id)
        with pytest.raises(PermissionDenied):
            await other.billing.add_credits(payer.tenant_id, 1)
    created = await operator.admin.keys.create(payer.tenant_id, scopes=[Scope.READ])
    async with AsyncClient(priced_dev.endpoint, api_key=created.secret) as reader:
        assert (await reader.billing.prices()).prices
        with pytest.raises(PermissionDenied) as caught:
            await reader.billing.balance()
        assert caught.value.metadata["scope"] == "billing"
    with pytest.raises(NotFound):
        await operator.billing.add_credits(str(uuid.uuid4()), 1)


async def test_the_blocking_client_pays_too(priced_dev: Dev, operator: AsyncClient, payer: Payer) -> None:
    await operator.billing.add_credits(payer.tenant_id, PLENTY)
    low = await operator.billing.set_balance(payer.tenant_id, available=PLENTY // 2, low_balance=5, note="too much")
    assert (low.available, low.refunded, low.low_balance) == (PLENTY // 2, PLENTY // 2, 5)

    def pay() -> int:
        with Client(priced_dev.endpoint, api_key=payer.key) as client:
            added = client.memories.create(user_id="ann", text=TEXT)
            added.job.result(timeout=60)
            assert added.job.latest is not None
            [settlement] = client.billing.ledger(kinds=[LedgerEntryKind.SETTLEMENT])
            assert settlement.job_id == added.job.id
            assert client.billing.balance().spent == client.billing.usage().charged
            return added.job.latest.usage.charged

    assert await asyncio.to_thread(pay) > 0


async def test_a_test_alert_goes_to_the_log(operator: AsyncClient) -> None:
    results = {result.channel: result for result in await operator.admin.test_alert(message="hello")}
    assert results["log"].delivered
