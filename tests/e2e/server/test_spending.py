"""Prices, budgets, costs, ledgers and alerts, as operators see and set them over the wire."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from memoro.v1 import admin_pb2, billing_pb2, memory_pb2
from memoro.v1 import admin_service_pb2 as pb
from memoro.v1 import billing_service_pb2 as billing
from memoro.v1 import memory_service_pb2 as memory
from memoro_server.convert.scalars import from_time
from tests.e2e.server.test_billing import NOBODY, PRICES
from tests.support.deployment import LOADING, Caller, Deployment
from tests.support.domain import fresh_name

PRICE, BUDGET = "AdminService/SetPrice", "AdminService/SetBudget"
RESET, BREAKERS = "AdminService/ResetCircuitBreaker", "AdminService/GetCircuitBreaker"
COSTS, VERIFY, ALERT = "AdminService/GetAiCosts", "AdminService/VerifyLedger", "AdminService/SendTestAlert"
EMBED, EXTRACT = billing_pb2.AI_OPERATION_EMBED, billing_pb2.AI_OPERATION_EXTRACT
DEPLOYMENT, TENANT = billing_pb2.BUDGET_SCOPE_DEPLOYMENT, billing_pb2.BUDGET_SCOPE_TENANT
USER = billing_pb2.BUDGET_SCOPE_USER


async def breakers_of(operator: Caller, tenant_id: str) -> Sequence[Any]:
    told = (await operator.ask(BREAKERS, pb.GetCircuitBreakerRequest(tenant_id=tenant_id))).breakers
    return [breaker for breaker in told if breaker.tenant_id == tenant_id]


def price(**fields: Any) -> pb.SetPriceRequest:
    return pb.SetPriceRequest(**{"provider": "openai", "model": "m", "operation": EMBED, **fields})


def budget(**fields: Any) -> pb.SetBudgetRequest:
    return pb.SetBudgetRequest(**{"scope": TENANT, "tenant_id": NOBODY, "limit": 1, **fields})


def reset(**fields: Any) -> pb.ResetCircuitBreakerRequest:
    return pb.ResetCircuitBreakerRequest(**{"scope": TENANT, "tenant_id": NOBODY, **fields})


@pytest.mark.parametrize(
    ("method", "request_", "reason"),
    [
        (BUDGET, budget(), "TENANT_NOT_FOUND"),
        (BUDGET, budget(scope=USER), "TENANT_NOT_FOUND"),
        (RESET, reset(), "BUDGET_NOT_FOUND"),
        (RESET, reset(scope=USER, user_id="ann"), "BUDGET_NOT_FOUND"),
        (VERIFY, pb.VerifyLedgerRequest(tenant_id=NOBODY), "TENANT_NOT_FOUND"),
    ],
)
async def test_what_is_not_there_is_not_found(
    deployment: Deployment, method: str, request_: Message, reason: str
) -> None:
    outcome = await (await deployment.operator()).call(method, request_)
    assert (outcome.code, outcome.info.reason) == (grpc.StatusCode.NOT_FOUND, reason)


async def test_a_price_is_set_once_and_the_past_is_never_changed(deployment: Deployment) -> None:
    operator, caller, model = await deployment.operator(), await deployment.caller(), fresh_name()
    first = price(request_id=model, model=model, input_price=20_000, fee=7)
    made = (await operator.ask(PRICE, first)).price
    assert (made.provider, made.model, made.operation) == ("openai", model, EMBED)
    assert (made.input_price, made.output_price, made.fee) == (20_000, 0, 7)
    assert made.valid_from.ToDatetime(UTC) <= datetime.now(UTC)
    assert (await operator.ask(PRICE, first)).price == made
    first.fee = 8
    assert (await operator.call(PRICE, first)).info.reason == "REQUEST_ID_REUSED"

    tomorrow = from_time((datetime.now(UTC) + timedelta(days=1)).replace(microsecond=0))
    later = (await operator.ask(PRICE, price(model=model, input_price=1, valid_from=tomorrow))).price
    assert later.valid_from == tomorrow
    now = billing.ListPricesRequest(model=model)
    assert list((await caller.ask(PRICES, now)).prices) == [made]
    always = billing.ListPricesRequest(model=model, all_times=True)
    assert list((await caller.ask(PRICES, always)).prices) == [later, made]
    again = await operator.call(PRICE, price(model=model, valid_from=tomorrow))
    assert (again.info.reason, again.message.partition(":")[0]) == ("INVALID_FIELD", "valid_from")


async def test_a_budget_is_set_told_reset_and_taken_away(deployment: Deployment) -> None:
    operator, tenant_id = await deployment.operator(), str((await deployment.caller()).tenant_id)
    assert await breakers_of(operator, tenant_id) == []
    sets = budget(request_id=f"budget-{tenant_id}", tenant_id=tenant_id, limit=1_000)
    breaker = (await operator.ask(BUDGET, sets)).breaker
    assert (breaker.scope, breaker.tenant_id, breaker.user_id) == (TENANT, tenant_id, "")
    assert (breaker.state, breaker.limit) == (billing_pb2.BREAKER_STATE_CLOSED, 1_000)
    assert (breaker.reserved, breaker.spent, breaker.percent_used, breaker.deferred_jobs) == (0, 0, 0, 0)
    assert breaker.date == datetime.now(UTC).date().isoformat()
    assert breaker.day_end_time.ToDatetime(UTC) > datetime.now(UTC)
    assert (await operator.ask(BUDGET, sets)).breaker == breaker
    sets.limit = 2_000
    assert (await operator.call(BUDGET, sets)).info.reason == "REQUEST_ID_REUSED"
    assert await breakers_of(operator, tenant_id) == [breaker]

    raise_it = reset(request_id=f"reset-{tenant_id}", tenant_id=tenant_id)
    assert (await operator.ask(RESET, raise_it)).breaker.limit == 2_000
    assert (await operator.ask(RESET, raise_it)).breaker.limit == 2_000
    raise_it.scope = USER
    raise_it.user_id = "ann"
    assert (await operator.call(RESET, raise_it)).info.reason == "REQUEST_ID_REUSED"
    assert (await operator.ask(RESET, reset(tenant_id=tenant_id))).breaker.limit == 3_000

    no_limit = pb.SetBudgetRequest(scope=TENANT, tenant_id=tenant_id)
    assert not (await operator.ask(BUDGET, no_limit)).HasField("breaker")
    assert await breakers_of(operator, tenant_id) == []


async def test_a_budget_of_each_user_tells_its_limit(deployment: Deployment) -> None:
    operator, tenant_id = await deployment.operator(), str((await deployment.caller()).tenant_id)
    breaker = (await operator.ask(BUDGET, budget(scope=USER, tenant_id=tenant_id, limit=0))).breaker
    assert (breaker.scope, breaker.tenant_id, breaker.user_id, breaker.limit) == (USER, tenant_id, "", 0)
    of_ann = await operator.ask(RESET, reset(scope=USER, tenant_id=tenant_id, user_id="ann"))
    assert (of_ann.breaker.user_id, of_ann.breaker.limit) == ("ann", 0)


async def test_a_days_costs_are_told_by_operation(deployment: Deployment) -> None:
    operator, caller = await deployment.operator(), await deployment.caller()
    tenant_id = str(caller.tenant_id)
    made = await caller.ask(
        "MemoryService/CreateMemory",
        memory.CreateMemoryRequest(
            user_id="ann", text="Ann lives in Oslo.", processing_mode=memory_pb2.PROCESSING_MODE_SYNC
        ),
        timeout=LOADING,
    )
    costs = await operator.ask(COSTS, pb.GetAiCostsRequest(tenant_id=tenant_id))
    assert (costs.date, costs.cost_nano_dollars) == (datetime.now(UTC).date().isoformat(), 0)
    assert not costs.HasField("budget")
    assert {(cost.operation, cost.provider, cost.calls) for cost in costs.operations} == {
        (EMBED, "local", 1),
        (EXTRACT, "local", 1),
    }
    assert {(call.tenant_id, call.job_id, call.attempt, call.presumed) for call in costs.recent_calls} == {
        (tenant_id, made.job.id, 1, False)
    }
    assert [call.operation for call in costs.recent_calls] == [EXTRACT, EMBED]
    latest = await operator.ask(COSTS, pb.GetAiCostsRequest(tenant_id=tenant_id, recent=1))
    assert list(latest.recent_calls) == [costs.recent_calls[0]]
    of_all = await operator.ask(COSTS, pb.GetAiCostsRequest(recent=1_000))
    assert len(of_all.recent_calls) <= 100
    assert costs.recent_calls[0] in of_all.recent_calls
    past = await operator.ask(COSTS, pb.GetAiCostsRequest(date="2020-01-31"))
    assert past == pb.GetAiCostsResponse(date="2020-01-31", budget=past.budget if past.HasField("budget") else None)


async def test_a_ledger_is_checked(deployment: Deployment) -> None:
    operator, caller = await deployment.operator(), await deployment.caller()
    verify = pb.VerifyLedgerRequest(tenant_id=str(caller.tenant_id))
    assert await operator.ask(VERIFY, verify) == pb.VerifyLedgerResponse(valid=True, complete=True)
    for amount in (1, 2, 3):
        add = billing.AddCreditsRequest(tenant_id=str(caller.tenant_id), amount=amount)
        await operator.ask("BillingService/AddCredits", add)
    found = await operator.ask(VERIFY, verify)
    assert (found.valid, found.entries, found.first_invalid_sequence, found.problem) == (True, 3, 0, "")
    entries = await caller.ask("BillingService/ListLedgerEntries", billing.ListLedgerEntriesRequest(page_size=1))
    assert found.head_hash == entries.entries[0].hash


async def test_a_test_alert_tells_what_each_channel_did(deployment: Deployment) -> None:
    operator, name = await deployment.operator(), fresh_name()
    send = pb.SendTestAlertRequest(request_id=name, severity=admin_pb2.ALERT_SEVERITY_CRITICAL, message="Hear, hear!")
    told = await operator.ask(ALERT, send)
    assert [(it.channel, it.delivered, it.problem) for it in told.results] == [("log", True, "")]
    assert await operator.ask(ALERT, send) == told
    send.message = "Another"
    assert (await operator.call(ALERT, send)).info.reason == "REQUEST_ID_REUSED"
    assert (await operator.ask(ALERT, pb.SendTestAlertRequest())).results == told.results
