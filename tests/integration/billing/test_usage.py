"""What was used and what it has cost, summed up over real calls and settlements."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date, timedelta
from itertools import pairwise
from typing import Any

import pytest
import pytest_asyncio

from memoro_core.billing.calendar import Calendar
from memoro_core.billing.model import DEPLOYMENT, BudgetScope, LedgerAccount
from memoro_core.billing.usage import UsageService
from memoro_core.billing.usage_model import UsageDimension, UsageReport
from memoro_core.errors import MemoroError, Reason
from memoro_core.ids import JobId, TenantId, UserId, new_id
from memoro_core.jobs.cron import time_zone_of
from memoro_core.jobs.model import JobRef
from memoro_core.llm.model import Operation
from memoro_core.postgres.usage_store import PostgresUsageStore
from tests.support.budgets import ALICE, Spending, add_call, open_spending
from tests.support.domain import Domain

BOB = UserId("bob")
DAY, OPERATION, MODEL, USER = UsageDimension
HUGE = 2**62


@pytest_asyncio.fixture
async def spending(domain: Domain) -> AsyncIterator[Spending]:
    async with open_spending(domain) as opened:
        await opened.fund()
        yield opened


@pytest.fixture
def usage(spending: Spending) -> UsageService:
    store = PostgresUsageStore(spending.domain.database)
    return UsageService(store, spending.breakers, Calendar(time_zone_of("UTC")), spending.clock)


async def call(spending: Spending, tenant_id: TenantId | None = None, *, days_ago: int = 0, **columns: Any) -> JobRef:
    """A call of a job of its own."""
    ref = JobRef(tenant_id or spending.domain.tenant, JobId(new_id()))
    async with spending.domain.database.tenant_tx(ref.tenant_id) as connection:
        await add_call(
            connection, ref, **{"day": spending.now - timedelta(days=days_ago), "input_tokens": 10, **columns}
        )
    return ref


async def all_pages(usage: UsageService, spending: Spending, size: int, **asked: Any) -> list[UsageReport]:
    """Every page of a report."""
    pages: list[UsageReport] = []
    while not pages or pages[-1].rows.next_position:
        position = pages[-1].rows.next_position if pages else None
        pages.append(await usage.usage(spending.domain.tenant, size=size, position=position, **asked))
    return pages


async def test_usage_is_summed_up_by_what_is_asked_for(spending: Spending, usage: UsageService) -> None:
    today = spending.now.date()
    await call(spending, output_tokens=1)
    await call(spending, user_id=BOB, items=3)
    await call(spending, operation="extract", model="large", failed=True)
    await call(spending, days_ago=2)
    await call(spending, await spending.domain.new_tenant())

    report = await usage.usage(spending.domain.tenant, size=10)
    assert report.rows.next_position is None
    shown = [(row.day, row.operation, row.provider, row.model, row.user_id, row.calls) for row in report.rows.items]
    assert shown == [
        (today, Operation.EMBED, "openai", "small", None, 2),
        (today, Operation.EXTRACT, "openai", "large", None, 1),
        (today - timedelta(days=2), Operation.EMBED, "openai", "small", None, 1),
    ]
    first = report.rows.items[0]
    assert (first.input_tokens, first.output_tokens, first.items, first.cost_pico_dollars) == (20, 1, 4, 22)

    (alone,) = (await usage.usage(spending.domain.tenant, group_by=[USER], user_id=BOB, size=10)).rows.items
    assert (alone.day, alone.operation, alone.provider, alone.model) == (None, None, "", "")
    assert (alone.user_id, alone.calls, alone.items) == (BOB, 1, 3)
    by_model = (await usage.usage(spending.domain.tenant, group_by=[MODEL], size=10)).rows.items
    assert [(row.model, row.calls) for row in by_model] == [("large", 1), ("small", 3)]
    assert not (await usage.usage(spending.domain.tenant, last=today - timedelta(days=3), size=10)).rows.items
    only = await usage.usage(spending.domain.tenant, first=today - timedelta(2), last=today - timedelta(2), size=10)
    assert [row.calls for row in only.rows.items] == [1]


@pytest.mark.parametrize("size", [1, 2, 7])
@pytest.mark.parametrize(
    "group_by", [(), (DAY,), (USER,), (DAY, USER), (OPERATION, MODEL), (DAY, OPERATION, MODEL, USER)]
)
async def test_pages_hold_each_row_once_and_in_order(
    spending: Spending, usage: UsageService, size: int, group_by: tuple[UsageDimension, ...]
) -> None:
    for number in range(24):
        await call(
            spending,
            days_ago=number % 3,
            user_id=f"user {number % 4}",
            operation=("embed", "extract")[number % 2],
            model=f"model {number % 5}",
        )
    (whole,) = await all_pages(usage, spending, 500, group_by=group_by)
    pages = await all_pages(usage, spending, size, group_by=group_by)
    rows = [row for page in pages for row in page.rows.items]
    assert rows == whole.rows.items
    assert sum(row.calls for row in rows) == 24
    assert all(len(page.rows.items) == size for page in pages[:-1])
    keys = [(row.operation or "", row.provider, row.model, row.user_id or "") for row in rows]
    for (before, earlier), (after, later) in pairwise(zip(rows, keys, strict=True)):
        if before.day == after.day:
            assert earlier < later
        else:
            assert before.day is not None
            assert after.day is not None
            assert before.day > after.day


async def test_sums_do_not_overflow(spending: Spending, usage: UsageService) -> None:
    for _ in range(4):
        await call(spending, input_tokens=HUGE)
    (row,) = (await usage.usage(spending.domain.tenant, size=10)).rows.items
    assert row.input_tokens == row.cost_pico_dollars == 4 * HUGE
    costs = await usage.costs(tenant_id=spending.domain.tenant, recent=1)
    assert costs.cost_pico_dollars == 4 * HUGE


async def test_what_was_charged_is_what_settlements_took_in_those_days(spending: Spending, usage: UsageService) -> None:
    first, second = await spending.held(100, 2)
    (other,) = await spending.held(100, user_id=BOB)
    await spending.held(100)
    assert await spending.end(first, cost=30) == 30
    spending.next_day()
    assert await spending.end(second, cost=5) == 5
    assert await spending.end(other) == 0
    today, tenant = spending.now.date(), spending.domain.tenant
    assert (await usage.usage(tenant, size=1)).charged == 35
    assert (await usage.usage(tenant, first=today, size=1)).charged == 5
    assert (await usage.usage(tenant, last=today - timedelta(1), size=1)).charged == 30
    assert (await usage.usage(tenant, user_id=ALICE, size=1)).charged == 35
    assert (await usage.usage(tenant, user_id=BOB, size=1)).charged == 0
    assert (await usage.usage(await spending.domain.new_tenant(), size=1)).charged == 0


async def test_days_are_those_of_the_time_zone(spending: Spending) -> None:
    store = PostgresUsageStore(spending.domain.database)
    usage = UsageService(store, spending.breakers, Calendar(time_zone_of("Pacific/Auckland")), spending.clock)
    (job,) = await spending.held(100)
    # Noon in UTC: the next day has begun there.
    await spending.end(job, cost=9)
    today, tenant = spending.now.date(), spending.domain.tenant
    assert (await usage.usage(tenant, first=today, last=today, size=1)).charged == 0
    assert (await usage.usage(tenant, first=today + timedelta(1), size=1)).charged == 9


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"first": date(2039, 1, 2), "last": date(2039, 1, 1)}, "from_date"),
        ({"first": date(2039, 1, 1), "last": date(2040, 1, 3)}, "from_date"),
        ({"last": date.max}, "to_date"),
    ],
)
async def test_days_that_make_no_sense_are_refused(
    spending: Spending, usage: UsageService, asked: dict[str, Any], field: str
) -> None:
    with pytest.raises(MemoroError) as caught:
        await usage.usage(spending.domain.tenant, size=1, **asked)
    assert [violation.field for violation in caught.value.violations] == [field]


@pytest.mark.parametrize("first", [None, date.min])
async def test_the_first_of_all_days_is_a_day(spending: Spending, usage: UsageService, first: date | None) -> None:
    assert not (await usage.usage(spending.domain.tenant, first=first, last=date.min, size=1)).rows.items


@pytest.mark.parametrize("position", [("",), ("tomorrow", "", "", "", ""), ("", "bill", "", "", "")])
async def test_a_token_that_somebody_made_up_is_refused(
    spending: Spending, usage: UsageService, position: tuple[str, ...]
) -> None:
    with pytest.raises(MemoroError) as caught:
        await usage.usage(spending.domain.tenant, size=1, position=position)
    assert caught.value.reason is Reason.PAGE_TOKEN_INVALID


async def test_what_a_day_has_cost(spending: Spending, usage: UsageService) -> None:
    other = await spending.domain.new_tenant()
    await spending.fund(tenant_id=other)
    (job,) = await spending.held(100)
    (theirs,) = await spending.held(100, tenant_id=other)
    await spending.limit(1000)
    await spending.limit(4000, BudgetScope.DEPLOYMENT)
    (bound,) = await spending.held(500)
    await spending.end(job, cost=3)
    await spending.end(theirs, cost=4)
    await call(spending, operation="extract", model="large", state="OPEN", ended_at=None, input_tokens=1)

    mine = await usage.costs(tenant_id=spending.domain.tenant, recent=1)
    assert (mine.day, mine.cost_pico_dollars) == (spending.now.date(), 30_001)
    assert [(one.operation, one.model, one.calls) for one in mine.operations] == [
        (Operation.EMBED, "small", 1),
        (Operation.EXTRACT, "large", 1),
    ]
    assert mine.budget is not None
    assert (mine.budget.budget.key, mine.budget.budget.committed) == (spending.key(), 503)
    assert mine.house[LedgerAccount.PROVIDER_COST] == 3
    (recent,) = mine.recent_calls
    assert recent.tenant_id == spending.domain.tenant

    everybody = await usage.costs(recent=100)
    assert everybody.cost_pico_dollars == 70_001
    assert everybody.budget is not None
    assert (everybody.budget.budget.key.tenant_id, everybody.budget.budget.limit) == (DEPLOYMENT, 4000)
    assert {one.job_id: one.presumed for one in everybody.recent_calls if one.model == "small"} == {
        job.job_id: False,
        theirs.job_id: False,
    }
    assert [one.presumed for one in everybody.recent_calls if one.model == "large"] == [True]
    assert everybody.house[LedgerAccount.PROVIDER_COST] == 7
    # What tenants were given and have left is no part of it: the day's settlements alone, which sum to what they took.
    assert sum(everybody.house[one] for one in (LedgerAccount.REVENUE, LedgerAccount.ROUNDING)) == 0
    assert bound
    tomorrow = await usage.costs(spending.now.date() + timedelta(1), recent=5)
    assert (tomorrow.operations, tomorrow.recent_calls, set(tomorrow.house.values())) == ([], [], {0})


async def test_the_latest_calls_come_first(spending: Spending, usage: UsageService) -> None:
    jobs = []
    for _ in range(5):
        spending.pass_time(seconds=1)
        jobs.append((await call(spending)).job_id)
    for tenant in (None, spending.domain.tenant):
        costs = await usage.costs(tenant_id=tenant, recent=3)
        assert [one.job_id for one in costs.recent_calls] == jobs[:1:-1]
