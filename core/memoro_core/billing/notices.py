"""What operators and tenants are told of money."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Final

from memoro_core.alerts.model import Alert, AlertKind, Severity
from memoro_core.billing.model import DEPLOYMENT, BudgetDay, BudgetScope, CreditAccount
from memoro_core.billing.settlement import Settlement
from memoro_core.ids import AlertId, TenantId, new_id

_SEVERITIES: Final = {50: Severity.INFO, 75: Severity.WARNING, 100: Severity.CRITICAL}
_WHOSE: Final = {
    BudgetScope.DEPLOYMENT: "the deployment",
    BudgetScope.TENANT: "a tenant",
    BudgetScope.USER: "a user",
}


def tell_low(account: CreditAccount) -> tuple[CreditAccount, bool]:
    """Whether the tenant is to be told that little is left: once, until more is there again."""
    is_low = account.available < account.low_balance
    if is_low == account.is_low:
        return account, False
    return dataclasses.replace(account, is_low=is_low), is_low


def budget_threshold(budget: BudgetDay, percent: int, now: datetime) -> Alert:
    """That so many percent of a daily budget are set aside or spent; once a budget, day and threshold."""
    key = budget.key
    return Alert(
        AlertId(new_id()),
        key.tenant_id,
        f"budget:{key.scope}:{key.tenant_id}:{key.user_id or ''}:{budget.day}:{percent}",
        AlertKind.BUDGET_THRESHOLD,
        _SEVERITIES[percent],
        f"{percent} % of the daily budget of {_WHOSE[key.scope]} are used",
        now,
        {
            "scope": key.scope,
            "tenant_id": str(key.tenant_id) if key.tenant_id != DEPLOYMENT else "",
            "user_id": key.user_id or "",
            "date": budget.day.isoformat(),
            "percent": percent,
            "committed": budget.committed,
            "limit": budget.ceiling,
            "breaker": budget.state,
        },
    )


def bill_above_bound(tenant_id: TenantId, settlement: Settlement, now: datetime) -> Alert:
    """That a job cost more than was set aside for it; urgent when the house pays the difference."""
    hold = settlement.hold
    return Alert(
        AlertId(new_id()),
        tenant_id,
        f"bill:{tenant_id}:{hold.job_id}",
        AlertKind.BILL_ABOVE_BOUND,
        Severity.CRITICAL if settlement.loss else Severity.WARNING,
        "a job cost more than was set aside for it",
        now,
        {
            "job_id": str(hold.job_id),
            "held": hold.amount,
            "bill": settlement.bill,
            "charged": settlement.charged,
            "loss": settlement.loss,
        },
    )
