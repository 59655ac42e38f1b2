"""Which jobs may run: in order of arrival, within credits and budgets, to the micro-credit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from memoro_core.billing.admission import admit, hold
from memoro_core.billing.ledger import post
from memoro_core.billing.model import (
    BreakerState,
    BudgetDay,
    BudgetKey,
    BudgetScope,
    DeferralReason,
    Deferred,
    Held,
    HoldRequest,
    HoldVerdict,
    Refused,
)
from memoro_core.ids import JobId
from tests.support.billing import DAY_END, NOW, TENANT, USERS, account, balanced, job, some_days, some_requests


@settings(deadline=None)
@given(some_requests(), st.integers(0, 2000), some_days())
def test_verdicts_are_those_of_one_after_the_other(
    requests: Sequence[HoldRequest], available: int, days: Sequence[BudgetDay]
) -> None:
    """Whether requests come together or alone, each is told the same, and the same is set aside."""
    together = admit(requests, available, days, now=NOW, day_end=DAY_END)
    alone: list[HoldVerdict] = []
    left, budgets = available, days
    held: dict[JobId, int] = {}
    turned_away: set[JobId] = set()
    for request in requests:
        if request.job_id in turned_away:
            alone.append(together.verdicts[len(alone)])
            continue
        one = admit([request], left, budgets, known=held, now=NOW, day_end=DAY_END)
        alone += one.verdicts
        for admitted in one.admitted:
            left -= admitted.bound
            held[admitted.job_id] = admitted.bound
        turned_away.update(one.turned_away)
        budgets = one.days
    assert list(together.verdicts) == alone
    assert {one.job_id: one.bound for one in together.admitted} == held
    assert {day.key: day for day in together.days} == {day.key: day for day in budgets}


@settings(deadline=None)
@given(some_requests(), st.integers(0, 2000), some_days())
def test_nothing_is_overdrawn_and_nobody_turned_away_who_fits(
    requests: Sequence[HoldRequest], available: int, days: Sequence[BudgetDay]
) -> None:
    admission = admit(requests, available, days, now=NOW, day_end=DAY_END)
    before = account(available)
    after, entries = post(before, map(hold, admission.admitted), NOW)
    assert balanced(after)
    assert after.held == sum(one.bound for one in admission.admitted) <= available
    assert len(entries) == len(admission.admitted)
    assert max(Counter(one.job_id for one in admission.admitted).values(), default=0) <= 1
    known = {day.key: day for day in days}
    for day in admission.days:
        took = sum(one.bound for one in admission.admitted if concerns(day.key, one))
        assert day.reserved == known[day.key].reserved + took
        assert took == 0 or day.committed <= day.ceiling
        assert (day.state is BreakerState.OPEN) == (day.opened_at is not None)
        if day.state is BreakerState.OPEN:
            assert any(one.bound == day.needed and concerns(day.key, one) for one in requests)
    for request, verdict in zip(requests, admission.verdicts, strict=True):
        match verdict:
            case Held():
                assert request.bound == 0 or request in admission.admitted
            case Refused(need, have):
                assert (need, have < need) == (request.bound, True)
            case Deferred(reason, until):
                assert until == DAY_END
                assert by_scope(admission.days, reason, request).state is BreakerState.OPEN


def concerns(key: BudgetKey, request: HoldRequest) -> bool:
    return key.user_id in (None, request.user_id)


def by_scope(days: Sequence[BudgetDay], reason: DeferralReason, request: HoldRequest) -> BudgetDay:
    found: Mapping[BudgetScope, BudgetDay] = {day.key.scope: day for day in days if concerns(day.key, request)}
    return found[BudgetScope(reason)]


def budget(limit: int, **changes: object) -> BudgetDay:
    return BudgetDay(BudgetKey(BudgetScope.TENANT, TENANT), NOW.date(), limit, **changes)  # type: ignore[arg-type]


def asked(*bounds: int) -> Sequence[HoldRequest]:
    return [HoldRequest(job(number), USERS[0], bound) for number, bound in enumerate(bounds)]


def test_a_later_smaller_job_may_get_what_an_earlier_one_could_not() -> None:
    admission = admit(asked(60, 50, 40), 100, [], now=NOW, day_end=DAY_END)
    assert list(admission.verdicts) == [Held(), Refused(50, 40), Held()]


def test_credits_come_before_budgets() -> None:
    """A job that can't be paid is not stored, so that it must not open a breaker either."""
    admission = admit(asked(60), 10, [budget(20)], now=NOW, day_end=DAY_END)
    assert list(admission.verdicts) == [Refused(60, 10)]
    assert admission.days == [budget(20)]


def test_while_a_breaker_is_open_nothing_is_tried() -> None:
    put_off = Deferred(DeferralReason.TENANT, DAY_END)
    admission = admit(asked(60, 50, 1), 1000, [budget(100)], now=NOW, day_end=DAY_END)
    assert list(admission.verdicts) == [Held(), put_off, put_off]
    [day] = admission.days
    assert (day.state, day.needed, day.opened_at) == (BreakerState.OPEN, 50, NOW)


def test_half_open_lets_through_what_fits_and_opens_again() -> None:
    half_open = budget(100, state=BreakerState.HALF_OPEN, reserved=40, needed=50)
    admission = admit(asked(50, 20, 5), 1000, [half_open], now=NOW, day_end=DAY_END)
    assert [isinstance(verdict, Held) for verdict in admission.verdicts] == [True, False, False]
    assert (admission.days[0].state, admission.days[0].needed) == (BreakerState.OPEN, 20)


def test_a_job_larger_than_the_budget_of_a_day_keeps_nobody_else_from_running() -> None:
    admission = admit(asked(500, 60, 600, 30, 20, 5), 10_000, [budget(100)], now=NOW, day_end=DAY_END)
    assert [isinstance(verdict, Held) for verdict in admission.verdicts] == [False, True, False, True, False, False]
    [day] = admission.days
    assert (day.state, day.needed, day.committed) == (BreakerState.OPEN, 20, 90)


def test_what_one_budget_refuses_is_reserved_in_none() -> None:
    user = BudgetDay(BudgetKey(BudgetScope.USER, TENANT, USERS[0]), NOW.date(), 10)
    admission = admit(asked(20), 1000, [user, budget(100)], now=NOW, day_end=DAY_END)
    assert list(admission.verdicts) == [Deferred(DeferralReason.USER, DAY_END)]
    assert [day.reserved for day in admission.days] == [0, 0]
