"""What rows of money mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asyncpg import Record

from memoro_core.billing.model import (
    BreakerState,
    BudgetDay,
    BudgetKey,
    BudgetScope,
    Cause,
    CreditAccount,
    EntryKind,
    Grant,
    Hold,
    LedgerAccount,
    LedgerEntry,
)
from memoro_core.ids import UserId


def account_of(row: Record) -> CreditAccount:
    return CreditAccount(
        tenant_id=row["tenant_id"],
        available=row["available"],
        held=row["held"],
        granted=row["granted"],
        spent=row["spent"],
        expired=row["expired"],
        refunded=row["refunded"],
        low_balance=row["low_balance"],
        is_low=row["is_low"],
        next_expiry_at=row["next_expiry_at"],
        last_seq=row["last_seq"],
        last_hash=row["last_hash"],
    )


def budget_of(row: Record) -> BudgetDay:
    """Of a row of `lock_for_holds` that has a budget and its day."""
    return BudgetDay(
        key=BudgetKey(BudgetScope(row["scope"]), row["budget_tenant_id"], UserId(row["user_id"]) or None),
        day=row["day"],
        limit=row["daily_limit"],
        reserved=row["reserved"],
        spent=row["day_spent"],
        raised=row["raised"],
        state=BreakerState(row["state"]),
        needed=row["needed"],
        alerted=row["alerted"],
        opened_at=row["opened_at"],
    )


def budget_row(day: BudgetDay) -> Mapping[str, Any]:
    """What a decision over new jobs changes of a budget."""
    return {
        "tenant_id": day.key.tenant_id,
        "scope": day.key.scope,
        "user_id": day.key.user_id or "",
        "state": day.state,
        "reserved": day.reserved,
        "needed": day.needed,
        "alerted": day.alerted,
        "opened_at": day.opened_at,
    }


def grant_of(row: Record) -> Grant:
    return Grant(
        id=row["grant_id"],
        amount=row["amount"],
        remaining=row["remaining"],
        priority=row["priority"],
        expires_at=row["expires_at"],
        note=row["note"],
        created_at=row["created_at"],
    )


def hold_of(row: Record) -> Hold:
    return Hold(
        job_id=row["job_id"],
        user_id=UserId(row["user_id"]),
        amount=row["amount"],
        margin_basis_points=row["margin_basis_points"],
        day=row["day"],
        scopes=[BudgetScope(scope) for scope in row["scopes"]],
    )


def entry_of(row: Record) -> LedgerEntry:
    return LedgerEntry(
        tenant_id=row["tenant_id"],
        seq=row["seq"],
        kind=EntryKind(row["kind"]),
        postings={place: amount for place in LedgerAccount if (amount := row[place.value])},
        available_after=row["available_after"],
        held_after=row["held_after"],
        cause=Cause(row["job_id"], row["request_id"], row["actor"], row["note"]),
        created_at=row["created_at"],
        hash=row["hash"],
    )
