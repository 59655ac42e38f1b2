"""What operators and tenants are told of money."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Final

from pydantic import JsonValue

from memoro_core.alerts.model import Alert, AlertKind, Severity
from memoro_core.billing.budgets import is_shut
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
    return Alert(
        AlertId(new_id()),
        budget.key.tenant_id,
        _key("budget", budget, str(percent)),
        AlertKind.BUDGET_THRESHOLD,
        _SEVERITIES[percent],
        f"{percent} % of the daily budget of {_WHOSE[budget.key.scope]} are used",
        now,
        {**_facts(budget), "percent": percent},
    )


def breaker_open(budget: BudgetDay, left: int, now: datetime) -> Alert:
    """That a job did not fit into what was left of a daily budget; once a budget and day.

    Urgent when other jobs are put off for it. One that is larger than the budget of a whole day is another matter, told
    once as well: it waits alone, until somebody raises the limit.
    """
    shut = is_shut(budget)
    whose = _WHOSE[budget.key.scope]
    problem = (
        f"does not fit into the {left} that are left of the daily budget of {whose}"
        if shut
        else f"never fits into the daily budget of {whose}, which is {budget.ceiling}"
    )
    return Alert(
        AlertId(new_id()),
        budget.key.tenant_id,
        _key("breaker", budget, "full" if shut else "too_large"),
        AlertKind.BREAKER_OPEN,
        Severity.CRITICAL if shut else Severity.WARNING,
        f"the breaker is open: a job that needs {budget.needed} micro-credits {problem}",
        now,
        {**_facts(budget), "needed": budget.needed, "left": left},
    )


def bill_above_bound(tenant_id: TenantId, settlements: Sequence[Settlement], day: date, now: datetime) -> Alert:
    """That jobs cost more than was set aside for them; once a tenant and day, with the worst of those known by then.

    Urgent when the house pays the difference.
    """
    worst = max(settlements, key=lambda one: (one.loss, one.bill - one.hold.amount))
    return Alert(
        AlertId(new_id()),
        tenant_id,
        f"bill:{tenant_id}:{day}",
        AlertKind.BILL_ABOVE_BOUND,
        Severity.CRITICAL if worst.loss else Severity.WARNING,
        "a job cost more than was set aside for it",
        now,
        {"date": day.isoformat(), **bill_facts(worst)},
    )


def bill_facts(settlement: Settlement) -> dict[str, JsonValue]:
    """What a job's bill was, as alerts and log lines tell it."""
    return {
        "job_id": str(settlement.hold.job_id),
        "held": settlement.hold.amount,
        "bill": settlement.bill,
        "charged": settlement.charged,
        "loss": settlement.loss,
    }


def _key(what: str, budget: BudgetDay, more: str) -> str:
    key = budget.key
    return f"{what}:{key.scope}:{key.tenant_id}:{key.user_id or ''}:{budget.day}:{more}"


def _facts(budget: BudgetDay) -> Mapping[str, JsonValue]:
    key = budget.key
    return {
        "scope": key.scope,
        "tenant_id": str(key.tenant_id) if key.tenant_id != DEPLOYMENT else "",
        "user_id": key.user_id or "",
        "date": budget.day.isoformat(),
        "committed": budget.committed,
        "limit": budget.ceiling,
        "breaker": budget.state,
    }
