"""Budgets: breakers, and thresholds that are told once each."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoro_core.billing.budgets import THRESHOLDS, News, extend, refuse, reserve, room, settle, tell
from memoro_core.billing.model import BreakerState, BudgetDay, BudgetKey, BudgetScope
from tests.support.billing import HOUR, NOW

EMPTY = BudgetDay(BudgetKey(BudgetScope.DEPLOYMENT), NOW.date(), 1000)
OPEN, HALF_OPEN = BreakerState.OPEN, BreakerState.HALF_OPEN


@settings(deadline=None)
@given(st.lists(st.integers(-400, 400), max_size=20), st.integers(0, 1000))
def test_each_threshold_is_told_once_whatever_comes_and_goes(changes: Sequence[int], limit: int) -> None:
    heard: list[int] = []
    day, highest = dataclasses.replace(EMPTY, limit=limit), 0
    for change in changes:
        day = reserve(day, max(change, -day.reserved))
        highest = max(highest, day.committed)
        news = tell(day, day)
        day = news.budget
        heard += news.percents
    assert heard == sorted(set(heard))
    reached = [percent for percent in THRESHOLDS if highest and highest * 100 >= percent * limit]
    assert heard == reached


@pytest.mark.parametrize(
    ("committed", "percents"), [(0, []), (499, []), (500, [50]), (750, [50, 75]), (1000, [50, 75, 100])]
)
def test_thresholds_are_reached_to_the_micro_credit(committed: int, percents: Sequence[int]) -> None:
    news = tell(EMPTY, reserve(EMPTY, committed))
    assert (news.percents, news.budget.alerted, news.left) == (percents, max(percents, default=0), None)


def test_an_opening_breaker_is_told_beside_the_thresholds_that_are_crossed() -> None:
    news = tell(EMPTY, refuse(reserve(EMPTY, 600), 500, NOW))
    assert (news.percents, news.budget.alerted, news.left) == ([50], 50, 400)
    assert tell(news.budget, news.budget) == News(news.budget, [])
    half_open = dataclasses.replace(news.budget, state=HALF_OPEN)
    assert tell(half_open, refuse(half_open, 500, NOW)).left == 400


def test_a_job_that_never_fits_crosses_no_threshold() -> None:
    too_large = tell(EMPTY, refuse(EMPTY, 1001, NOW))
    assert (too_large.percents, too_large.budget.alerted, too_large.left) == ([], 0, 1000)
    used = reserve(too_large.budget, 900)
    full = tell(used, refuse(used, 200, NOW))
    assert (full.percents, full.left) == ([50, 75], 100)


def test_an_extension_that_does_not_fit_is_told_with_what_was_left_before() -> None:
    used = reserve(EMPTY, 900)
    news = tell(used, extend(used, 150, NOW), extended=150)
    assert (news.percents, news.left) == ([50, 75, 100], 100)
    assert tell(used, extend(used, 100, NOW), extended=100).left is None


def test_the_first_that_does_not_fit_opens_it() -> None:
    opened = refuse(reserve(EMPTY, 900), 200, NOW)
    assert (opened.state, opened.needed, opened.opened_at, room(opened)) == (OPEN, 200, NOW, -1)
    assert refuse(opened, 300, NOW + HOUR) == opened
    half_open = dataclasses.replace(opened, state=HALF_OPEN)
    assert room(half_open) == 100
    assert refuse(half_open, 300, NOW + HOUR) == dataclasses.replace(opened, needed=300, opened_at=NOW + HOUR)


def test_a_job_that_never_fits_opens_it_and_stands_in_nobodys_way() -> None:
    opened = refuse(reserve(EMPTY, 900), 2000, NOW)
    assert (opened.state, opened.needed, room(opened)) == (OPEN, 2000, 100)
    assert refuse(opened, 3000, NOW + HOUR) == opened
    assert room(refuse(opened, 200, NOW + HOUR)) == -1


def test_an_extension_is_set_aside_even_above_the_ceiling() -> None:
    fits = extend(reserve(EMPTY, 900), 100, NOW)
    assert (fits.committed, fits.state) == (1000, BreakerState.CLOSED)
    above = extend(fits, 1, NOW)
    assert (above.committed, above.state, above.needed) == (1001, OPEN, 1)


@settings(deadline=None)
@given(st.integers(1, 1000), st.data())
def test_a_settlement_commits_no_more_than_was_reserved(amount: int, data: st.DataObject) -> None:
    charge = data.draw(st.integers(0, amount))
    day = settle(reserve(EMPTY, amount), amount, charge)
    assert (day.reserved, day.spent) == (0, charge)


def test_a_reset_raises_what_may_be_committed() -> None:
    raised = dataclasses.replace(EMPTY, raised=500)
    assert room(reserve(raised, 900)) == 600
