"""Balances, ledger entries, usage and prices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Final, Protocol

from memoro.v1 import billing_pb2, billing_service_pb2
from memoro_core.billing.model import Balance, EntryKind, Grant, LedgerAccount, LedgerEntry, LedgerFilter, Price
from memoro_core.billing.money import nano_dollars
from memoro_core.billing.price_ports import PriceFilter
from memoro_core.billing.usage_model import UsageDimension, UsageRow
from memoro_core.errors import invalid_field
from memoro_core.ids import JobId, TenantId
from memoro_core.llm.model import Operation
from memoro_server.call import Call
from memoro_server.convert.scalars import enum_members, enum_numbers, from_time, from_time_or_none, to_id, to_time

ENTRY_KINDS: Final = enum_numbers(EntryKind, billing_pb2.LedgerEntryKind, "LEDGER_ENTRY_KIND_")
ACCOUNTS: Final = enum_numbers(LedgerAccount, billing_pb2.LedgerAccount, "LEDGER_ACCOUNT_")
OPERATIONS: Final = enum_numbers(Operation, billing_pb2.AiOperation, "AI_OPERATION_")
DIMENSIONS: Final = enum_numbers(UsageDimension, billing_service_pb2.UsageDimension, "USAGE_DIMENSION_")
_ENTRY_KIND_OF: Final = enum_members(ENTRY_KINDS)
_DIMENSION_OF: Final = enum_members(DIMENSIONS)


class _OfTenant(Protocol):
    @property
    def tenant_id(self) -> str: ...


def to_tenant(request: _OfTenant, call: Call) -> TenantId:
    """The tenant that a request names, or else the caller's own. Raises INVALID_FIELD, SCOPE_MISSING."""
    return call.tenant_or(TenantId(to_id(request.tenant_id, "tenant_id")) if request.tenant_id else None)


def to_day(text: str, field: str) -> date | None:
    """The day that `text` spells, None for an empty one. Raises INVALID_FIELD for one that no calendar has."""
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise invalid_field(field, "must be a day of the calendar, as 2026-01-31") from None


def to_ledger_filter(request: billing_service_pb2.ListLedgerEntriesRequest) -> LedgerFilter:
    """Which entries a list asks for."""
    return LedgerFilter(
        # UNSPECIFIED among the values asks for every one.
        kinds=() if 0 in request.kinds else tuple(_ENTRY_KIND_OF[number] for number in request.kinds),
        job_id=JobId(to_id(request.job_id, "job_id")) if request.job_id else None,
        created_from=to_time(request, "created_from"),
        created_until=to_time(request, "created_until"),
    )


def to_dimensions(numbers: Sequence[int]) -> Sequence[UsageDimension]:
    """What usage is to be summed up by; empty: what is usual."""
    return tuple(_DIMENSION_OF[number] for number in numbers)


def to_price_filter(request: billing_service_pb2.ListPricesRequest) -> PriceFilter:
    """Which prices a list asks for."""
    return PriceFilter(request.provider, request.model, request.all_times)


def from_balance(balance: Balance) -> billing_pb2.Balance:
    """A balance as callers see it."""
    account = balance.account
    return billing_pb2.Balance(
        tenant_id=str(account.tenant_id),
        available=account.available,
        held=account.held,
        granted=account.granted,
        spent=account.spent,
        expired=account.expired,
        refunded=account.refunded,
        low_balance=account.low_balance,
        grants=[from_grant(grant) for grant in balance.grants],
    )


def from_grant(grant: Grant) -> billing_pb2.Grant:
    """A grant as callers see it."""
    return billing_pb2.Grant(
        id=str(grant.id),
        amount=grant.amount,
        remaining=grant.remaining,
        priority=grant.priority,
        expire_time=from_time_or_none(grant.expires_at),
        note=grant.note,
        create_time=from_time(grant.created_at),
    )


def from_entry(entry: LedgerEntry) -> billing_pb2.LedgerEntry:
    """A ledger entry as callers see it."""
    cause = entry.cause
    return billing_pb2.LedgerEntry(
        sequence=entry.seq,
        kind=ENTRY_KINDS[entry.kind],
        postings=from_postings(entry.postings),
        available_after=entry.available_after,
        held_after=entry.held_after,
        job_id=str(cause.job_id) if cause.job_id else "",
        request_id=cause.request_id,
        actor=str(cause.actor) if cause.actor else "",
        note=cause.note,
        create_time=from_time(entry.created_at),
        hash=entry.hash,
    )


def from_postings(amounts: Mapping[LedgerAccount, int]) -> Sequence[billing_pb2.Posting]:
    """What moved, in the order of the accounts' numbers; what did not move is left out."""
    return [
        billing_pb2.Posting(account=ACCOUNTS[account], amount=amounts[account])
        for account in LedgerAccount
        if amounts.get(account)
    ]


def from_usage_row(row: UsageRow) -> billing_service_pb2.UsageRow:
    """What was used, as callers see it."""
    return billing_service_pb2.UsageRow(
        date=row.day.isoformat() if row.day else "",
        operation=OPERATIONS[row.operation] if row.operation else billing_pb2.AI_OPERATION_UNSPECIFIED,
        provider=row.provider,
        model=row.model,
        user_id=row.user_id or "",
        calls=row.calls,
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
        items=row.items,
        cost_nano_dollars=nano_dollars(row.cost_pico_dollars),
    )


def from_price(price: Price) -> billing_pb2.Price:
    """A price as callers see it."""
    return billing_pb2.Price(
        provider=price.provider,
        model=price.model,
        operation=OPERATIONS[price.operation],
        input_price=price.input_price,
        output_price=price.output_price,
        fee=price.fee,
        valid_from=from_time(price.valid_from),
    )
