"""Turns messages about money into the client's own types."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

from memoro import enums, types
from memoro.v1 import admin_service_pb2, billing_pb2, billing_service_pb2
from memoro.wire import enum_of, optional_enum_of, time_of


def balance(message: billing_pb2.Balance) -> types.Balance:
    return types.Balance(
        tenant_id=message.tenant_id,
        available=message.available,
        held=message.held,
        granted=message.granted,
        spent=message.spent,
        expired=message.expired,
        refunded=message.refunded,
        low_balance=message.low_balance,
        grants=tuple(grant(one) for one in message.grants),
    )


def grant(message: billing_pb2.Grant) -> types.Grant:
    return types.Grant(
        id=message.id,
        amount=message.amount,
        remaining=message.remaining,
        priority=message.priority,
        expire_time=time_of(message, "expire_time"),
        note=message.note,
        create_time=time_of(message, "create_time"),
    )


def ledger_entry(message: billing_pb2.LedgerEntry) -> types.LedgerEntry:
    return types.LedgerEntry(
        sequence=message.sequence,
        kind=enum_of(enums.LedgerEntryKind, message.kind),
        postings=_postings(message.postings),
        available_after=message.available_after,
        held_after=message.held_after,
        job_id=message.job_id,
        request_id=message.request_id,
        actor=message.actor,
        note=message.note,
        create_time=time_of(message, "create_time"),
        hash=message.hash,
    )


def usage_row(message: billing_service_pb2.UsageRow) -> types.UsageRow:
    return types.UsageRow(
        day=_day(message.date),
        operation=optional_enum_of(enums.AiOperation, message.operation),
        provider=message.provider,
        model=message.model,
        user_id=message.user_id,
        calls=message.calls,
        input_tokens=message.input_tokens,
        output_tokens=message.output_tokens,
        items=message.items,
        cost_nano_dollars=message.cost_nano_dollars,
    )


def estimate(message: billing_service_pb2.EstimateCostResponse) -> types.Estimate:
    return types.Estimate(
        amount=message.amount,
        lines=tuple(
            types.EstimateLine(
                operation=enum_of(enums.AiOperation, line.operation),
                provider=line.provider,
                model=line.model,
                items=line.items,
                input_tokens=line.input_tokens,
                output_tokens=line.output_tokens,
                cost_nano_dollars=line.cost_nano_dollars,
            )
            for line in message.lines
        ),
        margin_basis_points=message.margin_basis_points,
        available=message.available,
    )


def price(message: billing_pb2.Price) -> types.Price:
    return types.Price(
        provider=message.provider,
        model=message.model,
        operation=enum_of(enums.AiOperation, message.operation),
        input_price=message.input_price,
        output_price=message.output_price,
        fee=message.fee,
        valid_from=time_of(message, "valid_from"),
    )


def breaker(message: billing_pb2.SpendBreaker) -> types.SpendBreaker:
    return types.SpendBreaker(
        scope=enum_of(enums.BudgetScope, message.scope),
        tenant_id=message.tenant_id,
        user_id=message.user_id,
        state=enum_of(enums.BreakerState, message.state),
        day=_day(message.date),
        limit=message.limit,
        reserved=message.reserved,
        spent=message.spent,
        percent_used=message.percent_used,
        deferred_jobs=message.deferred_jobs,
        open_time=time_of(message, "open_time"),
        day_end_time=time_of(message, "day_end_time"),
    )


def ai_costs(message: admin_service_pb2.GetAiCostsResponse) -> types.AiCosts:
    return types.AiCosts(
        day=_day(message.date),
        cost_nano_dollars=message.cost_nano_dollars,
        budget=breaker(message.budget) if message.HasField("budget") else None,
        operations=tuple(
            types.OperationCost(
                operation=enum_of(enums.AiOperation, one.operation),
                provider=one.provider,
                model=one.model,
                calls=one.calls,
                input_tokens=one.input_tokens,
                output_tokens=one.output_tokens,
                cost_nano_dollars=one.cost_nano_dollars,
                for_questions=one.for_questions,
            )
            for one in message.operations
        ),
        recent_calls=tuple(_ai_call(one) for one in message.recent_calls),
        house=_postings(message.house),
    )


def ledger_verification(message: admin_service_pb2.VerifyLedgerResponse) -> types.LedgerVerification:
    return types.LedgerVerification(
        valid=message.valid,
        entries=message.entries,
        first_invalid_sequence=message.first_invalid_sequence,
        problem=message.problem,
        head_hash=message.head_hash,
        complete=message.complete,
    )


def _ai_call(message: admin_service_pb2.AiCall) -> types.AiCall:
    return types.AiCall(
        tenant_id=message.tenant_id,
        job_id=message.job_id,
        attempt=message.attempt,
        call=message.call,
        operation=enum_of(enums.AiOperation, message.operation),
        provider=message.provider,
        model=message.model,
        input_tokens=message.input_tokens,
        output_tokens=message.output_tokens,
        cost_nano_dollars=message.cost_nano_dollars,
        presumed=message.presumed,
        start_time=time_of(message, "start_time"),
    )


def _postings(messages: Iterable[billing_pb2.Posting]) -> dict[enums.LedgerAccount, int]:
    return {enum_of(enums.LedgerAccount, posting.account): posting.amount for posting in messages}


def _day(text: str) -> date | None:
    return date.fromisoformat(text) if text else None
