"""Billing in the SDK: what goes over the wire, and what comes back of it."""

from __future__ import annotations

from datetime import UTC, date, datetime

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from memoro import (
    AiOperation,
    AlertChannelResult,
    AlertSeverity,
    AsyncClient,
    BreakerState,
    BudgetScope,
    Client,
    FailedPrecondition,
    InsufficientCredits,
    JobState,
    LedgerAccount,
    LedgerEntryKind,
    Message,
    NewMemory,
    NotFound,
    PriceUnknown,
    UsageDimension,
)
from memoro.v1 import (
    admin_pb2,
    admin_service_pb2,
    billing_pb2,
    jobs_pb2,
    jobs_service_pb2,
    memory_service_pb2,
)
from memoro.v1 import billing_service_pb2 as service
from tests.support.scripted_server import Failure, ScriptedServer

NOON = datetime(2025, 3, 4, 12, tzinfo=UTC)
STAMP = Timestamp(seconds=int(NOON.timestamp()))
GRANT = billing_pb2.Grant(id="g1", amount=900, remaining=700, priority=3, expire_time=STAMP, note="invoice 7")
BALANCE = billing_pb2.Balance(
    tenant_id="t1", available=400, held=300, granted=900, spent=200, low_balance=50, grants=[GRANT]
)


def entry(sequence: int) -> billing_pb2.LedgerEntry:
    return billing_pb2.LedgerEntry(
        sequence=sequence,
        kind=billing_pb2.LEDGER_ENTRY_KIND_HOLD,
        postings=[
            billing_pb2.Posting(account=billing_pb2.LEDGER_ACCOUNT_AVAILABLE, amount=-300),
            billing_pb2.Posting(account=billing_pb2.LEDGER_ACCOUNT_HELD, amount=300),
        ],
        available_after=400,
        held_after=300,
        job_id="j1",
        create_time=STAMP,
        hash=b"\x01" * 32,
    )


async def test_a_balance_and_its_grants(server: ScriptedServer, client: AsyncClient) -> None:
    server.script("GetBalance", service.GetBalanceResponse(balance=BALANCE))
    balance = await client.billing.balance()
    assert (balance.available, balance.held, balance.granted, balance.spent) == (400, 300, 900, 200)
    assert balance.low_balance == 50
    [grant] = balance.grants
    assert (grant.remaining, grant.priority, grant.expire_time, grant.note) == (700, 3, NOON, "invoice 7")
    await client.billing.balance("t2")
    assert [request.tenant_id for request in server.requests("GetBalance")] == ["", "t2"]


async def test_credits_are_added_and_set(server: ScriptedServer, client: AsyncClient) -> None:
    server.script("AddCredits", service.AddCreditsResponse(grant=GRANT, balance=BALANCE))
    added = await client.billing.add_credits("t1", 900, priority=3, expire_time=NOON, note="invoice 7", request_id="r")
    assert (added.grant.amount, added.balance.available) == (900, 400)
    assert server.requests("AddCredits") == [
        service.AddCreditsRequest(
            request_id="r", tenant_id="t1", amount=900, priority=3, expire_time=STAMP, note="invoice 7"
        )
    ]
    server.script("SetBalance", service.SetBalanceResponse(balance=BALANCE))
    await client.billing.set_balance("t1", available=0)
    await client.billing.set_balance("t1", low_balance=0, note="quiet")
    first, second = server.requests("SetBalance")
    assert (first.HasField("available"), first.HasField("low_balance")) == (True, False)
    assert (second.HasField("available"), second.HasField("low_balance"), second.note) == (False, True, "quiet")
    assert first.request_id
    assert first.request_id != second.request_id


async def test_the_ledger_walks_all_pages(server: ScriptedServer, client: AsyncClient) -> None:
    page = service.ListLedgerEntriesResponse
    server.script("ListLedgerEntries", page(entries=[entry(3)], next_page_token="t"), page(entries=[entry(2)]))
    found = client.billing.ledger(kinds=[LedgerEntryKind.HOLD], job_id="j1", created_from=NOON)
    entries = [one async for one in found]
    assert [one.sequence for one in entries] == [3, 2]
    assert entries[0].kind is LedgerEntryKind.HOLD
    assert entries[0].postings == {LedgerAccount.AVAILABLE: -300, LedgerAccount.HELD: 300}
    assert (entries[0].create_time, entries[0].hash) == (NOON, b"\x01" * 32)
    first, second = server.requests("ListLedgerEntries")
    assert (list(first.kinds), first.job_id, first.created_from) == (
        *([billing_pb2.LEDGER_ENTRY_KIND_HOLD], "j1", STAMP),
    )
    assert (first.page_token, second.page_token, second.job_id) == ("", "t", "j1")


async def test_usage_of_all_pages_with_one_sum(server: ScriptedServer, client: AsyncClient) -> None:
    row = service.UsageRow(
        date="2025-03-04",
        operation=billing_pb2.AI_OPERATION_EMBED,
        provider="openai",
        model="m",
        calls=2,
        input_tokens=30,
        cost_nano_dollars=50,
    )
    rest = service.UsageRow(calls=1)
    server.script(
        "GetUsage",
        service.GetUsageResponse(rows=[row], next_page_token="t", charged=9),
        service.GetUsageResponse(rows=[rest], charged=9),
    )
    used = await client.billing.usage(
        "t1", from_day=date(2025, 3, 1), to_day=date(2025, 3, 4), user_id="ann", group_by=[UsageDimension.DAY]
    )
    assert used.charged == 9
    assert (used.rows[0].day, used.rows[0].operation, used.rows[0].cost_nano_dollars) == (
        *(date(2025, 3, 4), AiOperation.EMBED, 50),
    )
    assert (used.rows[1].day, used.rows[1].operation, used.rows[1].calls) == (None, None, 1)
    server.script("GetUsage", service.GetUsageResponse(rows=[row, rest], next_page_token="t", charged=9))
    nothing = await client.billing.usage(limit=0)
    assert (nothing.rows, nothing.charged) == ((), 9)
    request = server.requests("GetUsage")[0]
    assert (request.from_date, request.to_date, request.user_id) == ("2025-03-01", "2025-03-04", "ann")
    assert list(request.group_by) == [service.USAGE_DIMENSION_DAY]


async def test_estimates(server: ScriptedServer, client: AsyncClient) -> None:
    line = service.EstimateLine(
        operation=billing_pb2.AI_OPERATION_EXTRACT, provider="openai", model="m", items=1, output_tokens=4096
    )
    answer = service.EstimateCostResponse(amount=500, lines=[line], margin_basis_points=5000, available=499)
    server.script("EstimateCost", answer)
    estimate = await client.billing.estimate("hello")
    assert (estimate.amount, estimate.margin_basis_points, estimate.affordable) == (500, 5000, False)
    assert estimate.lines[0].output_tokens == 4096
    await client.billing.estimate_batch(["a", "b"])
    await client.billing.estimate_conversation([Message("hi"), Message("ho")])
    one, several, talk = server.requests("EstimateCost")
    assert one.create_memory.text == "hello"
    assert [item.text for item in several.batch_create_memories.requests] == ["a", "b"]
    assert [message.text for message in talk.add_conversation.messages] == ["hi", "ho"]
    # The rules of the contract hold for what is estimated, too.
    assert one.create_memory.user_id
    assert talk.add_conversation.user_id
    assert talk.add_conversation.conversation_id
    server.script("EstimateCost", service.EstimateCostResponse(amount=500, available=500))
    assert (await client.billing.estimate("hello")).affordable


async def test_prices_are_listed_and_set(server: ScriptedServer, client: AsyncClient) -> None:
    price = billing_pb2.Price(
        provider="openai",
        model="m",
        operation=billing_pb2.AI_OPERATION_EMBED,
        input_price=20_000,
        fee=7,
        valid_from=STAMP,
    )
    page = service.ListPricesResponse
    server.script(
        "ListPrices",
        page(prices=[price], next_page_token="t", margin_basis_points=5000),
        page(prices=[price], margin_basis_points=5000),
    )
    listed = await client.billing.prices(provider="openai", all_times=True)
    assert (len(listed.prices), listed.margin_basis_points) == (2, 5000)
    assert (listed.prices[0].operation, listed.prices[0].input_price, listed.prices[0].valid_from) == (
        *(AiOperation.EMBED, 20_000, NOON),
    )
    assert server.requests("ListPrices")[0].all_times
    server.script("SetPrice", admin_service_pb2.SetPriceResponse(price=price))
    made = await client.admin.set_price("openai", "m", AiOperation.EMBED, input_price=20_000, fee=7, valid_from=NOON)
    assert made.fee == 7
    [request] = server.requests("SetPrice")
    assert (request.operation, request.input_price, request.output_price, request.fee, request.valid_from) == (
        *(billing_pb2.AI_OPERATION_EMBED, 20_000, 0, 7, STAMP),
    )


BREAKER = billing_pb2.SpendBreaker(
    scope=billing_pb2.BUDGET_SCOPE_TENANT,
    tenant_id="t1",
    state=billing_pb2.BREAKER_STATE_OPEN,
    date="2025-03-04",
    limit=1000,
    reserved=600,
    spent=400,
    percent_used=100.0,
    deferred_jobs=3,
    open_time=STAMP,
)


async def test_budgets_and_breakers(server: ScriptedServer, client: AsyncClient) -> None:
    server.script("GetCircuitBreaker", admin_service_pb2.GetCircuitBreakerResponse(breakers=[BREAKER]))
    [breaker] = await client.admin.breakers("t1")
    assert (breaker.scope, breaker.state, breaker.day) == (BudgetScope.TENANT, BreakerState.OPEN, date(2025, 3, 4))
    assert (breaker.limit, breaker.percent_used, breaker.deferred_jobs, breaker.open_time) == (1000, 100.0, 3, NOON)
    server.script("ResetCircuitBreaker", admin_service_pb2.ResetCircuitBreakerResponse(breaker=BREAKER))
    await client.admin.reset_breaker(BudgetScope.USER, tenant_id="t1", user_id="ann")
    [reset] = server.requests("ResetCircuitBreaker")
    assert (reset.scope, reset.tenant_id, reset.user_id) == (billing_pb2.BUDGET_SCOPE_USER, "t1", "ann")
    server.script("SetBudget", admin_service_pb2.SetBudgetResponse(breaker=BREAKER))
    assert await client.admin.set_budget(BudgetScope.TENANT, 0, tenant_id="t1") == breaker
    server.script("SetBudget", admin_service_pb2.SetBudgetResponse())
    assert await client.admin.set_budget(BudgetScope.DEPLOYMENT, None) is None
    nothing, unlimited = server.requests("SetBudget")
    assert (nothing.HasField("limit"), nothing.limit, unlimited.HasField("limit")) == (True, 0, False)
    server.script("ResetCircuitBreaker", Failure(grpc.StatusCode.NOT_FOUND, "BUDGET_NOT_FOUND"))
    with pytest.raises(NotFound):
        await client.admin.reset_breaker(BudgetScope.DEPLOYMENT)


async def test_costs_of_a_day(server: ScriptedServer, client: AsyncClient) -> None:
    costs = admin_service_pb2.GetAiCostsResponse(
        date="2025-03-04",
        cost_nano_dollars=77,
        budget=BREAKER,
        operations=[admin_service_pb2.OperationCost(operation=billing_pb2.AI_OPERATION_EMBED, calls=2)],
        recent_calls=[admin_service_pb2.AiCall(job_id="j1", attempt=2, call=1, presumed=True, start_time=STAMP)],
        house=[billing_pb2.Posting(account=billing_pb2.LEDGER_ACCOUNT_REVENUE, amount=12)],
    )
    server.script("GetAiCosts", costs, admin_service_pb2.GetAiCostsResponse())
    told = await client.admin.ai_costs(date(2025, 3, 4), tenant_id="t1", recent=5)
    assert (told.day, told.cost_nano_dollars, told.house) == (date(2025, 3, 4), 77, {LedgerAccount.REVENUE: 12})
    assert told.budget is not None
    assert told.budget.limit == 1000
    assert (told.operations[0].operation, told.operations[0].calls) == (AiOperation.EMBED, 2)
    assert (told.recent_calls[0].attempt, told.recent_calls[0].presumed) == (2, True)
    assert (await client.admin.ai_costs()).budget is None
    first, second = server.requests("GetAiCosts")
    assert (first.date, first.tenant_id, first.recent, second.date) == ("2025-03-04", "t1", 5, "")


async def test_a_ledger_is_verified_and_an_alert_tested(server: ScriptedServer, client: AsyncClient) -> None:
    answer = admin_service_pb2.VerifyLedgerResponse(entries=9, first_invalid_sequence=4, problem="its hash")
    server.script("VerifyLedger", answer, admin_service_pb2.VerifyLedgerResponse(valid=True, complete=True))
    found = await client.admin.verify_ledger("t1")
    sound = await client.admin.verify_ledger("t1")
    assert (sound.valid, sound.complete, found.complete) == (True, True, False)
    assert (found.valid, found.entries, found.first_invalid_sequence, found.problem) == (False, 9, 4, "its hash")
    results = [admin_service_pb2.AlertChannelResult(channel="email", problem="refused")]
    server.script("SendTestAlert", admin_service_pb2.SendTestAlertResponse(results=results))
    assert await client.admin.test_alert(AlertSeverity.CRITICAL, message="hello") == (
        AlertChannelResult("email", False, "refused"),
    )
    await client.admin.test_alert()
    first, second = server.requests("SendTestAlert")
    assert (first.severity, first.message) == (admin_pb2.ALERT_SEVERITY_CRITICAL, "hello")
    assert second.severity == admin_pb2.ALERT_SEVERITY_UNSPECIFIED


async def test_a_long_ledger_is_verified_in_several_calls(server: ScriptedServer, client: AsyncClient) -> None:
    parts = [
        admin_service_pb2.VerifyLedgerResponse(valid=True, entries=entries, head_hash=bytes([entries]) * 32)
        for entries in (5, 8)
    ]
    last = admin_service_pb2.VerifyLedgerResponse(valid=True, entries=9, head_hash=b"h" * 32, complete=True)
    server.script("VerifyLedger", *parts, last)
    found = await client.admin.verify_ledger("t1", after_sequence=2, after_hash=b"k" * 32)
    assert (found.complete, found.entries, found.head_hash) == (True, 9, b"h" * 32)
    asked = [(one.after_sequence, one.after_hash) for one in server.requests("VerifyLedger")]
    assert asked == [(2, b"k" * 32), (5, b"\x05" * 32), (8, b"\x08" * 32)]


async def test_a_check_that_does_not_get_on_is_given_up(server: ScriptedServer, client: AsyncClient) -> None:
    server.script("VerifyLedger", admin_service_pb2.VerifyLedgerResponse(valid=True))
    assert not (await client.admin.verify_ledger("t1")).complete
    assert len(server.requests("VerifyLedger")) == 1


async def test_too_few_credits_say_how_many(server: ScriptedServer, client: AsyncClient) -> None:
    lacking = {"need": "7500", "have": "1200"}
    server.script(
        "CreateMemory", Failure(grpc.StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_CREDITS", metadata=lacking)
    )
    with pytest.raises(InsufficientCredits) as caught:
        await client.memories.create(user_id="ann", text="hello")
    assert isinstance(caught.value, FailedPrecondition)
    assert (caught.value.need, caught.value.have) == (7500, 1200)
    results = memory_service_pb2.BatchCreateMemoriesResponse()
    results.results.add(error=memory_service_pb2.ItemError(code=9, reason="INSUFFICIENT_CREDITS", metadata=lacking))
    server.script("BatchCreateMemories", results)
    [verdict] = await client.memories.create_batch([NewMemory("ann", "hello")])
    assert isinstance(verdict, InsufficientCredits)
    assert (verdict.need, verdict.have) == (7500, 1200)
    # Of a server that does not say.
    assert InsufficientCredits("too few").need == 0
    server.script(
        "CreateMemory", Failure(grpc.StatusCode.FAILED_PRECONDITION, "PRICE_UNKNOWN", metadata={"model": "m"})
    )
    with pytest.raises(PriceUnknown) as unknown:
        await client.memories.create(user_id="ann", text="hello")
    assert unknown.value.metadata["model"] == "m"


async def test_a_job_tells_what_it_costs(server: ScriptedServer, client: AsyncClient) -> None:
    queued = jobs_pb2.Job(id="j1", state=jobs_pb2.JOB_STATE_QUEUED, cost_bound=500, sequence=1)
    ended = jobs_pb2.JobUpdate(
        job_id="j1",
        state=jobs_pb2.JOB_STATE_SUCCEEDED,
        attempt=1,
        usage=jobs_pb2.JobUsage(input_tokens=7, charged=120),
    )
    server.script(
        "WatchJob",
        [
            jobs_service_pb2.WatchJobResponse(snapshot=queued, sequence=1),
            jobs_service_pb2.WatchJobResponse(update=ended, sequence=2),
        ],
    )
    job = client.jobs.handle("j1")
    seen = [update async for update in job.watch()]
    assert seen[0].snapshot is not None
    assert (seen[0].snapshot.cost_bound, seen[0].snapshot.usage.charged) == (500, 0)
    assert job.latest is not None
    assert (job.latest.state, job.latest.cost_bound, job.latest.usage.charged) == (JobState.SUCCEEDED, 500, 120)


def test_the_blocking_client(server: ScriptedServer, blocking_client: Client) -> None:
    server.script("GetBalance", service.GetBalanceResponse(balance=BALANCE))
    assert blocking_client.billing.balance().available == 400
    page = service.ListLedgerEntriesResponse
    server.script("ListLedgerEntries", page(entries=[entry(3)], next_page_token="t"), page(entries=[entry(2)]))
    assert [one.sequence for one in blocking_client.billing.ledger(limit=2)] == [3, 2]
    server.script("ListPrices", service.ListPricesResponse(margin_basis_points=5000))
    assert blocking_client.billing.prices().margin_basis_points == 5000
    server.script("GetUsage", service.GetUsageResponse(charged=3))
    assert blocking_client.billing.usage().charged == 3
    server.script("GetCircuitBreaker", admin_service_pb2.GetCircuitBreakerResponse(breakers=[BREAKER]))
    assert blocking_client.admin.breakers()[0].deferred_jobs == 3
