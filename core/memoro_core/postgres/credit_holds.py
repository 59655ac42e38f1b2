"""Holds in PostgreSQL: what jobs may cost is set aside, extended, and settled when they end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime
from typing import Any, Final

import structlog
from asyncpg import Record

from memoro_core.billing import budgets, notices
from memoro_core.billing.admission import admit, hold
from memoro_core.billing.calendar import Calendar
from memoro_core.billing.errors import insufficient_credits
from memoro_core.billing.grants import changed_by, consume
from memoro_core.billing.ledger import Movement, post
from memoro_core.billing.model import (
    DEPLOYMENT,
    BudgetDay,
    BudgetKey,
    BudgetScope,
    Cause,
    Cost,
    CreditAccount,
    EntryKind,
    Held,
    Hold,
    HoldRequest,
    HoldState,
    HoldVerdict,
    LedgerAccount,
    Refused,
)
from memoro_core.billing.settlement import Settlement, settle
from memoro_core.ids import JobId, TenantId, UserId
from memoro_core.postgres.alert_store import raise_alert_in
from memoro_core.postgres.credit_posting import expire_in, grants_left_in, move_in
from memoro_core.postgres.credit_rows import account_of, budget_of, budget_row, hold_of
from memoro_core.postgres.database import Connection
from memoro_core.postgres.queries import load_queries
from memoro_core.postgres.webhook_store import announce_in
from memoro_core.webhooks.events import balance_low, spend_threshold
from memoro_core.webhooks.model import WebhookEvent

_SQL: Final = load_queries("credits")
_HELD: Final = Held()
_log: Final = structlog.get_logger(__name__)


class CreditHolds:
    """What is set aside for jobs, in transactions of their tenant that others have begun and commit.

    A job has one hold, from the transaction that accepts it to the one that ends it. Every method locks holds, then the
    tenant's account, then budgets: whoever locks jobs in the same transaction does so before.
    """

    def __init__(self, calendar: Calendar, *, margin_basis_points: int) -> None:
        self._calendar = calendar
        self._margin = margin_basis_points

    async def hold_in(
        self, connection: Connection, tenant_id: TenantId, requests: Sequence[HoldRequest], *, now: datetime
    ) -> Sequence[HoldVerdict]:
        """A verdict per request, in order of arrival; what is Held is set aside.

        Jobs that may cost nothing are Held without a look at the account. A job that has a hold gets no other.
        """
        paid = [request for request in requests if request.bound]
        if not paid:
            return [_HELD] * len(requests)
        day = self._calendar.day(now)
        account, days = await self._lock(connection, tenant_id, {request.user_id for request in paid}, day)
        if account is None:
            return [Refused(request.bound, 0) if request.bound else _HELD for request in requests]
        account = await expire_in(connection, account, now=now)
        before = {budget.key: budget for budget in days}
        known: list[JobId] = []
        while True:
            admission = admit(
                requests, account.available, days, known=known, now=now, day_end=self._calendar.day_end(now)
            )
            after, entries = post(account, map(hold, admission.admitted), now)
            after, is_low = notices.tell_low(after)
            news = [budgets.tell(before[budget.key], budget) for budget in admission.days]
            changed = [one.budget for one in news if one.budget != before[one.budget.key]]
            rows = await connection.fetch(
                _SQL["hold"],
                tenant_id,
                admission.turned_away,
                after.available,
                after.held,
                after.is_low,
                after.last_seq,
                after.last_hash,
                self._margin,
                day,
                now,
                account.last_seq + 1,
                [request.job_id for request in admission.admitted],
                [request.user_id for request in admission.admitted],
                [request.bound for request in admission.admitted],
                [request.request_id for request in admission.admitted],
                [entry.available_after for entry in entries],
                [entry.held_after for entry in entries],
                [entry.hash for entry in entries],
                _scopes(days),
                [budget_row(budget) for budget in changed],
            )
            if not rows:
                break
            known += [row["job_id"] for row in rows]
        if is_low:
            event = balance_low(tenant_id, after.available, after.low_balance, now)
            await announce_in(connection, tenant_id, [event], now=now)
        await _tell(connection, tenant_id, news, now=now)
        return admission.verdicts

    async def extend_in(
        self, connection: Connection, tenant_id: TenantId, job_id: JobId, amount: int, *, now: datetime
    ) -> None:
        """Sets more aside for a job that runs; budgets are told of it, and don't stop it.

        A job that had nothing set aside, because it was to cost nothing, gets a hold. Raises INSUFFICIENT_CREDITS.
        """
        row = await connection.fetchrow(_SQL["lock_hold"], tenant_id, job_id)
        if row is None:
            user_id = await connection.fetchval(_SQL["user_of_job"], tenant_id, job_id)
            if user_id is None:
                raise ValueError(f"no job {job_id}")
            day = self._calendar.day(now)
            account, days = await self._lock(connection, tenant_id, {user_id}, day)
            found = Hold(job_id, UserId(user_id), 0, self._margin, day, _scopes(days))
        elif row["state"] != HoldState.PENDING:
            raise ValueError(f"job {job_id} has ended")
        else:
            found = hold_of(row)
            account, days = await self._lock_for(connection, tenant_id, found)
        if account is not None:
            account = await expire_in(connection, account, now=now)
        if account is None or account.available < amount:
            raise insufficient_credits(tenant_id, amount, account.available if account else 0)
        movement = Movement(
            EntryKind.EXTENSION if found.amount else EntryKind.HOLD,
            {LedgerAccount.AVAILABLE: -amount, LedgerAccount.HELD: amount},
            Cause(job_id),
        )
        news = [budgets.tell(budget, budgets.extend(budget, amount, now), extended=amount) for budget in days]
        await move_in(connection, account, [movement], await grants_left_in(connection, account), (), now=now)
        await connection.execute(
            _SQL["extend_hold"],
            tenant_id,
            job_id,
            found.user_id,
            found.amount + amount,
            found.margin_basis_points,
            found.day,
            found.scopes,
            now,
        )
        if news:
            await connection.execute(_SQL["reserve"], found.day, [budget_row(one.budget) for one in news])
        await _tell(connection, tenant_id, news, now=now)

    async def resolve_in(
        self, connection: Connection, tenant_id: TenantId, job_ids: Sequence[JobId], *, now: datetime
    ) -> Mapping[JobId, int]:
        """Settles or releases the holds of those jobs that have ended: what each was charged, by job.

        Of jobs that go on, had no hold, or were settled before, nothing is said. What a job cost is what its calls did;
        those whose answer was lost count for what they may have used.
        """
        holds = [hold_of(row) for row in await connection.fetch(_SQL["lock_ended"], tenant_id, list(job_ids))]
        if not holds:
            return {}
        ended = [found.job_id for found in holds]
        costs = {
            row["job_id"]: Cost(int(row["pico_dollars"]), int(row["fees"]))
            for row in await connection.fetch(_SQL["settle_calls"], tenant_id, ended, now)
        }
        settled = [settle(found, costs.get(found.job_id, Cost())) for found in holds]
        row = await connection.fetchrow(_SQL["lock_account"], tenant_id)
        assert row is not None, "a hold has an account"
        account = account_of(row)
        grants = await grants_left_in(connection, account)
        used = consume(grants, sum(settlement.charged for settlement in settled))
        movements = [settlement.movement for settlement in settled]
        await move_in(connection, account, movements, changed_by(grants, used), used, now=now)
        await connection.execute(
            _SQL["end_holds"],
            tenant_id,
            ended,
            [settlement.charged for settlement in settled],
            now,
            _reserved(tenant_id, settled),
        )
        if above := [settlement for settlement in settled if settlement.above_bound]:
            day = self._calendar.day(now)
            await raise_alert_in(connection, notices.bill_above_bound(tenant_id, above, day, now))
            for settlement in above:
                _log.warning("bill_above_bound", tenant_id=str(tenant_id), **notices.bill_facts(settlement))
        return {settlement.hold.job_id: settlement.charged for settlement in settled}

    async def _lock(
        self, connection: Connection, tenant_id: TenantId, user_ids: Collection[UserId], day: date
    ) -> tuple[CreditAccount | None, Sequence[BudgetDay]]:
        """The account and the budgets of a day, locked; None for a tenant that never had credits."""
        rows = await connection.fetch(_SQL["lock_for_holds"], tenant_id, list(user_ids), day)
        if first := [row for row in rows if row["scope"] is not None and row["state"] is None]:
            await connection.execute(
                _SQL["begin_budget_days"],
                day,
                [row["budget_tenant_id"] for row in first],
                [row["scope"] for row in first],
                [row["user_id"] for row in first],
            )
            rows = await connection.fetch(_SQL["lock_for_holds"], tenant_id, list(user_ids), day)
        return _locked(rows)

    async def _lock_for(
        self, connection: Connection, tenant_id: TenantId, found: Hold
    ) -> tuple[CreditAccount | None, Sequence[BudgetDay]]:
        """The account and the budgets in which a hold is reserved, locked."""
        keys = _keys(tenant_id, found)
        rows = await connection.fetch(
            _SQL["lock_days_of_hold"],
            tenant_id,
            found.day,
            [key.tenant_id for key in keys],
            [key.scope for key in keys],
            [key.user_id or "" for key in keys],
        )
        return _locked(rows)


async def _tell(connection: Connection, tenant_id: TenantId, news: Sequence[budgets.News], *, now: datetime) -> None:
    """Tells operators, and the tenant of its own budgets, which thresholds this transaction has crossed.

    Operators learn too of breakers that it has opened.
    """
    events: list[WebhookEvent] = []
    for one in news:
        budget = one.budget
        if one.left is not None:
            await raise_alert_in(connection, notices.breaker_open(budget, one.left, now))
        for percent in one.percents:
            await raise_alert_in(connection, notices.budget_threshold(budget, percent, now))
            if budget.key.scope is not BudgetScope.DEPLOYMENT:
                committed, limit = budget.committed, budget.ceiling
                event = spend_threshold(budget.key, percent, committed=committed, limit=limit, day=budget.day, now=now)
                events.append(event)
    if events:
        await announce_in(connection, tenant_id, events, now=now)


def _locked(rows: Sequence[Record]) -> tuple[CreditAccount | None, Sequence[BudgetDay]]:
    account = account_of(rows[0]) if rows else None
    return account, [budget_of(row) for row in rows if row["scope"] is not None]


def _scopes(days: Sequence[BudgetDay]) -> Sequence[BudgetScope]:
    """The kinds of budgets that bound a tenant's jobs."""
    return sorted({budget.key.scope for budget in days})


def _keys(tenant_id: TenantId, found: Hold) -> Sequence[BudgetKey]:
    """The budgets in which a hold is reserved."""
    return [
        BudgetKey(
            scope,
            DEPLOYMENT if scope is BudgetScope.DEPLOYMENT else tenant_id,
            found.user_id if scope is BudgetScope.USER else None,
        )
        for scope in found.scopes
    ]


def _reserved(tenant_id: TenantId, settled: Sequence[Settlement]) -> Sequence[Mapping[str, Any]]:
    """What the holds that ended had reserved of each budget and day, and what was charged of it."""
    reserved: Counter[tuple[BudgetKey, date]] = Counter()
    charged: Counter[tuple[BudgetKey, date]] = Counter()
    for settlement in settled:
        for key in _keys(tenant_id, settlement.hold):
            reserved[key, settlement.hold.day] += settlement.hold.amount
            charged[key, settlement.hold.day] += settlement.charged
    return [
        {
            "tenant_id": key.tenant_id,
            "scope": key.scope,
            "user_id": key.user_id or "",
            "day": day,
            "reserved": amount,
            "charged": charged[key, day],
        }
        for (key, day), amount in reserved.items()
    ]
