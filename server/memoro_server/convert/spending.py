"""Daily budgets, what AI work has cost, and alerts."""

from __future__ import annotations

from typing import Final

from memoro.v1 import admin_pb2, admin_service_pb2, billing_pb2
from memoro_core.alerts.model import ChannelResult, Severity
from memoro_core.billing.breaker_model import BreakerStatus
from memoro_core.billing.model import DEPLOYMENT, BreakerState, BudgetKey, BudgetScope, Verification
from memoro_core.billing.money import nano_dollars
from memoro_core.billing.pricing import NewPrice
from memoro_core.billing.usage_model import AiCall, AiCosts, OperationCost
from memoro_core.ids import UserId
from memoro_server.convert.billing import OPERATIONS, from_postings
from memoro_server.convert.queues import to_tenant_or_none
from memoro_server.convert.scalars import enum_members, enum_numbers, from_time, from_time_or_none, to_time

SCOPES: Final = enum_numbers(BudgetScope, billing_pb2.BudgetScope, "BUDGET_SCOPE_")
BREAKER_STATES: Final = enum_numbers(BreakerState, billing_pb2.BreakerState, "BREAKER_STATE_")
SEVERITIES: Final = enum_numbers(Severity, admin_pb2.AlertSeverity, "ALERT_SEVERITY_")
_SCOPE_OF: Final = enum_members(SCOPES)
_OPERATION_OF: Final = enum_members(OPERATIONS)
_SEVERITY_OF: Final = enum_members(SEVERITIES)


def to_budget_key(
    request: admin_service_pb2.SetBudgetRequest | admin_service_pb2.ResetCircuitBreakerRequest,
) -> BudgetKey:
    """Which budget is meant; the domain knows which scopes need a tenant and a user. Raises INVALID_FIELD."""
    user_id = request.user_id if isinstance(request, admin_service_pb2.ResetCircuitBreakerRequest) else ""
    return BudgetKey(
        _SCOPE_OF[request.scope],
        to_tenant_or_none(request.tenant_id) or DEPLOYMENT,
        UserId(user_id) if user_id else None,
    )


def to_new_price(request: admin_service_pb2.SetPriceRequest) -> NewPrice:
    """The price to set."""
    return NewPrice(
        provider=request.provider,
        model=request.model,
        operation=_OPERATION_OF[request.operation],
        input_price=request.input_price,
        output_price=request.output_price,
        fee=request.fee,
        valid_from=to_time(request, "valid_from"),
    )


def to_severity(number: int) -> Severity:
    """How urgent a test alert is; WARNING when it does not say."""
    return _SEVERITY_OF.get(number, Severity.WARNING)


def from_breaker(status: BreakerStatus) -> billing_pb2.SpendBreaker:
    """A budget and its breaker as operators see them."""
    budget = status.budget
    key = budget.key
    return billing_pb2.SpendBreaker(
        scope=SCOPES[key.scope],
        tenant_id="" if key.scope is BudgetScope.DEPLOYMENT else str(key.tenant_id),
        user_id=key.user_id or "",
        state=BREAKER_STATES[budget.state],
        date=budget.day.isoformat(),
        limit=budget.ceiling,
        reserved=budget.reserved,
        spent=budget.spent,
        percent_used=_percent(budget.committed, budget.ceiling),
        deferred_jobs=status.deferred_jobs,
        open_time=from_time_or_none(budget.opened_at),
        day_end_time=from_time(status.day_end),
    )


def from_costs(costs: AiCosts) -> admin_service_pb2.GetAiCostsResponse:
    """A day's costs as operators see them."""
    return admin_service_pb2.GetAiCostsResponse(
        date=costs.day.isoformat(),
        cost_nano_dollars=nano_dollars(costs.cost_pico_dollars),
        budget=None if costs.budget is None else from_breaker(costs.budget),
        operations=[_from_operation(cost) for cost in costs.operations],
        recent_calls=[_from_call(call) for call in costs.recent_calls],
        house=from_postings(costs.house),
    )


def from_verification(found: Verification) -> admin_service_pb2.VerifyLedgerResponse:
    """What came of checking a ledger."""
    return admin_service_pb2.VerifyLedgerResponse(
        valid=found.valid,
        entries=found.entries,
        first_invalid_sequence=found.first_invalid_seq,
        problem=found.problem,
        head_hash=found.head_hash,
        complete=found.complete,
    )


def from_channel_result(result: ChannelResult) -> admin_service_pb2.AlertChannelResult:
    """What a channel has to do with an alert."""
    return admin_service_pb2.AlertChannelResult(
        channel=result.channel, delivered=result.delivered, problem=result.problem
    )


def _percent(committed: int, limit: int) -> float:
    """A limit of 0 is used up from the beginning."""
    return round(100 * committed / limit, 2) if limit else 100.0


def _from_operation(cost: OperationCost) -> admin_service_pb2.OperationCost:
    return admin_service_pb2.OperationCost(
        operation=OPERATIONS[cost.operation],
        provider=cost.provider,
        model=cost.model,
        calls=cost.calls,
        input_tokens=cost.input_tokens,
        output_tokens=cost.output_tokens,
        cost_nano_dollars=nano_dollars(cost.cost_pico_dollars),
        for_questions=cost.for_questions,
    )


def _from_call(call: AiCall) -> admin_service_pb2.AiCall:
    return admin_service_pb2.AiCall(
        tenant_id=str(call.tenant_id),
        job_id=str(call.job_id),
        attempt=call.attempt,
        call=call.call,
        operation=OPERATIONS[call.operation],
        provider=call.provider,
        model=call.model,
        input_tokens=call.input_tokens,
        output_tokens=call.output_tokens,
        cost_nano_dollars=nano_dollars(call.cost_pico_dollars),
        presumed=call.presumed,
        start_time=from_time(call.started_at),
    )
