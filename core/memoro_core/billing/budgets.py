"""Daily budgets: reserving in them, the breaker that keeps them, and the thresholds of which people are told."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from memoro_core.billing.model import BreakerState, BudgetDay

THRESHOLDS: Final = (50, 75, 100)
"""Of which shares of a budget people are told, in percent, each once a day."""


@dataclass(frozen=True, slots=True)
class News:
    """What people are to be told of a budget: the thresholds that it crossed, and whether its breaker opened.

    `left` is what was left when it did; None: it did not.
    """

    budget: BudgetDay
    percents: Sequence[int]
    left: int | None = None


def room(day: BudgetDay) -> int:
    """The largest job that is let through: one that fits; none, which is -1, while the breaker is shut."""
    return -1 if is_shut(day) else day.ceiling - day.committed


def is_shut(day: BudgetDay) -> bool:
    """Whether new jobs are put off without a look at what they need.

    A job larger than the budget of a whole day opens the breaker, but does not shut it: it could wait for ever, and all
    others with it.
    """
    return day.state is BreakerState.OPEN and day.needed <= day.ceiling


def refuse(day: BudgetDay, bound: int, now: datetime) -> BudgetDay:
    """The budget after a job did not fit: its breaker opens, until what that job needs is free again."""
    if day.state is BreakerState.OPEN and (is_shut(day) or bound > day.ceiling):
        return day
    return dataclasses.replace(day, state=BreakerState.OPEN, needed=bound, opened_at=now)


def reserve(day: BudgetDay, amount: int) -> BudgetDay:
    """The budget with an amount set aside, whether it fits or not."""
    return dataclasses.replace(day, reserved=day.reserved + amount)


def extend(day: BudgetDay, amount: int, now: datetime) -> BudgetDay:
    """The budget with more set aside for a job that runs already: above the ceiling too, and then the breaker opens."""
    fits = day.committed + amount <= day.ceiling
    return reserve(day if fits else refuse(day, amount, now), amount)


def settle(day: BudgetDay, amount: int, charge: int) -> BudgetDay:
    """The budget after a job ended for which an amount was set aside, and which cost so much."""
    return dataclasses.replace(day, reserved=day.reserved - amount, spent=day.spent + charge)


def tell(before: BudgetDay, day: BudgetDay, *, extended: int = 0) -> News:
    """What has become of a budget and nobody was told of; with the budget once they were.

    Of what is committed, `extended` was set aside for a job that had to have it.
    """
    crossed = [
        percent for percent in THRESHOLDS if percent > day.alerted and 0 < day.committed * 100 >= percent * day.ceiling
    ]
    told = dataclasses.replace(day, alerted=crossed[-1]) if crossed else day
    # An open breaker opens once more when a job that fits into a day comes after one that never does.
    opened = day.state is BreakerState.OPEN and (before.state, before.needed) != (day.state, day.needed)
    return News(told, crossed, max(0, day.ceiling - day.committed + extended) if opened else None)
