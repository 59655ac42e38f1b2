"""What rows of money mean, and how they are written."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from asyncpg import Record

from memoro_core.billing.grants import expire, lapse, next_expiry
from memoro_core.billing.ledger import post
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
from memoro_core.postgres.database import Connection
from memoro_core.postgres.queries import load_queries

_SQL: Final = load_queries("credits")


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


async def grants_left_in(
    connection: Connection, account: CreditAccount, *, limit: int | None = None
) -> Sequence[Grant]:
    """Grants that have something left, in the order in which they are used up; to be read with the account locked."""
    return [grant_of(row) for row in await connection.fetch(_SQL["grants_left"], account.tenant_id, limit)]


async def post_in(
    connection: Connection, account: CreditAccount, entries: Sequence[LedgerEntry], *, now: datetime
) -> None:
    """Writes an account that is locked, and the entries that brought it there."""
    await connection.execute(
        _SQL["post"],
        account.tenant_id,
        account.available,
        account.held,
        account.granted,
        account.spent,
        account.expired,
        account.refunded,
        account.low_balance,
        account.is_low,
        account.next_expiry_at,
        account.last_seq,
        account.last_hash,
        now,
        account.last_seq - len(entries) + 1,
        [entry.kind for entry in entries],
        *([entry.postings.get(place, 0) for entry in entries] for place in LedgerAccount),
        [entry.available_after for entry in entries],
        [entry.held_after for entry in entries],
        [entry.cause.job_id for entry in entries],
        [entry.cause.request_id for entry in entries],
        [entry.cause.actor for entry in entries],
        [entry.cause.note for entry in entries],
        [entry.hash for entry in entries],
    )


async def write_grants_in(connection: Connection, account: CreditAccount, grants: Sequence[Grant]) -> None:
    """Writes grants that are new, or of which something was taken."""
    if not grants:
        return
    await connection.execute(
        _SQL["write_grants"],
        account.tenant_id,
        [grant.id for grant in grants],
        [grant.amount for grant in grants],
        [grant.remaining for grant in grants],
        [grant.priority for grant in grants],
        [grant.expires_at for grant in grants],
        [grant.note for grant in grants],
        [grant.created_at for grant in grants],
    )


def expiring(account: CreditAccount, now: datetime) -> bool:
    """Whether the time of a grant is over, and it has not been seen to."""
    return account.next_expiry_at is not None and account.next_expiry_at <= now


async def expire_in(connection: Connection, account: CreditAccount, *, now: datetime) -> CreditAccount:
    """Takes what was not used in time from an account that is locked; the account after it, written."""
    grants = await grants_left_in(connection, account)
    expired = expire(grants, account.held, now)
    account, entries = post(account, [lapse(grant, lost) for grant, lost in expired], now)
    account = dataclasses.replace(account, next_expiry_at=next_expiry(grants, now))
    await post_in(connection, account, entries, now=now)
    await write_grants_in(connection, account, [grant for grant, _ in expired])
    return account
