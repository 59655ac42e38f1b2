"""BillingService: what things cost, and what has been paid."""

from __future__ import annotations

from memoro.v1 import billing_service_pb2 as pb
from memoro_core.billing.pricing import PricingService
from memoro_core.billing.service import BillingService
from memoro_core.billing.usage import UsageService
from memoro_core.errors import invalid_field
from memoro_core.ids import UserId
from memoro_server.call import Call
from memoro_server.convert.billing import (
    from_balance,
    from_entry,
    from_grant,
    from_price,
    from_usage_row,
    to_day,
    to_dimensions,
    to_ledger_filter,
    to_price_filter,
    to_tenant,
)
from memoro_server.convert.estimates import from_estimate, to_work
from memoro_server.convert.idempotency import idempotency_of
from memoro_server.convert.pages import PageSpot
from memoro_server.convert.scalars import to_time
from memoro_server.rules import Rules


class BillingServicer:
    """The calls of BillingService."""

    def __init__(self, billing: BillingService, pricing: PricingService, usage: UsageService, rules: Rules) -> None:
        self._billing = billing
        self._pricing = pricing
        self._usage = usage
        self._rules = rules

    async def GetBalance(self, request: pb.GetBalanceRequest, call: Call) -> pb.GetBalanceResponse:
        return pb.GetBalanceResponse(balance=from_balance(await self._billing.balance(to_tenant(request, call))))

    async def AddCredits(self, request: pb.AddCreditsRequest, call: Call) -> pb.AddCreditsResponse:
        grant, balance = await self._billing.add_credits(
            call.principal,
            to_tenant(request, call),
            amount=request.amount,
            priority=request.priority,
            expires_at=to_time(request, "expire_time"),
            note=request.note,
            idempotency=idempotency_of(call.method.path, request),
        )
        return pb.AddCreditsResponse(grant=from_grant(grant), balance=from_balance(balance))

    async def SetBalance(self, request: pb.SetBalanceRequest, call: Call) -> pb.SetBalanceResponse:
        sets = {field: getattr(request, field) for field in ("available", "low_balance") if request.HasField(field)}
        if not sets:
            raise invalid_field("available", "must be set, unless low_balance is")
        balance = await self._billing.set_balance(
            call.principal,
            to_tenant(request, call),
            available=sets.get("available"),
            low_balance=sets.get("low_balance"),
            note=request.note,
            idempotency=idempotency_of(call.method.path, request),
        )
        return pb.SetBalanceResponse(balance=from_balance(balance))

    async def ListLedgerEntries(self, request: pb.ListLedgerEntriesRequest, call: Call) -> pb.ListLedgerEntriesResponse:
        spot = PageSpot(request, call)
        page = await self._billing.list_entries(
            to_tenant(request, call), to_ledger_filter(request), size=spot.size, position=spot.position
        )
        return pb.ListLedgerEntriesResponse(
            entries=[from_entry(entry) for entry in page.items], next_page_token=spot.token(page.next_position)
        )

    async def GetUsage(self, request: pb.GetUsageRequest, call: Call) -> pb.GetUsageResponse:
        spot = PageSpot(request, call)
        report = await self._usage.usage(
            to_tenant(request, call),
            first=to_day(request.from_date, "from_date"),
            last=to_day(request.to_date, "to_date"),
            user_id=UserId(request.user_id) if request.user_id else None,
            group_by=to_dimensions(request.group_by),
            size=spot.size,
            position=spot.position,
        )
        return pb.GetUsageResponse(
            rows=[from_usage_row(row) for row in report.rows.items],
            next_page_token=spot.token(report.rows.next_position),
            charged=report.charged,
        )

    async def EstimateCost(self, request: pb.EstimateCostRequest, call: Call) -> pb.EstimateCostResponse:
        return from_estimate(await self._pricing.estimate(call.tenant_id, to_work(request, self._rules)))

    async def ListPrices(self, request: pb.ListPricesRequest, call: Call) -> pb.ListPricesResponse:
        spot = PageSpot(request, call)
        page = await self._pricing.list_prices(to_price_filter(request), size=spot.size, position=spot.position)
        return pb.ListPricesResponse(
            prices=[from_price(price) for price in page.items],
            next_page_token=spot.token(page.next_position),
            margin_basis_points=self._pricing.margin_basis_points,
        )
