"""Which of some jobs may run: a verdict for each in order of arrival, over one account and all budgets that apply."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from memoro_core.billing import budgets
from memoro_core.billing.ledger import Movement
from memoro_core.billing.model import (
    BudgetDay,
    BudgetKey,
    BudgetScope,
    Cause,
    DeferralReason,
    Deferred,
    EntryKind,
    Held,
    HoldRequest,
    HoldVerdict,
    LedgerAccount,
    Refused,
)
from memoro_core.ids import JobId, UserId

_HELD: Final = Held()
_ORDER: Final = tuple(BudgetScope)


@dataclass(frozen=True, slots=True)
class Admission:
    """What was decided: a verdict per request, what is held now, and the budgets, changed or not."""

    verdicts: Sequence[HoldVerdict]
    admitted: Sequence[HoldRequest]
    days: Sequence[BudgetDay]


def admit(
    requests: Iterable[HoldRequest],
    available: int,
    days: Iterable[BudgetDay],
    *,
    known: Iterable[JobId] = (),
    now: datetime,
    day_end: datetime,
) -> Admission:
    """Decides over requests one after the other, so that a later, smaller one may get what an earlier one could not.

    Credits come first: a job that can't be paid must not be stored, whatever the budgets. A job that is `known` has a
    hold already; one that comes twice gets one.
    """
    book = _Book(days, now)
    verdicts: list[HoldVerdict] = []
    admitted: list[HoldRequest] = []
    decided: dict[JobId, HoldVerdict] = dict.fromkeys(known, _HELD)
    for request in requests:
        bound = request.bound
        verdict = decided.get(request.job_id)
        if verdict is None:
            if bound == 0:
                verdict = _HELD
            elif bound > available:
                verdict = Refused(bound, available)
            elif (reason := book.reserve(request.user_id, bound)) is not None:
                verdict = Deferred(reason, day_end)
            else:
                verdict = _HELD
                available -= bound
                admitted.append(request)
            decided[request.job_id] = verdict
        verdicts.append(verdict)
    return Admission(verdicts, admitted, book.days)


def hold(request: HoldRequest) -> Movement:
    """What setting a job's bound aside moves."""
    return Movement(
        EntryKind.HOLD,
        {LedgerAccount.AVAILABLE: -request.bound, LedgerAccount.HELD: request.bound},
        Cause(request.job_id, request.request_id),
    )


class _Book:
    """The budgets while jobs are decided over."""

    def __init__(self, days: Iterable[BudgetDay], now: datetime) -> None:
        self._now = now
        self._days: dict[BudgetKey, BudgetDay] = {day.key: day for day in days}
        ordered = sorted(self._days, key=lambda key: _ORDER.index(key.scope))
        self._common = [key for key in ordered if key.user_id is None]
        self._users: Mapping[UserId, BudgetKey] = {key.user_id: key for key in ordered if key.user_id is not None}

    @property
    def days(self) -> Sequence[BudgetDay]:
        return list(self._days.values())

    def reserve(self, user_id: UserId, bound: int) -> DeferralReason | None:
        """Sets so much aside in all budgets of a user's job, or in none: then whose is used up."""
        if not self._days:
            return None
        keys = [*self._common, self._users[user_id]] if user_id in self._users else self._common
        blocking = [key for key in keys if not budgets.lets_through(self._days[key], bound)]
        for key in blocking:
            self._days[key] = budgets.refuse(self._days[key], bound, self._now)
        if blocking:
            return DeferralReason(blocking[0].scope)
        for key in keys:
            self._days[key] = budgets.reserve(self._days[key], bound)
        return None
