"""Budgets, deferral and release in PostgreSQL against a model in plain Python: whatever happens, the two agree."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar, cast

import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import settings as profile
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from memoro_core.billing.model import BudgetScope
from memoro_core.errors import MemoroError, Reason
from memoro_core.ids import UserId
from memoro_core.jobs.model import JobRef, JobState
from memoro_core.settings import Settings
from tests.support.budget_model import CLOSED, BudgetModel, DayModel, PaidJob
from tests.support.budgets import Spending, open_spending
from tests.support.domain import open_domain

FUNDS = 400
users = st.sampled_from([UserId("alice"), UserId("bob")])
scopes = st.sampled_from(BudgetScope)
amounts = st.integers(1, 60)
limits = st.sampled_from([0, 20, 50, 100, 200])
numbers = st.integers(0, 63)
T = TypeVar("T")


class BudgetMachine(RuleBasedStateMachine):
    """A history of a tenant's spending. Each rule does one thing to the database and to the model."""

    def __init__(self, loop: asyncio.Runner, settings: Settings) -> None:
        super().__init__()
        self._loop = loop
        self._domain = open_domain(settings)
        self.domain = self.run(self._domain.__aenter__())
        self._spending = open_spending(self.domain)
        self.spending: Spending = self.run(self._spending.__aenter__())
        self.run(self.spending.fund(FUNDS))
        self.model = BudgetModel(FUNDS)

    def teardown(self) -> None:
        self.run(self._spending.__aexit__(None, None, None))
        self.run(self._domain.__aexit__(None, None, None))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run(work)

    def chosen(self, number: int, state: JobState) -> PaidJob | None:
        among = [job for job in self.model.jobs.values() if job.state is state]
        return among[number % len(among)] if among else None

    def ref(self, job: PaidJob) -> JobRef:
        return JobRef(self.domain.tenant, job.id)

    @rule(user=users, bounds=st.lists(amounts, min_size=1, max_size=6))
    def accept(self, user: UserId, bounds: Sequence[int]) -> None:
        """Some jobs, one after the other."""
        for bound in bounds:
            try:
                job = self.run(self.spending.accept(bound, user))
            except MemoroError as refused:
                if refused.reason is not Reason.INSUFFICIENT_CREDITS or bound <= self.model.available:
                    raise
                continue
            self.model.accept(job.id, user, bound, self.spending.now)

    @rule(number=numbers, share=st.sampled_from([0, 1, 2]))
    def end(self, number: int, share: int) -> None:
        """At no cost, at half of what it may cost, or at all of it."""
        if (job := self.chosen(number, JobState.QUEUED)) is None:
            return
        charge = job.bound * share // 2
        assert self.run(self.spending.end(self.ref(job), cost=charge)) == charge
        self.model.end(job, charge)

    @rule(number=numbers)
    def cancel(self, number: int) -> None:
        if (job := self.chosen(number, JobState.DEFERRED)) is None:
            return
        self.run(self.domain.job_store.cancel(self.domain.tenant, job.id, now=self.spending.now))
        job.state = JobState.CANCELLED

    @initialize(scope=scopes, limit=limits)
    def begin(self, scope: BudgetScope, limit: int) -> None:
        self.limit(scope, limit)

    @rule(scope=scopes, limit=limits | st.none())
    def limit(self, scope: BudgetScope, limit: int | None) -> None:
        self.run(self.spending.limit(limit, scope))
        self.model.limit(scope, limit, self.spending.now)

    @rule(number=numbers)
    def reset_what_is_open(self, number: int) -> None:
        today = self.spending.now.date()
        among = [key for (day, key), one in self.model.days.items() if day == today and one.state is not CLOSED]
        if among:
            self.reset(*among[number % len(among)])

    @rule(scope=scopes, user=users)
    def reset(self, scope: BudgetScope, user: UserId) -> None:
        user_id = user if scope is BudgetScope.USER else None
        try:
            self.run(self.spending.breakers.reset(self.spending.principal, self.spending.key(scope, user_id)))
        except MemoroError as refused:
            if refused.reason is not Reason.BUDGET_NOT_FOUND or scope in self.model.limits:
                raise
            return
        self.model.reset((scope, user_id or UserId("")), self.spending.now)

    @rule(amount=amounts)
    def fund(self, amount: int) -> None:
        self.run(self.spending.fund(amount))
        self.model.available += amount

    @rule(rounds=st.integers(1, 3))
    def round(self, rounds: int) -> None:
        for _ in range(rounds):
            self.run(self.spending.releaser.round())
            self.model.round(self.spending.now)

    @rule()
    def trigger(self) -> None:
        before = len(self.model.deferred())
        released = self.run(self.spending.releaser.release_all(self.domain.tenant, until=1e12))
        self.model.let_go(self.model.deferred(), self.spending.now)
        assert released == before - len(self.model.deferred())

    @rule(seconds=st.sampled_from([1, 600]))
    def wait(self, seconds: int) -> None:
        self.spending.pass_time(seconds=seconds)

    @precondition(lambda self: self.model.jobs)
    @rule()
    def next_day(self) -> None:
        self.spending.next_day()

    @invariant()
    def the_database_is_where_the_model_is(self) -> None:
        account, jobs, days, holds = self.run(self.read())
        assert (account["available"], account["held"]) == (self.model.available, self.model.held)
        assert {row["job_id"]: (row["state"], row["deferral_reason"], row["run_at"]) for row in jobs} == {
            job.id: (job.state, job.reason, job.run_at) for job in self.model.jobs.values()
        }
        stood = {
            (row["day"], (BudgetScope(row["scope"]), UserId(row["user_id"]))): DayModel(
                row["reserved"], row["spent"], row["raised"], row["state"], row["needed"]
            )
            for row in days
        }
        # A row may be there before anything is reserved.
        nothing = DayModel()
        used = {key: day for key, day in stood.items() if day != nothing}
        assert used == {key: day for key, day in self.model.days.items() if day != nothing}
        # Only what may run is held for.
        assert {row["job_id"] for row in holds} == {job.id for job in self.model.jobs.values() if job.held}

    async def read(self) -> tuple[Any, Any, Any, Any]:
        """What there is of the tenant and of the deployment."""
        async with self.domain.database.tenant_tx(self.domain.tenant) as connection:
            return (
                await connection.fetchrow("SELECT available, held FROM credit_accounts"),
                await connection.fetch("SELECT job_id, state, deferral_reason, run_at FROM jobs"),
                await connection.fetch(
                    "SELECT scope, user_id, day, state, reserved, spent, raised, needed FROM budget_days"
                ),
                await connection.fetch("SELECT job_id FROM credit_holds WHERE state = 'PENDING'"),
            )


@pytest.mark.slow
def test_budgets_keep_to_their_model(settings: Settings) -> None:
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as loop:
        run_state_machine_as_test(
            cast(type[BudgetMachine], lambda: BudgetMachine(loop, settings)),
            settings=profile(
                max_examples=20,
                stateful_step_count=30,
                # Shortening a failed history takes minutes.
                phases=set(Phase) - {Phase.shrink, Phase.explain},
                deadline=None,
                print_blob=True,
                suppress_health_check=list(HealthCheck),
            ),
        )
