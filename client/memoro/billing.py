"""Billing: what a tenant has, what it has used, and what things cost. Amounts are in micro-credits."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from datetime import date, datetime
from typing import Any

from memoro import convert_billing, methods, paging, requests, wire
from memoro.enums import LedgerEntryKind, UsageDimension
from memoro.transport import Transport
from memoro.types import AddedCredits, Balance, Estimate, LedgerEntry, Message, NewMemory, PriceList, Usage
from memoro.v1 import billing_service_pb2, memory_service_pb2

_ANYBODY = "anybody"


class AsyncBilling:
    """The credits of the caller's tenant; to name another tenant by `tenant_id` takes the scope ADMIN."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def balance(self, tenant_id: str = "", *, timeout: float | None = None) -> Balance:
        """What a tenant has, as it now stands."""
        request = billing_service_pb2.GetBalanceRequest(tenant_id=tenant_id)
        return convert_billing.balance((await self._transport.unary(methods.GET_BALANCE, request, timeout)).balance)

    async def add_credits(
        self,
        tenant_id: str,
        amount: int,
        *,
        priority: int = 0,
        expire_time: datetime | None = None,
        note: str = "",
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> AddedCredits:
        """Gives credits to a tenant; needs the scope ADMIN. Raises NotFound.

        Of several grants that with the lowest `priority`, from 0 to 100, is used up first. What is not used by
        `expire_time` is lost; None: never.
        """
        request = billing_service_pb2.AddCreditsRequest(
            request_id=requests.request_id_or_new(request_id),
            tenant_id=tenant_id,
            amount=amount,
            priority=priority,
            expire_time=wire.timestamp("expire_time", expire_time),
            note=note,
        )
        response = await self._transport.unary(methods.ADD_CREDITS, request, timeout)
        return AddedCredits(convert_billing.grant(response.grant), convert_billing.balance(response.balance))

    async def set_balance(
        self,
        tenant_id: str,
        *,
        available: int | None = None,
        low_balance: int | None = None,
        note: str = "",
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Balance:
        """Sets what is given and leaves the rest; needs the scope ADMIN. Raises NotFound.

        What is `available` is brought to the amount by an entry that says by how much it was changed; what jobs hold
        stays theirs. Below `low_balance` the tenant is told by webhook; 0: never.
        """
        request = billing_service_pb2.SetBalanceRequest(
            request_id=requests.request_id_or_new(request_id),
            tenant_id=tenant_id,
            available=available,
            low_balance=low_balance,
            note=note,
        )
        return convert_billing.balance((await self._transport.unary(methods.SET_BALANCE, request, timeout)).balance)

    def ledger(
        self,
        tenant_id: str = "",
        *,
        kinds: Iterable[LedgerEntryKind] = (),
        job_id: str = "",
        created_from: datetime | None = None,
        created_until: datetime | None = None,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> AsyncGenerator[LedgerEntry, None]:
        """What has moved money, newest first; any of several kinds will do, and all else that is given must hold."""
        request = billing_service_pb2.ListLedgerEntriesRequest(
            tenant_id=tenant_id,
            kinds=[wire.enum_number(LedgerEntryKind, kind) for kind in kinds],
            job_id=job_id,
            created_from=wire.timestamp("created_from", created_from),
            created_until=wire.timestamp("created_until", created_until),
        )
        return paging.items(
            self._transport,
            methods.LIST_LEDGER_ENTRIES,
            request,
            lambda response: response.entries,
            convert_billing.ledger_entry,
            limit=limit,
            timeout=timeout,
        )

    async def usage(
        self,
        tenant_id: str = "",
        *,
        from_day: date | None = None,
        to_day: date | None = None,
        user_id: str = "",
        group_by: Iterable[UsageDimension] = (),
        limit: int | None = None,
        timeout: float | None = None,
    ) -> Usage:
        """What was used from one day to another, both included: by default the 31 days to today, of all users.

        Rows are summed up by day, operation and model unless `group_by` says otherwise; at most `limit` of them are
        read. Days are those of the deployment's time zone.
        """
        request = billing_service_pb2.GetUsageRequest(
            tenant_id=tenant_id,
            from_date=_iso(from_day),
            to_date=_iso(to_day),
            user_id=user_id,
            group_by=[wire.enum_number(UsageDimension, dimension) for dimension in group_by],
        )
        charged = 0

        def rows_of(response: billing_service_pb2.GetUsageResponse) -> Any:
            nonlocal charged
            charged = response.charged
            return response.rows

        rows = paging.items(
            self._transport,
            methods.GET_USAGE,
            request,
            rows_of,
            convert_billing.usage_row,
            limit=_at_least_one(limit),
            timeout=timeout,
        )
        return Usage(rows=tuple([row async for row in rows][:limit]), charged=charged)

    async def estimate(self, text: str, *, timeout: float | None = None) -> Estimate:
        """The most that `memories.create` of a text may cost. Raises PriceUnknown."""
        request = requests.new_memory(NewMemory(_ANYBODY, text))
        return await self._estimate(billing_service_pb2.EstimateCostRequest(create_memory=request), timeout)

    async def estimate_batch(self, texts: Iterable[str], *, timeout: float | None = None) -> Estimate:
        """The most that `memories.create_batch` of 1 to 100 texts may cost in all. Raises PriceUnknown."""
        batch = memory_service_pb2.BatchCreateMemoriesRequest(
            requests=[requests.new_memory(NewMemory(_ANYBODY, text)) for text in texts]
        )
        return await self._estimate(billing_service_pb2.EstimateCostRequest(batch_create_memories=batch), timeout)

    async def estimate_conversation(self, messages: Iterable[Message], *, timeout: float | None = None) -> Estimate:
        """The most that `memories.add_conversation` of 1 to 500 messages may cost. Raises PriceUnknown."""
        conversation = memory_service_pb2.AddConversationRequest(
            user_id=_ANYBODY, conversation_id=_ANYBODY, messages=map(requests.message, messages)
        )
        return await self._estimate(billing_service_pb2.EstimateCostRequest(add_conversation=conversation), timeout)

    async def prices(
        self,
        *,
        provider: str = "",
        model: str = "",
        all_times: bool = False,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> PriceList:
        """What models cost, by provider, model and operation; with `all_times` also what no longer or not yet holds."""
        margin = 0

        def prices_of(response: billing_service_pb2.ListPricesResponse) -> Any:
            nonlocal margin
            margin = response.margin_basis_points
            return response.prices

        prices = paging.items(
            self._transport,
            methods.LIST_PRICES,
            billing_service_pb2.ListPricesRequest(provider=provider, model=model, all_times=all_times),
            prices_of,
            convert_billing.price,
            limit=_at_least_one(limit),
            timeout=timeout,
        )
        return PriceList(prices=tuple([price async for price in prices][:limit]), margin_basis_points=margin)

    async def _estimate(self, request: billing_service_pb2.EstimateCostRequest, timeout: float | None) -> Estimate:
        return convert_billing.estimate(await self._transport.unary(methods.ESTIMATE_COST, request, timeout))


def _at_least_one(limit: int | None) -> int | None:
    # What goes with every page is wanted also by a caller that wants no rows.
    return 1 if limit == 0 else limit


def _iso(day: date | None) -> str:
    return "" if day is None else day.isoformat()
