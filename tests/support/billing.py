"""Things of billing that Hypothesis makes up, and figures that tests reckon by themselves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from hypothesis import strategies as st

from memoro_core.billing.model import (
    BudgetDay,
    BudgetKey,
    BudgetScope,
    CreditAccount,
    Grant,
    HoldRequest,
    LedgerAccount,
)
from memoro_core.ids import GrantId, JobId, TenantId, UserId

NOW: Final = datetime(2026, 1, 31, 12, tzinfo=UTC)
DAY_END: Final = datetime(2026, 2, 1, tzinfo=UTC)
HOUR: Final = timedelta(hours=1)
TENANT: Final = TenantId(UUID(int=7))
USERS: Final = (UserId("alice"), UserId("bob"))
HOUSE: Final = (LedgerAccount.REVENUE, LedgerAccount.PROVIDER_COST, LedgerAccount.ROUNDING, LedgerAccount.LOSS)

amounts = st.integers(1, 1_000)
whole_numbers = st.integers(0, 10**15)
expiries = st.sampled_from([None, NOW - HOUR, NOW, NOW + HOUR, NOW + 2 * HOUR])


@st.composite
def some_grants(draw: st.DrawFn) -> Sequence[Grant]:
    """Up to six, in any order, some of them used up or over."""
    made = []
    for number in range(draw(st.integers(0, 6))):
        amount = draw(amounts)
        remaining = draw(st.integers(0, amount))
        made.append(
            Grant(GrantId(UUID(int=number)), amount, remaining, draw(st.integers(0, 2)), draw(expiries), "", NOW)
        )
    return draw(st.permutations(made))


@st.composite
def some_requests(draw: st.DrawFn) -> Sequence[HoldRequest]:
    """Of few jobs, so that some come twice."""
    bounds = {number: draw(st.integers(0, 400)) for number in range(12)}
    numbers = draw(st.lists(st.integers(0, 11), max_size=16))
    return [HoldRequest(job(number), USERS[number % 2], bounds[number], f"r{number}") for number in numbers]


@st.composite
def some_days(draw: st.DrawFn) -> Sequence[BudgetDay]:
    """Budgets of the deployment, the tenant and its users, each perhaps."""
    keys = [
        BudgetKey(BudgetScope.DEPLOYMENT),
        BudgetKey(BudgetScope.TENANT, TENANT),
        *(BudgetKey(BudgetScope.USER, TENANT, user_id) for user_id in USERS),
    ]
    return [
        BudgetDay(key, NOW.date(), draw(st.integers(0, 800)), reserved=draw(st.integers(0, 300)))
        for key in keys
        if draw(st.booleans())
    ]


def job(number: int) -> JobId:
    """The same job for the same number."""
    return JobId(UUID(int=1000 + number))


def account(available: int, held: int = 0) -> CreditAccount:
    """One that was granted what it has."""
    return CreditAccount(TENANT, available=available, held=held, granted=available + held)


def total(grants: Iterable[Grant]) -> int:
    """What is left of grants."""
    return sum(grant.remaining for grant in grants)


def balanced(one: CreditAccount) -> bool:
    """Whether it has all that it was ever granted, somewhere."""
    return one.granted == one.available + one.held + one.spent + one.expired + one.refunded
