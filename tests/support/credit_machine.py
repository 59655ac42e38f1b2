"""A history of a tenant's money for Hypothesis to make up: each rule does one thing to database and model."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar
from uuid import UUID

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from memoro_core.billing.ledger import replay
from memoro_core.billing.model import BudgetScope, Cause, EntryKind, Grant, HoldRequest, LedgerAccount
from memoro_core.errors import Code, MemoroError, Reason
from memoro_core.idempotency import Idempotency
from memoro_core.ids import GrantId, JobId, UserId, new_id
from memoro_core.postgres.database import Database
from tests.support.crashes import Crashed
from tests.support.credit_model import CreditModel, ModelCall
from tests.support.credit_world import CALENDAR, MARGINS, CreditWorld, open_credit_world, user_of

JOBS: Final = 24
HOUR: Final = timedelta(hours=1)
R = TypeVar("R")

numbers = st.integers(0, JOBS - 1)
amounts = st.integers(1, 2_000)
margins = st.sampled_from(MARGINS)
# After which statement of a transaction it breaks off (0: it is made, and nobody learns of it), and whether PostgreSQL
# ends the connection; mostly all goes well.
crashes = st.none() | st.none() | st.tuples(st.integers(1, 9), st.booleans()) | st.just((0, False))
batches = st.lists(st.tuples(numbers, st.integers(0, 600)), min_size=1, max_size=8)
expiries = st.sampled_from([None, 1, 5, 30])
calls = st.builds(
    ModelCall,
    attempt=st.integers(1, 3),
    state=st.sampled_from(["OPEN", "DONE", "DONE"]),
    failed=st.just(False),
    # Some cost whole micro-credits, so that rounding shows where there is nothing to round.
    tokens=st.integers(0, 60).map(lambda thousands: thousands * 1_000) | st.integers(0, 60_000),
    price=st.sampled_from([100, 100, 0, 333]),
    fee=st.sampled_from([0, 5]),
    items=st.integers(0, 3),
    request=st.integers(0, 1),
).map(lambda call: dataclasses.replace(call, failed=call.state == "DONE" and call.items == 0))
Crash = tuple[int, bool] | None


class CreditMachine(RuleBasedStateMachine):
    """A history of a tenant's money. What breaks off leaves nothing; all else the database and the model agree on."""

    def __init__(self, loop: asyncio.Runner, database: Database, owner_url: str, start: datetime) -> None:
        super().__init__()
        self._loop = loop
        self._opened = open_credit_world(database, owner_url, start)
        self.world: CreditWorld = self.run(self._opened.__aenter__())
        self.model = CreditModel(self.world.tenant)

    def teardown(self) -> None:
        self.run(self._opened.__aexit__(None, None, None))

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        return self._loop.run(work)

    def both(
        self, work: Coroutine[Any, Any, R], reckon: Callable[[CreditModel], R], crash: Crash, *, same: bool = True
    ) -> R | None:
        """Does something to the database and to the model, and compares what they answer; None when it broke off.

        What broke off only after it was made counts, though there is no answer to compare.
        """
        database, model = self.world.database, copy.deepcopy(self.model)
        database.after, database.ended = crash or (None, False)
        database.committed = False
        try:
            answer = self.run(work)
        except Crashed:
            note("lost its answer" if database.committed else "broke off")
            if database.committed:
                reckon(model)
                self.model = model
            return None
        except MemoroError as error:
            if error.code is Code.UNAVAILABLE and crash and crash[1]:
                note("was cut off")
                return None
            raise
        finally:
            database.after = None
        expected = reckon(model)
        assert not same or answer == expected
        self.model = model
        return answer

    # ------------------------------------------------------------------------------------------------ what a rule means

    @property
    def now(self) -> datetime:
        return self.world.now

    def job(self, number: int) -> JobId:
        return JobId(UUID(int=self.world.tenant.int ^ (number + 1)))

    def holding(self, number: int) -> JobId | None:
        jobs = [job_id for job_id, hold in self.model.holds.items() if hold.charged is None]
        return jobs[number % len(jobs)] if jobs else None

    # ------------------------------------------------------------------------------------------------ operators

    @initialize(amount=st.integers(1_000, 10_000))
    def first_credits(self, amount: int) -> None:
        self.give(amount, 0, None, None, None)

    @rule(amount=amounts, priority=st.integers(0, 2), expires_in=expiries, request=st.none() | numbers, crash=crashes)
    def give(self, amount: int, priority: int, expires_in: int | None, request: int | None, crash: Crash) -> None:
        """Perhaps by a request that was made before."""
        expires_at = None if expires_in is None else self.now + expires_in * HOUR
        grant = Grant(GrantId(new_id()), amount, amount, priority, expires_at, "", self.now)
        idempotency = None if request is None else Idempotency(f"request-{request}", b"f" * 32)

        async def work() -> GrantId:
            made, _ = await self.world.store.add_credits(self.world.tenant, grant, Cause(), idempotency, now=self.now)
            return made.id

        def reckon(model: CreditModel) -> GrantId:
            if idempotency and (known := model.requests.get(idempotency.request_id)):
                return known
            model.give(grant.id, amount, priority, expires_at, self.now)
            if idempotency:
                model.requests[idempotency.request_id] = grant.id
            return grant.id

        self.both(work(), reckon, crash)

    @rule(available=st.none() | st.integers(0, 4_000), low_balance=st.none() | st.integers(0, 2_000), crash=crashes)
    def set_balance(self, available: int | None, low_balance: int | None, crash: Crash) -> None:
        grant_id = GrantId(new_id())

        async def work() -> None:
            await self.world.store.set_balance(
                self.world.tenant, grant_id, available, low_balance, Cause(), None, now=self.now
            )

        self.both(work(), lambda model: model.set_balance(grant_id, available, low_balance, self.now), crash)

    @rule(scope=st.sampled_from(BudgetScope), limit=st.none() | st.integers(0, 3_000))
    def set_limit(self, scope: BudgetScope, limit: int | None) -> None:
        self.run(self.world.set_limit(scope, limit))
        self.model.set_limit(scope, limit, CALENDAR.day(self.now))

    @rule(raised=st.integers(0, 1_000))
    def reset(self, raised: int) -> None:
        self.run(self.world.reset(raised))
        for (*_, day), budget in self.model.days.items():
            if day == self.now.date():
                budget.raised += raised
                budget.state = "HALF_OPEN" if budget.state == "OPEN" else budget.state

    # ------------------------------------------------------------------------------------------------ jobs

    @rule(batch=batches, margin=margins, crash=crashes, twice=st.booleans())
    def hold(self, batch: Sequence[tuple[int, int]], margin: int, crash: Crash, twice: bool) -> None:
        """Jobs that are new or were held before, some named twice; perhaps all of it once more."""
        bounds = dict(batch)
        requests = [HoldRequest(self.job(number), user_of(number), bounds[number]) for number, _ in batch]
        day, day_end = CALENDAR.day(self.now), CALENDAR.day_end(self.now)
        for _ in range(1 + twice):
            self.both(
                self.world.hold(requests, margin),
                lambda model: model.hold(requests, margin, now=self.now, day=day, day_end=day_end),
                crash,
            )

    @rule(number=numbers, amount=st.integers(1, 600), margin=margins, crash=crashes)
    def extend(self, number: int, amount: int, margin: int, crash: Crash) -> None:
        job_id = self.holding(number) or self.job(number)
        if job_id in self.model.ended or job_id not in self.model.accepted:
            return

        async def work() -> int | None:
            try:
                await self.world.extend(job_id, amount, margin)
            except MemoroError as error:
                if error.reason is not Reason.INSUFFICIENT_CREDITS:
                    raise
                return int(error.metadata["have"])
            return None

        kept, user_id = self.model, self.user_of_job(job_id)
        have = self.both(
            work(),
            lambda model: model.extend(job_id, user_id, amount, margin, now=self.now, day=CALENDAR.day(self.now)),
            crash,
        )
        if have is not None:
            self.model = kept

    def user_of_job(self, job_id: JobId) -> UserId:
        return user_of((job_id.int ^ self.world.tenant.int) - 1)

    @rule(number=numbers, made=st.lists(calls, min_size=1, max_size=3))
    def call(self, number: int, made: Sequence[ModelCall]) -> None:
        """A job calls a provider, and perhaps never learns of the answer."""
        if (job_id := self.holding(number)) is None:
            return
        known = self.model.calls.setdefault(job_id, [])
        for one in made:
            # An answer that came is not asked for again within the attempt.
            if any((other.attempt, other.request) == (one.attempt, one.request) for other in known):
                continue
            self.run(self.world.call(job_id, len(known), one))
            known.append(dataclasses.replace(one))

    @rule(chosen=st.lists(numbers, min_size=1, max_size=6), end=st.booleans(), crash=crashes)
    def resolve(self, chosen: Sequence[int], end: bool, crash: Crash) -> None:
        """Jobs end; or somebody asks for it who is late, or too early."""
        job_ids = [self.job(number) for number in chosen]
        if end:
            job_ids += [job_id for number in chosen if (job_id := self.holding(number))]

        def reckon(model: CreditModel) -> Any:
            if end:
                model.end(job_ids)
            return model.resolve(job_ids, now=self.now)

        self.both(self.world.resolve(job_ids, end=end), reckon, crash)

    # ------------------------------------------------------------------------------------------------ time

    @rule(hours=st.sampled_from([1, 1, 4, 12, 30]))
    def pass_time(self, hours: int) -> None:
        self.world.now += hours * HOUR

    @rule(crash=crashes)
    def expire_due(self, crash: Crash) -> None:
        def reckon(model: CreditModel) -> None:
            model.lapse(self.now)
            model.look_low()

        self.both(self.world.store.expire_due(self.world.tenant, now=self.now), reckon, crash)

    # ------------------------------------------------------------------------------------------------ what holds always

    @invariant()
    def the_account_is_what_the_model_says(self) -> None:
        model, account = self.model, self.run(self.world.balance()).account
        assert account.granted == account.available + account.held + account.spent + account.expired + account.refunded
        assert min(account.available, account.held) >= 0
        assert (account.available, account.held, account.granted) == (model.available, model.held, model.granted)
        assert (account.spent, account.expired, account.refunded) == (model.spent, model.expired, model.refunded)
        assert (account.low_balance, account.is_low) == (model.low_balance, model.is_low)
        entries = self.run(self.world.entries())
        replayed = replay(self.world.tenant, entries)
        for name in ("available", "held", "granted", "spent", "expired", "refunded", "last_seq", "last_hash"):
            assert getattr(replayed, name) == getattr(account, name)
        house: Counter[LedgerAccount] = Counter()
        for entry in entries:
            assert sum(entry.postings.values()) == 0
            house.update(entry.postings)
        assert house[LedgerAccount.PROVIDER_COST] == model.house["provider_cost"]
        assert house[LedgerAccount.LOSS] == model.house["loss"]
        assert model.house["charged"] == account.spent
        ends = Counter(
            (entry.cause.job_id, entry.kind is EntryKind.HOLD)
            for entry in entries
            if entry.kind in (EntryKind.HOLD, EntryKind.SETTLEMENT, EntryKind.RELEASE)
        )
        assert all(count == 1 for count in ends.values())
        verification = self.run(self.world.verify())
        assert verification.valid, verification
        assert verification.entries == account.last_seq

    @invariant()
    def grants_and_holds_are_what_the_model_says(self) -> None:
        model = self.model
        grants = {row["grant_id"]: row["remaining"] for row in self.run(self.world.rows("credit_grants"))}
        assert grants == {grant_id: grant.remaining for grant_id, grant in model.grants.items()}
        assert sum(grants.values()) == model.available + model.held
        holds = {row["job_id"]: row for row in self.run(self.world.rows("credit_holds"))}
        assert holds.keys() == model.holds.keys()
        for job_id, hold in model.holds.items():
            state = "PENDING" if hold.charged is None else "CAPTURED" if hold.charged else "RELEASED"
            row = holds[job_id]
            assert (row["state"], row["amount"], row["charged"]) == (state, hold.amount, hold.charged or 0)
            assert (row["margin_basis_points"], row["day"], row["scopes"]) == (
                hold.margin,
                hold.day,
                sorted(hold.scopes),
            )

    @invariant()
    def budgets_and_alerts_are_what_the_model_says(self) -> None:
        model = self.model
        for row in self.run(self.world.rows("budget_days")):
            budget = model.budget((BudgetScope(row["scope"]), row["tenant_id"], row["user_id"], row["day"]))
            assert (row["reserved"], row["spent"], row["raised"]) == (budget.reserved, budget.spent, budget.raised)
            assert (row["state"], row["needed"], row["alerted"]) == (budget.state, budget.needed, budget.highest)
        assert {row["dedupe_key"] for row in self.run(self.world.rows("alerts"))} == model.alerts
        assert self.run(self.world.events()) == model.told
