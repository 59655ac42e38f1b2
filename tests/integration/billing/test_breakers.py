"""A budget that is used up puts jobs off; room, a reset and the next day let them go, and nothing is spent above it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, time, timedelta

import pytest
import pytest_asyncio

from memoro_core.billing.model import BreakerState, BudgetKey, BudgetScope, DeferralReason
from memoro_core.errors import MemoroError, Reason
from memoro_core.idempotency import Idempotency
from memoro_core.ids import TenantId, UserId, new_id
from memoro_core.jobs.model import JobRef, JobState
from tests.support.budgets import ALICE, Spending, open_spending
from tests.support.domain import Domain
from tests.support.jobs import events_of

BOB = UserId("bob")
CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
QUEUED, DEFERRED = JobState.QUEUED, JobState.DEFERRED


@pytest_asyncio.fixture
async def spending(domain: Domain) -> AsyncIterator[Spending]:
    """A tenant with plenty of credits, and no budget."""
    async with open_spending(domain) as opened:
        await opened.fund()
        yield opened


async def test_jobs_beyond_the_budget_wait_for_the_next_day_without_a_hold(spending: Spending) -> None:
    await spending.limit(100)
    await spending.held(40, 2)
    job = await spending.accept(40)
    late = JobRef(spending.domain.tenant, job.id)
    day_end = datetime.combine(spending.now.date() + timedelta(1), time.min, UTC)
    assert (job.state, job.deferral_reason, job.run_at) == (DEFERRED, DeferralReason.TENANT, day_end)
    # It opened the breaker: what would fit waits behind it.
    (small,) = await spending.deferred(10)
    status = await spending.breaker()
    assert (status.budget.state, status.budget.reserved, status.budget.needed) == (OPEN, 80, 40)
    assert (status.deferred_jobs, status.day_end) == (2, day_end)
    assert (await spending.credits.balance(spending.domain.tenant)).account.held == 80

    await spending.releaser.round()
    assert await spending.states([late, small]) == [DEFERRED, DEFERRED]
    spending.pass_time(hours=11, minutes=59)
    await spending.releaser.round()
    assert await spending.states([late, small]) == [DEFERRED, DEFERRED]
    spending.next_day()
    await spending.releaser.round()
    assert await spending.states([late, small]) == [QUEUED, QUEUED]
    today = await spending.breaker()
    assert (today.budget.state, today.budget.reserved, today.deferred_jobs) == (CLOSED, 50, 0)
    assert [event.state for event in await events_of(spending.domain, late)] == [DEFERRED, QUEUED]
    assert (await spending.credits.balance(spending.domain.tenant)).account.held == 130


async def test_yesterday_s_row_is_left_as_it_is(spending: Spending) -> None:
    await spending.limit(100)
    (running,) = await spending.held(100)
    await spending.deferred(40)
    yesterday = spending.now.date()
    spending.next_day()
    await spending.releaser.round()
    old = await spending.breakers.status(spending.key(), yesterday)
    assert old is not None
    assert (old.budget.state, old.budget.reserved) == (OPEN, 100)
    await spending.end(running, cost=7)
    old = await spending.breakers.status(spending.key(), yesterday)
    assert old is not None
    assert (old.budget.reserved, old.budget.spent) == (0, 7)
    assert (await spending.breaker()).budget.committed == 40


async def test_a_reset_lets_jobs_go_in_order_as_far_as_they_fit(spending: Spending) -> None:
    await spending.limit(100)
    await spending.held(100)
    waiting = await spending.deferred(30, 5)
    status = await spending.breakers.reset(spending.principal, spending.key())
    assert (status.budget.state, status.budget.ceiling, status.deferred_jobs) == (HALF_OPEN, 200, 5)
    await spending.releaser.round()
    assert await spending.states(waiting) == [QUEUED] * 3 + [DEFERRED] * 2
    status = await spending.breaker()
    assert (status.budget.state, status.budget.committed, status.budget.needed) == (OPEN, 190, 30)
    await spending.breakers.reset(spending.principal, spending.key())
    await spending.releaser.round()
    assert await spending.states(waiting) == [QUEUED] * 5
    assert await spending.state() is HALF_OPEN
    await spending.releaser.round()
    assert await spending.state() is CLOSED


async def test_what_waits_goes_before_jobs_that_were_put_off(spending: Spending) -> None:
    await spending.limit(100)
    await spending.held(100)
    (late,) = await spending.deferred(50)
    await spending.breakers.reset(spending.principal, spending.key())
    await spending.releaser.round()
    spending.pass_time(minutes=5)
    (normal,) = await spending.held(50)
    async with spending.domain.database.tenant_tx(spending.domain.tenant) as connection:
        ranks = await connection.fetch(
            "SELECT job_id FROM jobs WHERE job_id = ANY ($1) ORDER BY rank_at", [late.job_id, normal.job_id]
        )
    assert [row["job_id"] for row in ranks] == [normal.job_id, late.job_id]


async def test_room_that_jobs_give_back_lets_others_go_without_a_reset(spending: Spending) -> None:
    await spending.limit(100)
    first, second = await spending.held(50, 2)
    (late,) = await spending.deferred(60)
    assert await spending.end(first, cost=10) == 10
    await spending.releaser.round()
    assert (await spending.state(), await spending.states([late])) == (OPEN, [DEFERRED])
    assert await spending.end(second, cost=20) == 20
    await spending.releaser.round()
    assert (await spending.state(), await spending.states([late])) == (HALF_OPEN, [QUEUED])
    await spending.releaser.round()
    budget = (await spending.breaker()).budget
    assert (budget.state, budget.spent, budget.reserved) == (CLOSED, 30, 60)


async def test_a_breaker_whose_jobs_were_cancelled_closes_unless_the_budget_is_used_up(spending: Spending) -> None:
    await spending.limit(100)
    (running,) = await spending.held(100)
    (late,) = await spending.deferred(1)
    await spending.domain.job_store.cancel(late.tenant_id, late.job_id, now=spending.now)
    await spending.releaser.round()
    assert await spending.state() is OPEN
    await spending.end(running, cost=99)
    await spending.releaser.round()
    assert await spending.state() is CLOSED


async def test_a_job_larger_than_the_budget_stands_in_nobody_s_way(spending: Spending) -> None:
    await spending.limit(100)
    (huge,) = await spending.deferred(101)
    await spending.held(40)
    (late,) = await spending.deferred(70)
    spending.next_day()
    await spending.releaser.round()
    assert await spending.states([huge, late]) == [DEFERRED, QUEUED]
    more = await spending.held(30)
    await spending.deferred(1)
    for job in (late, *more):
        await spending.end(job)
    for _ in range(3):
        await spending.releaser.round()
    assert await spending.states([huge]) == [DEFERRED]
    await spending.breakers.reset(spending.principal, spending.key())
    await spending.releaser.round()
    assert await spending.states([huge]) == [QUEUED]


@pytest.mark.parametrize("limit", [1000, None])
async def test_another_limit_lets_jobs_go(spending: Spending, limit: int | None) -> None:
    await spending.limit(100)
    await spending.held(100)
    waiting = await spending.deferred(100, 3)
    await spending.limit(limit)
    await spending.releaser.round()
    assert await spending.states(waiting) == [QUEUED] * 3
    await spending.releaser.round()
    await spending.limit(1000)
    assert await spending.state() is CLOSED


async def test_each_user_has_a_budget_of_its_own(spending: Spending) -> None:
    await spending.limit(100, BudgetScope.USER)
    await spending.held(100, user_id=ALICE)
    (late,) = await spending.deferred(50, user_id=ALICE)
    await spending.held(100, user_id=BOB)
    (other,) = await spending.deferred(50, user_id=BOB)
    assert await spending.reasons([late, other]) == [DeferralReason.USER] * 2
    await spending.breakers.reset(spending.principal, spending.key(BudgetScope.USER, BOB))
    await spending.releaser.round()
    assert await spending.states([late, other]) == [DEFERRED, QUEUED]
    await spending.releaser.round()
    assert await spending.state(BudgetScope.USER, ALICE) is OPEN
    assert await spending.state(BudgetScope.USER, BOB) is CLOSED
    listed = await spending.breakers.breakers(spending.domain.tenant)
    shown = [(one.budget.key.user_id, one.budget.ceiling, one.deferred_jobs) for one in listed]
    assert shown == [(ALICE, 100, 1), (BOB, 200, 0)]


async def test_the_deployment_s_budget_bounds_all_tenants_and_the_oldest_go_first(spending: Spending) -> None:
    tenants = [spending.domain.tenant, await spending.domain.new_tenant(), await spending.domain.new_tenant()]
    for tenant in tenants[1:]:
        await spending.fund(tenant_id=tenant)
    await spending.limit(100, BudgetScope.DEPLOYMENT)
    await spending.held(100)
    # The newest tenant's job is the oldest.
    waiting = [job for tenant in reversed(tenants) for job in await spending.deferred(50, tenant_id=tenant)]
    assert await spending.reasons(waiting) == [DeferralReason.DEPLOYMENT] * 3
    assert (await spending.breaker(BudgetScope.DEPLOYMENT)).deferred_jobs == 3
    (listed,) = await spending.breakers.breakers()
    assert (listed.budget.key, listed.budget.state) == (BudgetKey(BudgetScope.DEPLOYMENT), OPEN)
    await spending.breakers.reset(spending.principal, spending.key(BudgetScope.DEPLOYMENT))
    await spending.releaser.round()
    assert await spending.states(waiting) == [QUEUED, QUEUED, DEFERRED]


async def test_a_tenant_that_can_t_be_held_starves_no_other(spending: Spending) -> None:
    other = await spending.domain.new_tenant()
    await spending.fund(tenant_id=other)
    await spending.limit(10)
    await spending.limit(10, tenant_id=other)
    await spending.held(10)
    await spending.held(10, tenant_id=other)
    await spending.deferred(10, 20)
    (waiting,) = await spending.deferred(10, tenant_id=other)
    spending.next_day()
    await spending.releaser.round()
    assert await spending.states([waiting]) == [QUEUED]
    assert (await spending.breaker()).deferred_jobs == 19


async def test_a_job_that_another_budget_stops_waits_for_that(spending: Spending) -> None:
    await spending.limit(100)
    await spending.limit(100, BudgetScope.USER)
    await spending.held(100)
    (late,) = await spending.deferred(100)
    assert await spending.reasons([late]) == [DeferralReason.TENANT]
    await spending.breakers.reset(spending.principal, spending.key())
    await spending.releaser.round()
    assert (await spending.states([late]), await spending.reasons([late])) == ([DEFERRED], [DeferralReason.USER])
    await spending.releaser.round()
    assert await spending.state() is CLOSED
    await spending.breakers.reset(spending.principal, spending.key(BudgetScope.USER, ALICE))
    await spending.releaser.round()
    assert await spending.states([late]) == [QUEUED]


async def test_a_job_that_can_t_be_paid_when_it_is_let_go_waits_for_credits(domain: Domain) -> None:
    async with open_spending(domain) as spending:
        await spending.fund(100)
        await spending.limit(50)
        (running,) = await spending.held(50)
        dear, cheap = await spending.deferred(50) + await spending.deferred(30)
        spending.next_day()
        await spending.end(running, cost=40)
        await spending.limit(1000)
        # 60 are left: the first takes 50 of them.
        await spending.releaser.round()
        assert await spending.states([dear, cheap]) == [QUEUED, DEFERRED]
        assert await spending.reasons([cheap]) == [DeferralReason.CREDITS]
        with pytest.raises(MemoroError) as caught:
            await spending.accept(30)
        assert caught.value.reason is Reason.INSUFFICIENT_CREDITS
        events = len(await events_of(domain, cheap))
        await spending.releaser.round()
        assert await spending.states([cheap]) == [DEFERRED]
        await spending.fund(19)
        await spending.releaser.round()
        assert await spending.states([cheap]) == [DEFERRED]
        await spending.fund(1)
        await spending.releaser.round()
        assert await spending.states([cheap]) == [QUEUED]
        assert len(await events_of(domain, cheap)) == events + 1
        assert (await spending.credits.balance(domain.tenant)).account.available == 0


async def test_of_jobs_that_wait_for_credits_those_go_that_can_be_paid(domain: Domain) -> None:
    async with open_spending(domain) as spending:
        await spending.fund(100)
        await spending.limit(1)
        waiting = [ref for bound in (90, 20, 10) for ref in await spending.deferred(bound)]
        async with domain.database.tenant_tx(domain.tenant) as connection:
            await connection.execute("UPDATE jobs SET deferral_reason = 'CREDITS' WHERE state = 'DEFERRED'")
        await spending.limit(None)
        await spending.held(75)
        await spending.releaser.round()
        assert await spending.states(waiting) == [DEFERRED, QUEUED, DEFERRED]


async def test_triggering_lets_go_no_more_than_fits(spending: Spending) -> None:
    await spending.limit(100)
    (running,) = await spending.held(100)
    waiting = await spending.deferred(30, 4)
    assert await spending.releaser.release_all(spending.domain.tenant, until=1e12) == 0
    await spending.end(running, cost=40)
    # The breaker has not moved on yet; the operator's word alone moves nothing.
    assert await spending.releaser.release_all(None, until=1e12) == 0
    await spending.breakers.turn()
    assert await spending.releaser.release_all(None, until=1e12) == 2
    assert await spending.states(waiting) == [QUEUED, QUEUED, DEFERRED, DEFERRED]
    assert (await spending.breaker()).budget.committed == 100


async def test_rounds_at_the_same_time_let_each_job_go_once(spending: Spending) -> None:
    await spending.limit(100)
    await spending.held(100)
    waiting = await spending.deferred(5, 30)
    await spending.breakers.reset(spending.principal, spending.key())
    await asyncio.gather(*(spending.releaser.round() for _ in range(6)))
    await spending.releaser.round()
    assert (await spending.states(waiting)).count(QUEUED) == 20
    assert (await spending.breaker()).budget.committed == 200
    for ref in waiting:
        await events_of(spending.domain, ref)


async def test_new_jobs_and_released_ones_together_never_exceed_the_budget(spending: Spending) -> None:
    await spending.limit(300)
    await spending.held(150)
    await spending.deferred(200)
    await spending.deferred(50, 10)
    await asyncio.gather(
        *(spending.accept(20, user_id=UserId(f"u{n}")) for n in range(20)),
        *(spending.releaser.round() for _ in range(4)),
        spending.breakers.reset(spending.principal, spending.key()),
    )
    for _ in range(3):
        await spending.releaser.round()
    budget = (await spending.breaker()).budget
    assert budget.committed <= budget.ceiling == 600
    account = (await spending.credits.balance(spending.domain.tenant)).account
    assert account.held == budget.reserved


async def test_resetting_and_setting_are_done_once_a_request(spending: Spending) -> None:
    key, once = spending.key(), Idempotency("r1", b"x" * 32)
    spending.budgets.append(key)
    status = await spending.breakers.set_budget(spending.principal, key, 100, idempotency=once)
    assert status is not None
    assert (status.budget.limit, status.budget.committed) == (100, 0)
    await spending.limit(200)
    again = await spending.breakers.set_budget(spending.principal, key, 100, idempotency=once)
    assert again is not None
    assert again.budget.limit == 200
    for _ in range(2):
        reset = await spending.breakers.reset(spending.principal, key, idempotency=Idempotency("r2", b"y" * 32))
        assert reset.budget.ceiling == 400
    with pytest.raises(MemoroError) as caught:
        await spending.breakers.reset(spending.principal, key, idempotency=Idempotency("r2", b"z" * 32))
    assert caught.value.reason is Reason.REQUEST_ID_REUSED


async def test_what_is_no_budget_can_t_be_reset_and_can_be_set_later(spending: Spending) -> None:
    once = Idempotency("r3", b"x" * 32)
    with pytest.raises(MemoroError) as caught:
        await spending.breakers.reset(spending.principal, spending.key(), idempotency=once)
    assert caught.value.reason is Reason.BUDGET_NOT_FOUND
    await spending.limit(10)
    assert (await spending.breakers.reset(spending.principal, spending.key(), idempotency=once)).budget.ceiling == 20


@pytest.mark.parametrize(
    ("key", "field"),
    [
        (BudgetKey(BudgetScope.TENANT), "tenant_id"),
        (BudgetKey(BudgetScope.USER), "tenant_id"),
        (BudgetKey(BudgetScope.DEPLOYMENT, TenantId(new_id())), "tenant_id"),
        (BudgetKey(BudgetScope.DEPLOYMENT, user_id=ALICE), "user_id"),
        (BudgetKey(BudgetScope.TENANT, TenantId(new_id()), ALICE), "user_id"),
        (BudgetKey(BudgetScope.USER, TenantId(new_id()), ALICE), "user_id"),
    ],
)
async def test_a_budget_is_named_by_its_scope(spending: Spending, key: BudgetKey, field: str) -> None:
    with pytest.raises(MemoroError) as caught:
        await spending.breakers.set_budget(spending.principal, key, 1)
    assert [violation.field for violation in caught.value.violations] == [field]


async def test_a_tenant_that_does_not_exist_gets_no_budget(spending: Spending) -> None:
    with pytest.raises(MemoroError) as caught:
        await spending.breakers.set_budget(spending.principal, BudgetKey(BudgetScope.TENANT, TenantId(new_id())), 1)
    assert caught.value.reason is Reason.TENANT_NOT_FOUND


async def test_of_a_budget_that_nothing_was_spent_of_the_limit_is_told(spending: Spending) -> None:
    await spending.limit(0)
    await spending.limit(7, BudgetScope.USER)
    (listed,) = await spending.breakers.breakers(spending.domain.tenant)
    assert (listed.budget.key.scope, listed.budget.limit, listed.budget.state) == (BudgetScope.TENANT, 0, CLOSED)
    await spending.deferred(1)
    assert await spending.state() is OPEN
