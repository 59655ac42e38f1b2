"""AdminService: daily budgets, prices, what AI work costs, ledgers, and alerts."""

from __future__ import annotations

from typing import Final

from memoro.v1 import admin_service_pb2 as pb
from memoro_core.alerts.service import AlertService
from memoro_core.billing.breaker_service import BreakerService
from memoro_core.billing.pricing import PricingService
from memoro_core.billing.service import BillingService
from memoro_core.billing.usage import UsageService
from memoro_core.ids import TenantId
from memoro_server.call import Call
from memoro_server.convert.billing import from_price, to_day
from memoro_server.convert.idempotency import idempotency_of
from memoro_server.convert.queues import to_tenant_or_none
from memoro_server.convert.scalars import to_id
from memoro_server.convert.spending import (
    from_breaker,
    from_channel_result,
    from_costs,
    from_verification,
    to_budget_key,
    to_new_price,
    to_severity,
)

_RECENT_CALLS: Final = 20
_MAX_RECENT_CALLS: Final = 100


class SpendingServicer:
    """The calls of AdminService that are about money, and about telling operators."""

    def __init__(
        self,
        billing: BillingService,
        pricing: PricingService,
        usage: UsageService,
        breakers: BreakerService,
        alerts: AlertService,
    ) -> None:
        self._billing = billing
        self._pricing = pricing
        self._usage = usage
        self._breakers = breakers
        self._alerts = alerts

    async def GetAiCosts(self, request: pb.GetAiCostsRequest, call: Call) -> pb.GetAiCostsResponse:
        costs = await self._usage.costs(
            to_day(request.date, "date"),
            to_tenant_or_none(request.tenant_id),
            recent=min(request.recent or _RECENT_CALLS, _MAX_RECENT_CALLS),
        )
        return from_costs(costs)

    async def GetCircuitBreaker(self, request: pb.GetCircuitBreakerRequest, call: Call) -> pb.GetCircuitBreakerResponse:
        breakers = await self._breakers.breakers(to_tenant_or_none(request.tenant_id))
        return pb.GetCircuitBreakerResponse(breakers=[from_breaker(breaker) for breaker in breakers])

    async def ResetCircuitBreaker(
        self, request: pb.ResetCircuitBreakerRequest, call: Call
    ) -> pb.ResetCircuitBreakerResponse:
        breaker = await self._breakers.reset(
            call.principal, to_budget_key(request), idempotency=idempotency_of(call.method.path, request)
        )
        return pb.ResetCircuitBreakerResponse(breaker=from_breaker(breaker))

    async def SetBudget(self, request: pb.SetBudgetRequest, call: Call) -> pb.SetBudgetResponse:
        breaker = await self._breakers.set_budget(
            call.principal,
            to_budget_key(request),
            request.limit if request.HasField("limit") else None,
            idempotency=idempotency_of(call.method.path, request),
        )
        return pb.SetBudgetResponse(breaker=None if breaker is None else from_breaker(breaker))

    async def SetPrice(self, request: pb.SetPriceRequest, call: Call) -> pb.SetPriceResponse:
        price = await self._pricing.set_price(
            call.principal, to_new_price(request), idempotency=idempotency_of(call.method.path, request)
        )
        return pb.SetPriceResponse(price=from_price(price))

    async def VerifyLedger(self, request: pb.VerifyLedgerRequest, call: Call) -> pb.VerifyLedgerResponse:
        tenant_id = TenantId(to_id(request.tenant_id, "tenant_id"))
        verification = await self._billing.verify(
            tenant_id,
            after_seq=request.after_sequence,
            after_hash=request.after_hash,
            within=call.working_time,
        )
        return from_verification(verification)

    async def SendTestAlert(self, request: pb.SendTestAlertRequest, call: Call) -> pb.SendTestAlertResponse:
        results = await self._alerts.send_test(
            call.principal,
            to_severity(request.severity),
            request.message,
            idempotency=idempotency_of(call.method.path, request),
        )
        return pb.SendTestAlertResponse(results=[from_channel_result(result) for result in results])
