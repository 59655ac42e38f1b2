"""Jobs that cost something, over the wire: refused without credits, held, charged, deferred, and told of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest_asyncio
from google.rpc import error_details_pb2
from pydantic import SecretStr

from memoro.v1 import admin_service_pb2 as admin
from memoro.v1 import billing_pb2, jobs_pb2, memory_pb2
from memoro.v1 import billing_service_pb2 as billing
from memoro.v1 import jobs_service_pb2 as jobs
from memoro.v1 import memory_service_pb2 as pb
from memoro_core.billing.money import charge
from memoro_core.settings import Settings
from tests.e2e.server.test_billing import balance_of, entries_of
from tests.fakes.openai_server import FakeOpenAI
from tests.support.deployment import LOADING, Caller, Deployment, deployed
from tests.support.domain import fresh_name
from tests.support.interception import Outcome

CREATE, ESTIMATE = "MemoryService/CreateMemory", "BillingService/EstimateCost"
INPUT_PRICE, OUTPUT_PRICE, FEE = 150_000, 600_000, 11
TEXT = "John Doe bought an iPhone 15 from Apple Store."


@dataclass
class Paid:
    """A deployment whose extraction costs something, and a tenant without credits."""

    deployment: Deployment
    operator: Caller
    caller: Caller
    model: str
    provider: FakeOpenAI

    async def price(self, *, input_price: int, output_price: int = 0, fee: int = 0) -> None:
        """Sets what extraction costs, and waits until it is known."""
        await self.operator.ask(
            "AdminService/SetPrice",
            admin.SetPriceRequest(
                provider="openai",
                model=self.model,
                operation=billing_pb2.AI_OPERATION_EXTRACT,
                input_price=input_price,
                output_price=output_price,
                fee=fee,
            ),
        )
        async with asyncio.timeout(2.5):
            while (
                await self.caller.call(ESTIMATE, billing.EstimateCostRequest(create_memory=create()))
            ).code is not grpc.StatusCode.OK:
                await asyncio.sleep(0.05)

    async def give(self, amount: int) -> None:
        request = billing.AddCreditsRequest(tenant_id=str(self.caller.tenant_id), amount=amount)
        await self.operator.ask("BillingService/AddCredits", request)

    async def estimate(self, **fields: Any) -> Any:
        return await self.caller.ask(ESTIMATE, billing.EstimateCostRequest(**(fields or {"create_memory": create()})))


def create(text: str = TEXT, **fields: Any) -> pb.CreateMemoryRequest:
    return pb.CreateMemoryRequest(user_id="john", text=text, **fields)


def sync(**fields: Any) -> pb.CreateMemoryRequest:
    return create(processing_mode=memory_pb2.PROCESSING_MODE_SYNC, **fields)


@pytest_asyncio.fixture
async def unpriced(settings: Settings) -> AsyncIterator[Paid]:
    """With a model of its own, so that no other test's jobs cost anything."""
    model = fresh_name()
    async with FakeOpenAI() as provider:
        own = {
            "extraction_provider": "openai",
            "openai_api_key": SecretStr(provider.api_key),
            "openai_base_url": provider.base_url,
            "openai_extraction_model": model,
            "price_refresh": 0.05,
        }
        async with deployed(settings.model_copy(update=own)) as deployment:
            yield Paid(deployment, await deployment.operator(), await deployment.caller(), model, provider)


@pytest_asyncio.fixture
async def paid(unpriced: Paid) -> Paid:
    await unpriced.price(input_price=INPUT_PRICE, output_price=OUTPUT_PRICE, fee=FEE)
    return unpriced


async def nothing_stored(paid: Paid) -> bool:
    return not any((await paid.deployment.rows(paid.caller.tenant_id)).values())


def refused_for(outcome: Outcome, reason: str) -> bool:
    return (outcome.code, outcome.info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, reason)


async def test_what_has_no_price_is_not_done(unpriced: Paid) -> None:
    estimated = await unpriced.caller.call(ESTIMATE, billing.EstimateCostRequest(create_memory=create()))
    for outcome in (await unpriced.caller.call(CREATE, create(request_id="one")), estimated):
        assert refused_for(outcome, "PRICE_UNKNOWN")
        assert dict(outcome.info.metadata) == {"provider": "openai", "model": unpriced.model, "operation": "extract"}
    assert await nothing_stored(unpriced)


async def test_without_credits_nothing_is_stored_and_the_caller_is_told_what_is_missing(paid: Paid) -> None:
    need = (await paid.estimate()).amount
    await paid.give(need - 1)
    outcome = await paid.caller.call(CREATE, create(request_id="one"))
    tenant_id = str(paid.caller.tenant_id)
    assert refused_for(outcome, "INSUFFICIENT_CREDITS")
    assert dict(outcome.info.metadata) == {"tenant_id": tenant_id, "need": str(need), "have": str(need - 1)}
    (violation,) = outcome.detail(error_details_pb2.PreconditionFailure).violations
    assert (violation.type, violation.subject) == ("CREDITS", tenant_id)
    assert violation.description == f"needs {need} micro-credits, has {need - 1}"
    assert await nothing_stored(paid)
    assert (await balance_of(paid.caller)).held == 0

    # Not even the request id was kept: with enough credits the same call goes through.
    await paid.give(1)
    job = (await paid.caller.ask(CREATE, create(request_id="one"))).job
    assert (job.state, job.cost_bound) == (jobs_pb2.JOB_STATE_QUEUED, need)
    balance = await balance_of(paid.caller)
    assert (balance.available, balance.held) == (0, need)
    # A repeated call holds nothing more.
    assert (await paid.caller.ask(CREATE, create(request_id="one"))).job.id == job.id
    assert await balance_of(paid.caller) == balance
    (hold, *_) = await entries_of(paid.caller)
    assert (hold.kind, hold.job_id, hold.request_id) == (billing_pb2.LEDGER_ENTRY_KIND_HOLD, job.id, "one")


async def test_each_item_of_a_batch_is_paid_on_its_own(paid: Paid) -> None:
    await paid.give((await paid.estimate()).amount)
    items = [create("x" * 40_000), create(), create("y" * 40_000)]
    estimate = await paid.estimate(batch_create_memories=pb.BatchCreateMemoriesRequest(requests=items))
    told = await paid.caller.ask("MemoryService/BatchCreateMemories", pb.BatchCreateMemoriesRequest(requests=items))
    assert [it.WhichOneof("verdict") for it in told.results] == ["error", "created", "error"]
    error = told.results[0].error
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION.value[0], "INSUFFICIENT_CREDITS")
    assert int(error.metadata["have"]) < int(error.metadata["need"])
    assert (await paid.deployment.rows(paid.caller.tenant_id))["memories"] == 1
    bounds = [(await paid.estimate(create_memory=item)).amount for item in items]
    assert estimate.amount == sum(bounds)
    assert told.results[1].created.job.cost_bound == bounds[1]


async def test_a_job_is_charged_for_what_it_used_and_everyone_is_told(paid: Paid) -> None:
    estimate = await paid.estimate()
    (line,) = [it for it in estimate.lines if it.operation == billing_pb2.AI_OPERATION_EXTRACT]
    pico_dollars = line.input_tokens * INPUT_PRICE + line.output_tokens * OUTPUT_PRICE
    assert (line.provider, line.model, line.items) == ("openai", paid.model, 1)
    assert line.cost_nano_dollars == -(-pico_dollars // 1_000)
    assert estimate.amount == charge(pico_dollars, FEE, margin_basis_points=estimate.margin_basis_points)

    await paid.give(10**9)
    assert (await paid.estimate()).available == 10**9
    following = paid.caller.stream("JobsService/WatchJobs", jobs.WatchJobsRequest())
    assert (await following.read()).HasField("heartbeat")
    job = (await paid.caller.ask(CREATE, sync(), timeout=LOADING)).job
    assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED
    usage = await paid.caller.ask("BillingService/GetUsage", billing.GetUsageRequest())
    (row,) = [it for it in usage.rows if it.provider == "openai"]
    cost = row.input_tokens * INPUT_PRICE + row.output_tokens * OUTPUT_PRICE
    due = charge(cost, FEE, margin_basis_points=estimate.margin_basis_points)
    assert 0 < due < estimate.amount == job.cost_bound
    assert (row.model, row.calls, row.items, row.cost_nano_dollars) == (paid.model, 1, 1, -(-cost // 1_000))
    assert job.usage.charged == due
    assert usage.charged == due
    balance = await balance_of(paid.caller)
    assert (balance.available, balance.held, balance.spent) == (10**9 - due, 0, due)

    settled, held = await entries_of(paid.caller, job_id=job.id)
    assert (held.kind, settled.kind) == (
        billing_pb2.LEDGER_ENTRY_KIND_HOLD,
        billing_pb2.LEDGER_ENTRY_KIND_SETTLEMENT,
    )
    assert (settled.available_after, settled.held_after) == (10**9 - due, 0)
    watching = paid.caller.stream("JobsService/WatchJob", jobs.WatchJobRequest(job_id=job.id))
    snapshot, end = [message async for message in watching]
    assert (snapshot.snapshot.usage.charged, end.update.usage.charged) == (due, due)
    while (update := (await following.read()).update).state != jobs_pb2.JOB_STATE_SUCCEEDED:
        assert update.usage.charged == 0
    assert update.usage.charged == due
    following.cancel()
    costs = await paid.operator.ask("AdminService/GetAiCosts", admin.GetAiCostsRequest(tenant_id=balance.tenant_id))
    house = {posting.account: posting.amount for posting in costs.house}
    assert house[billing_pb2.LEDGER_ACCOUNT_PROVIDER_COST] == -(-cost // 10_000)
    assert sum(house[account] for account in house if account != billing_pb2.LEDGER_ACCOUNT_GRANTED) == due
    verify = admin.VerifyLedgerRequest(tenant_id=balance.tenant_id)
    assert (await paid.operator.ask("AdminService/VerifyLedger", verify)).valid


async def test_five_hundred_tokens_at_a_hundredth_of_a_cent_a_thousand_cost_7500_micro_credits(
    unpriced: Paid,
) -> None:
    """$0.00005, and half of it on top: $0.000075."""
    unpriced.provider.tokens_of = lambda _: 500
    await unpriced.price(input_price=100_000)
    await unpriced.give(10**9)
    job = (await unpriced.caller.ask(CREATE, sync(), timeout=LOADING)).job
    assert (job.usage.input_tokens >= 500, job.usage.charged) == (True, 7_500)
    settled, _ = await entries_of(unpriced.caller, job_id=job.id)
    moved = {posting.account: posting.amount for posting in settled.postings}
    assert moved[billing_pb2.LEDGER_ACCOUNT_PROVIDER_COST] == 5_000
    assert moved[billing_pb2.LEDGER_ACCOUNT_REVENUE] == 2_500
    assert settled.available_after == 10**9 - 7_500


async def test_over_its_budget_a_job_is_put_off_and_holds_nothing(paid: Paid) -> None:
    await paid.give(10**9)
    tenant_id = str(paid.caller.tenant_id)
    need = (await paid.estimate()).amount
    scope = billing_pb2.BUDGET_SCOPE_TENANT
    await paid.operator.ask(
        "AdminService/SetBudget", admin.SetBudgetRequest(scope=scope, tenant_id=tenant_id, limit=need)
    )
    first, second = [(await paid.caller.ask(CREATE, create())).job for _ in range(2)]
    assert (first.state, second.state) == (jobs_pb2.JOB_STATE_QUEUED, jobs_pb2.JOB_STATE_DEFERRED)
    day_end = datetime.combine(datetime.now(UTC).date() + timedelta(days=1), datetime.min.time(), UTC)
    assert second.run_time.ToDatetime(UTC) == day_end
    assert second.cost_bound == need
    assert (await balance_of(paid.caller)).held == need

    told = await paid.operator.ask(
        "AdminService/GetCircuitBreaker", admin.GetCircuitBreakerRequest(tenant_id=tenant_id)
    )
    (breaker,) = [it for it in told.breakers if it.tenant_id == tenant_id]
    assert (breaker.state, breaker.deferred_jobs) == (billing_pb2.BREAKER_STATE_OPEN, 1)
    assert (breaker.reserved, breaker.limit, breaker.percent_used) == (need, need, 100.0)
    assert breaker.HasField("open_time")
    reset = await paid.operator.ask(
        "AdminService/ResetCircuitBreaker", admin.ResetCircuitBreakerRequest(scope=scope, tenant_id=tenant_id)
    )
    assert (reset.breaker.state, reset.breaker.limit) == (billing_pb2.BREAKER_STATE_HALF_OPEN, 2 * need)
