"""Holds from the job's acceptance to its end."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence

import asyncpg
import pytest
from structlog.testing import capture_logs

from memoro_core.billing.model import (
    BudgetScope,
    Cause,
    DeferralReason,
    Deferred,
    EntryKind,
    Grant,
    Held,
    HoldRequest,
    LedgerAccount,
    Refused,
)
from memoro_core.errors import Code, MemoroError, Reason
from memoro_core.ids import GrantId, JobId, UserId, new_id
from memoro_core.postgres.database import Database
from tests.support.billing import HOUR, USERS, job
from tests.support.credit_model import ModelCall
from tests.support.credit_world import CALENDAR, CreditWorld, open_credit_world
from tests.support.domain import Domain

MARGIN = 5_000


async def give(world: CreditWorld, amount: int, *, expires_in: int | None = None) -> None:
    expires_at = None if expires_in is None else world.now + expires_in * HOUR
    grant = Grant(GrantId(new_id()), amount, amount, 0, expires_at, "", world.now)
    await world.store.add_credits(world.tenant, grant, Cause(), None, now=world.now)


def asked(*bounds: int, first: int = 0) -> Sequence[HoldRequest]:
    return [HoldRequest(job(first + number), USERS[0], bound, f"r-{number}") for number, bound in enumerate(bounds)]


def embedding(tokens: int, *, attempt: int = 1, state: str = "DONE", failed: bool = False, fee: int = 0) -> ModelCall:
    """At $0.0001 for 1,000 tokens."""
    return ModelCall(attempt, state, failed, tokens, 100_000, fee, 1, request=1)


async def test_500_tokens_cost_7500_micro_credits_and_the_ledger_says_so(world: CreditWorld) -> None:
    await give(world, 100_000)
    assert await world.hold(asked(20_000), MARGIN) == [Held()]
    await world.call(job(0), 0, embedding(500))
    assert await world.resolve([job(0)], end=True) == {job(0): 7_500}
    account = (await world.balance()).account
    assert (account.available, account.held, account.spent) == (92_500, 0, 7_500)
    _, hold, settlement = await world.entries()
    assert (hold.kind, hold.cause.job_id, hold.cause.request_id) == (EntryKind.HOLD, job(0), "r-0")
    assert (settlement.kind, settlement.cause.job_id) == (EntryKind.SETTLEMENT, job(0))
    assert settlement.postings == {
        LedgerAccount.AVAILABLE: 12_500,
        LedgerAccount.HELD: -20_000,
        LedgerAccount.REVENUE: 2_500,
        LedgerAccount.PROVIDER_COST: 5_000,
    }


async def test_the_database_itself_lets_a_job_be_held_for_once_and_settled_once(world: CreditWorld) -> None:
    """Whatever writes there, and whatever it has looked up before."""
    await give(world, 100_000)
    await world.hold(asked(20_000), MARGIN)
    await world.call(job(0), 0, embedding(500))
    await world.resolve([job(0)], end=True)
    again = """
        INSERT INTO ledger_entries
        SELECT (jsonb_populate_record(entry, jsonb_build_object('seq', seq + 100))).*
        FROM ledger_entries AS entry
        WHERE tenant_id = $1 AND kind = $2
    """
    for kind in (EntryKind.HOLD, EntryKind.SETTLEMENT):
        with pytest.raises(asyncpg.UniqueViolationError, match="ledger_entries_by_job"):
            await world.owner.execute(again, world.tenant, kind)
    with pytest.raises(asyncpg.UniqueViolationError, match="credit_holds_pkey"):
        await world.owner.execute(
            "INSERT INTO credit_holds SELECT * FROM credit_holds WHERE tenant_id = $1", world.tenant
        )


async def test_a_tenant_that_never_had_credits_is_told_that_it_has_none(world: CreditWorld) -> None:
    assert await world.hold(asked(0, 5), MARGIN) == [Held(), Refused(5, 0)]
    assert await world.entries() == []


async def test_what_costs_nothing_touches_nothing(world: CreditWorld) -> None:
    world.database.after = 1
    async with world.database.tenant_tx(world.tenant) as connection:
        assert await world.holds(0).hold_in(connection, world.tenant, asked(0, 0), now=world.now) == [Held(), Held()]


@pytest.mark.parametrize("budgeted", [False, True])
async def test_a_hold_takes_two_statements(world: CreditWorld, budgeted: bool) -> None:
    await give(world, 100)
    if budgeted:
        for scope in BudgetScope:
            await world.set_limit(scope, 1_000)
        await world.hold(asked(1, first=10), MARGIN)
    world.database.after = 3
    async with world.database.tenant_tx(world.tenant) as connection:
        verdicts = await world.holds(0).hold_in(connection, world.tenant, asked(20, 20), now=world.now)
    assert verdicts == [Held(), Held()]


async def test_an_extension_needs_credits(world: CreditWorld) -> None:
    await give(world, 100)
    await world.hold(asked(60), MARGIN)
    with pytest.raises(MemoroError) as caught:
        await world.extend(job(0), 41, MARGIN)
    assert (caught.value.code, caught.value.reason) == (Code.FAILED_PRECONDITION, Reason.INSUFFICIENT_CREDITS)
    assert caught.value.metadata == {"tenant_id": str(world.tenant), "need": "41", "have": "40"}
    await world.extend(job(0), 40, MARGIN)
    account = (await world.balance()).account
    assert (account.available, account.held) == (0, 100)


async def test_a_job_that_has_ended_gets_no_more(world: CreditWorld) -> None:
    await give(world, 100)
    await world.hold(asked(60), MARGIN)
    await world.resolve([job(0)], end=True)
    with pytest.raises(ValueError, match="has ended"):
        await world.extend(job(0), 1, MARGIN)
    with pytest.raises(ValueError, match="no job"):
        await world.extend(job(5), 1, MARGIN)


async def test_a_job_that_was_to_be_free_gets_a_hold_when_it_is_not(world: CreditWorld) -> None:
    await give(world, 100)
    await world.set_limit(BudgetScope.USER, 1_000)
    await world.hold(asked(0), MARGIN)
    await world.extend(job(0), 30, MARGIN)
    await world.call(job(0), 0, embedding(1))
    assert await world.resolve([job(0)], end=True) == {job(0): 15}
    assert [entry.kind for entry in await world.entries()] == [EntryKind.GRANT, EntryKind.HOLD, EntryKind.SETTLEMENT]


async def test_what_a_job_holds_does_not_expire_until_it_ends(world: CreditWorld) -> None:
    await give(world, 100, expires_in=1)
    await world.hold(asked(60), MARGIN)
    world.now += 2 * HOUR
    assert await world.hold(asked(1, first=1), MARGIN) == [Refused(1, 0)]
    assert (await world.balance()).account.expired == 40
    await world.call(job(0), 0, embedding(2))
    assert await world.resolve([job(0)], end=True) == {job(0): 30}
    account = (await world.balance()).account
    assert (account.available, account.spent, account.expired) == (0, 30, 70)


async def test_jobs_that_run_are_not_settled(world: CreditWorld) -> None:
    await give(world, 100)
    await world.hold(asked(60), MARGIN)
    assert await world.resolve([job(0), job(1)], end=False) == {}
    assert (await world.balance()).account.held == 60


async def test_attempts_that_failed_are_paid_for_but_bring_no_fee(world: CreditWorld) -> None:
    await give(world, 1_000)
    await world.hold(asked(500), 0)
    await world.call(job(0), 0, embedding(3, failed=True, fee=100))
    await world.call(job(0), 1, embedding(4, attempt=2, fee=100))
    assert await world.resolve([job(0)], end=True) == {job(0): 30 + 40 + 100}


@pytest.mark.parametrize(("again", "tokens"), [(True, 4), (False, 30)])
async def test_a_call_whose_answer_was_lost_counts_for_what_it_may_have_used(
    world: CreditWorld, again: bool, tokens: int
) -> None:
    """For what the same call used when it was made again, if it was."""
    await give(world, 1_000)
    await world.hold(asked(900), 0)
    await world.call(job(0), 0, embedding(30, state="OPEN", fee=100))
    if again:
        await world.call(job(0), 1, embedding(4, attempt=2))
    charged = 10 * tokens + (40 if again else 0)
    assert await world.resolve([job(0)], end=True) == {job(0): charged}
    lost, *_ = sorted(await world.rows("ai_calls"), key=lambda row: row["attempt"])
    assert (lost["state"], lost["input_tokens"], lost["ended_at"]) == ("PRESUMED", tokens, world.now)


async def test_a_bill_above_the_hold_is_the_houses_loss_and_an_alarm(world: CreditWorld) -> None:
    await give(world, 1_000)
    await world.hold(asked(50), MARGIN)
    await world.call(job(0), 0, embedding(10))
    assert await world.resolve([job(0)], end=True) == {job(0): 50}
    *_, settlement = await world.entries()
    assert (settlement.postings[LedgerAccount.LOSS], settlement.postings[LedgerAccount.PROVIDER_COST]) == (-50, 100)
    [alert] = await world.rows("alerts")
    assert (alert["dedupe_key"], alert["severity"]) == (f"bill:{world.tenant}:{world.now.date()}", "CRITICAL")


async def test_bills_above_their_holds_are_one_alarm_a_day_and_a_line_of_the_log_each(world: CreditWorld) -> None:
    await give(world, 1_000)
    told = []
    for number, hours in enumerate((0, 0, 24)):
        world.now += hours * HOUR
        await world.hold(asked(50, first=number), MARGIN)
        await world.call(job(number), 0, embedding(10))
        with capture_logs() as lines:
            await world.resolve([job(number)], end=True)
        told += [line["job_id"] for line in lines if line["event"] == "bill_above_bound" and line["loss"] == 50]
    assert told == [str(job(number)) for number in range(3)]
    alerts = await world.rows("alerts")
    assert {json.loads(row["details"])["job_id"] for row in alerts} == {str(job(0)), str(job(2))}
    assert len(alerts) == 2


async def test_a_job_larger_than_a_day_is_told_as_such_and_no_threshold_is_lost(world: CreditWorld) -> None:
    await give(world, 1_000)
    await world.set_limit(BudgetScope.TENANT, 100)
    await world.hold(asked(101), MARGIN)
    assert await _told(world) == {("breaker.open", "too_large", "WARNING")}
    assert await world.events() == {}
    await world.hold(asked(50, first=1), MARGIN)
    await world.hold(asked(25, first=2), MARGIN)
    await world.hold(asked(26, first=3), MARGIN)
    crossed = {("budget.threshold", "50", "INFO"), ("budget.threshold", "75", "WARNING")}
    full = ("breaker.open", "full", "CRITICAL")
    assert await _told(world) == {("breaker.open", "too_large", "WARNING"), *crossed, full}
    assert await world.events() == {"spend.threshold": 2}
    [alert] = [row for row in await world.rows("alerts") if row["dedupe_key"].endswith("full")]
    details = json.loads(alert["details"])
    assert (details["needed"], details["left"], details["committed"]) == (26, 25, 75)
    assert "a job that needs 26 micro-credits does not fit into the 25 that are left" in alert["title"]


async def _told(world: CreditWorld) -> set[tuple[str, str, str]]:
    """Alerts: their kind, what their key ends with, and how urgent they are."""
    rows = await world.rows("alerts")
    return {(row["kind"], row["dedupe_key"].rpartition(":")[2], row["severity"]) for row in rows}


async def test_a_budget_counts_what_is_committed_when_it_is_set_and_nothing_when_it_is_gone(world: CreditWorld) -> None:
    await give(world, 1_000)
    await world.hold(asked(50, 40), MARGIN)
    await world.call(job(1), 0, embedding(2))
    await world.resolve([job(1)], end=True)
    await world.set_limit(BudgetScope.TENANT, 150)
    assert await _committed(world) == (50, 30)
    assert await world.hold(asked(71, first=2), MARGIN) == [
        Deferred(DeferralReason.TENANT, CALENDAR.day_end(world.now))
    ]
    # What was held before it there was is settled against it; another limit changes no more than the limit.
    await world.extend(job(0), 10, MARGIN)
    await world.set_limit(BudgetScope.TENANT, 1_000)
    assert await _committed(world) == (60, 30)
    await world.resolve([job(0)], end=True)
    assert await _committed(world) == (0, 30)
    await world.set_limit(BudgetScope.TENANT, None)
    await world.hold(asked(70, first=3), MARGIN)
    assert await _committed(world) == (0, 30)
    await world.set_limit(BudgetScope.TENANT, 1_000)
    assert await _committed(world) == (70, 30)


async def test_budgets_of_users_and_of_the_deployment_begin_with_what_is_committed_too(
    world: CreditWorld, domain: Domain, owner_database_url: str
) -> None:
    async with open_credit_world(domain.database, owner_database_url, world.now) as other:
        for one, bounds in ((world, (50, 7)), (other, (3,))):
            await give(one, 1_000)
            requests = [HoldRequest(job(n), USERS[n], bound) for n, bound in enumerate(bounds)]
            await one.hold(requests, MARGIN)
        for scope in (BudgetScope.USER, BudgetScope.DEPLOYMENT):
            await world.set_limit(scope, 1_000)
        days = {(row["scope"], row["user_id"]): row["reserved"] for row in await world.rows("budget_days")}
        assert days == {("USER", USERS[0]): 50, ("USER", USERS[1]): 7, ("DEPLOYMENT", ""): 60}
        await other.resolve([job(0)], end=True)
        days = {(row["scope"], row["user_id"]): row["reserved"] for row in await world.rows("budget_days")}
        assert days["DEPLOYMENT", ""] == 57


async def test_a_budget_that_is_set_while_jobs_begin_and_end_stays_true(world: CreditWorld) -> None:
    """What is being held in this very moment may be left out, and then is left out to the end."""
    await give(world, 10**6)

    async def run(first: int) -> None:
        for number in range(first, first + 20):
            await world.hold(asked(10, first=number), MARGIN)
            if number % 2:
                await world.call(job(number), 0, embedding(1))
                await world.resolve([job(number)], end=True)

    async def turn_on_and_off() -> None:
        for limit in (10**6, None) * 10:
            await world.set_limit(BudgetScope.TENANT, limit)

    await asyncio.gather(run(0), run(100), run(200), turn_on_and_off())
    await world.set_limit(BudgetScope.TENANT, 10**6)
    account = (await world.balance()).account
    assert await _committed(world) == (account.held, account.spent)


async def _committed(world: CreditWorld) -> tuple[int, int]:
    """What is reserved in, and spent of, the only budget on the only day."""
    [day] = await world.rows("budget_days")
    return day["reserved"], day["spent"]


async def test_a_job_that_ends_on_another_day_counts_for_its_own(world: CreditWorld) -> None:
    await give(world, 1_000)
    await world.set_limit(BudgetScope.USER, 100)
    await world.hold(asked(60), MARGIN)
    put_off = Deferred(DeferralReason.USER, CALENDAR.day_end(world.now))
    assert await world.hold(asked(60, first=1), MARGIN) == [put_off]
    yesterday = world.now.date()
    world.now += 24 * HOUR
    assert await world.hold(asked(60, first=1), MARGIN) == [Held()]
    await world.call(job(0), 0, embedding(2))
    await world.resolve([job(0)], end=True)
    days = {row["day"]: (row["reserved"], row["spent"]) for row in await world.rows("budget_days")}
    assert days == {yesterday: (0, 30), world.now.date(): (60, 0)}


async def test_tenants_that_race_for_the_deployments_budget_neither_overdraw_it_nor_block_each_other(
    world: CreditWorld, domain: Domain, owner_database_url: str
) -> None:
    limit, lots = 20_000, random.Random(7)
    async with open_credit_world(domain.database, owner_database_url, world.now) as other:
        await world.set_limit(BudgetScope.DEPLOYMENT, limit)
        for one in (world, other):
            await give(one, 10**9)
            for scope in (BudgetScope.TENANT, BudgetScope.USER):
                await one.set_limit(scope, 10**8)

        async def run(one: CreditWorld) -> None:
            for _ in range(15):
                requests = [
                    HoldRequest(JobId(new_id()), UserId(f"user-{lots.randrange(4)}"), lots.randint(1, 200))
                    for _ in range(lots.randint(1, 8))
                ]
                await one.hold(requests, MARGIN)
                job_ids = [request.job_id for request in requests[: len(requests) // 2]]
                await one.resolve(job_ids, end=True)

        await asyncio.gather(*(run(one) for one in (world, other) for _ in range(4)))
        held = [(await one.balance()).account.held for one in (world, other)]
        [day] = [row for row in await world.rows("budget_days") if row["scope"] == "DEPLOYMENT"]
        assert day["reserved"] + day["spent"] == sum(held) <= limit
        assert all([(await one.verify()).valid for one in (world, other)])


async def test_holds_of_a_tenant_at_once_are_as_if_one_came_after_the_other(world: CreditWorld, domain: Domain) -> None:
    """The same jobs from several callers at the same time, and more of them than there are credits for."""
    await give(world, 1_000)
    database: Database = domain.database

    async def ask(numbers: Sequence[int]) -> Sequence[bool]:
        requests = [HoldRequest(job(number), USERS[0], 7) for number in numbers]
        async with database.tenant_tx(world.tenant) as connection:
            verdicts = await world.holds(0).hold_in(connection, world.tenant, requests, now=world.now)
        return [verdict == Held() for verdict in verdicts]

    answers = await asyncio.gather(*(ask(range(first, first + 40)) for first in range(0, 200, 10)))
    assert any(all(answer) for answer in answers)
    account = (await world.balance()).account
    assert (account.available, account.held) == (1_000 % 7, 1_000 - 1_000 % 7)
    assert len(await world.rows("credit_holds")) == 1_000 // 7
