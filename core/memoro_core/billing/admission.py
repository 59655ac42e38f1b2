"""Which of some jobs may run: a verdict for each in order of arrival, over one account and all budgets that apply."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from memoro_core.billing import budgets
from memoro_core.billing.ledger import Movement
from memoro_core.billing.model import (
    BudgetDay,
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
    """What was decided: a verdict per request, what is to be held, what is not, and the budgets, changed or not."""

    verdicts: Sequence[HoldVerdict]
    admitted: Sequence[HoldRequest]
    turned_away: Sequence[JobId]
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
    turned_away: list[JobId] = []
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
            if verdict is not _HELD:
                turned_away.append(request.job_id)
            decided[request.job_id] = verdict
        verdicts.append(verdict)
    return Admission(verdicts, admitted, turned_away, book.days)


def hold(request: HoldRequest) -> Movement:
    """What setting a job's bound aside moves."""
    return Movement(
        EntryKind.HOLD,
        {LedgerAccount.AVAILABLE: -request.bound, LedgerAccount.HELD: request.bound},
        Cause(request.job_id, request.request_id),
    )


class _Tally:
    """One budget while jobs are decided over: what it has room for, and what was taken of that."""

    __slots__ = ("day", "room", "taken")

    def __init__(self, day: BudgetDay) -> None:
        self.begin(day)

    def begin(self, day: BudgetDay) -> None:
        self.day = day
        self.taken = 0
        self.room = budgets.room(day)

    def written(self) -> BudgetDay:
        return budgets.reserve(self.day, self.taken) if self.taken else self.day

    def refuse(self, bound: int, now: datetime) -> None:
        self.begin(budgets.refuse(self.written(), bound, now))


class _Book:
    """The budgets while jobs are decided over."""

    def __init__(self, days: Iterable[BudgetDay], now: datetime) -> None:
        self._now = now
        self._tallies = [_Tally(day) for day in sorted(days, key=lambda day: _ORDER.index(day.key.scope))]
        self._common = [tally for tally in self._tallies if tally.day.key.user_id is None]
        self._users = {tally.day.key.user_id: tally for tally in self._tallies if tally not in self._common}

    @property
    def days(self) -> Sequence[BudgetDay]:
        return [tally.written() for tally in self._tallies]

    def reserve(self, user_id: UserId, bound: int) -> DeferralReason | None:
        """Sets so much aside in all budgets of a user's job, or in none: then whose is used up."""
        own = self._users.get(user_id)
        tallies = self._common if own is None else [*self._common, own]
        blocking = [tally for tally in tallies if bound > tally.room]
        if blocking:
            for tally in blocking:
                tally.refuse(bound, self._now)
            return DeferralReason(blocking[0].day.key.scope)
        for tally in tallies:
            tally.room -= bound
            tally.taken += bound
        return None
