"""Daily budgets in plain Python: what one tenant's jobs may spend, what has to wait, and when it goes on."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta

from memoro_core.billing.model import BreakerState, BudgetScope, DeferralReason
from memoro_core.ids import JobId, UserId
from memoro_core.jobs.model import JobState

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
Key = tuple[BudgetScope, UserId]
"""Which budget; of all users: the empty one."""
UNLIMITED = 10**30


@dataclass
class DayModel:
    """What one budget has on one day."""

    reserved: int = 0
    spent: int = 0
    raised: int = 0
    state: BreakerState = CLOSED
    needed: int = 0


@dataclass
class PaidJob:
    """A job that may cost something. `held` says in which budgets of which day it is reserved."""

    id: JobId
    user: UserId
    bound: int
    state: JobState
    run_at: datetime
    reason: DeferralReason | None = None
    held: tuple[date, tuple[Key, ...]] | None = None
    ended: tuple[date, int] | None = None
    """For which day it counted, and what it was charged."""


@dataclass
class BudgetModel:
    """One tenant; no other is there to share the deployment's budget with."""

    available: int
    limits: dict[BudgetScope, int] = field(default_factory=dict)
    days: dict[tuple[date, Key], DayModel] = field(default_factory=dict)
    jobs: dict[JobId, PaidJob] = field(default_factory=dict)
    held: int = 0

    def keys(self, user: UserId) -> list[Key]:
        """The budgets that bound a user's job, in the order in which they are asked."""
        return [
            (scope, user if scope is BudgetScope.USER else UserId("")) for scope in BudgetScope if scope in self.limits
        ]

    def day(self, now: datetime, key: Key) -> DayModel:
        return self.days.setdefault((now.date(), key), DayModel())

    def ceiling(self, key: Key, day: DayModel) -> int:
        return self.limits[key[0]] + day.raised if key[0] in self.limits else UNLIMITED

    def decide(self, user: UserId, bound: int, now: datetime) -> DeferralReason | None:
        """Why a job can't be held now; None: it can, and is."""
        if bound > self.available:
            return DeferralReason.CREDITS
        blocking = []
        for key in self.keys(user):
            day = self.day(now, key)
            ceiling = self.ceiling(key, day)
            shut = day.state is OPEN and day.needed <= ceiling
            if shut or day.reserved + day.spent + bound > ceiling:
                blocking.append(key)
                if not shut and not (day.state is OPEN and bound > ceiling):
                    day.state, day.needed = OPEN, bound
        if blocking:
            return DeferralReason(blocking[0][0])
        for key in self.keys(user):
            self.day(now, key).reserved += bound
        self.available -= bound
        self.held += bound
        return None

    def accept(self, job_id: JobId, user: UserId, bound: int, now: datetime) -> None:
        """What a call that was not refused has made."""
        reason = self.decide(user, bound, now)
        assert reason is not DeferralReason.CREDITS
        state, run_at = (JobState.DEFERRED, end_of_day(now)) if reason else (JobState.QUEUED, now)
        job = self.jobs[job_id] = PaidJob(job_id, user, bound, state, run_at, reason)
        if reason is None:
            job.held = now.date(), tuple(self.keys(user))

    def end(self, job: PaidJob, charge: int) -> None:
        """A job that was held for has ended."""
        assert job.held is not None
        day, keys = job.held
        for key in keys:
            self.days[day, key].reserved -= job.bound
            self.days[day, key].spent += charge
        self.held -= job.bound
        self.available += job.bound - charge
        job.state, job.held, job.ended = JobState.SUCCEEDED, None, (day, charge)

    def limit(self, scope: BudgetScope, limit: int | None, now: datetime) -> None:
        """Of a budget that there was not, the day begins with what is committed by then."""
        if limit is None:
            self.limits.pop(scope, None)
            return
        is_new = scope not in self.limits
        self.limits[scope] = limit
        today = [job for job in self.jobs.values() if now.date() in {at[0] for at in (job.held, job.ended) if at}]
        if not is_new:
            return
        counted = [(job, (scope, job.user if scope is BudgetScope.USER else UserId(""))) for job in today]
        for _, key in counted:
            self.day(now, key).reserved = self.day(now, key).spent = 0
        for job, key in counted:
            if job.held:
                job.held = job.held[0], tuple({*job.held[1], key})
                self.day(now, key).reserved += job.bound
            elif job.ended:
                self.day(now, key).spent += job.ended[1]

    def reset(self, key: Key, now: datetime) -> None:
        day = self.day(now, key)
        day.raised += self.limits[key[0]]
        if day.state is OPEN:
            day.state = HALF_OPEN

    def deferred(self) -> list[PaidJob]:
        """Jobs that wait, in order."""
        waiting = [job for job in self.jobs.values() if job.state is JobState.DEFERRED]
        return sorted(waiting, key=lambda job: (job.run_at, job.id))

    def round(self, now: datetime) -> None:
        """Breakers move on, and what can go goes."""
        for (day_of, key), day in self.days.items():
            if day_of != now.date() or day.state is CLOSED:
                continue
            waits = any(self.holds_back(key, job) for job in self.deferred())
            room = self.ceiling(key, day) - day.reserved - day.spent
            if not waits and room > 0:
                day.state = CLOSED
            elif waits and day.state is OPEN and day.needed <= room:
                day.state = HALF_OPEN
        self.let_go([job for job in self.deferred() if self.is_candidate(job, now)], now)

    def let_go(self, jobs: list[PaidJob], now: datetime) -> None:
        """Those of these jobs that fit, in order."""
        for job in jobs:
            reason = self.decide(job.user, job.bound, now)
            if reason is None:
                job.state, job.run_at = JobState.QUEUED, now
                job.held = now.date(), tuple(self.keys(job.user))
            else:
                job.reason, job.run_at = reason, end_of_day(now)

    def is_candidate(self, job: PaidJob, now: datetime) -> bool:
        """Whether it is worth a try."""
        if job.run_at <= now:
            return True
        if job.reason is DeferralReason.CREDITS:
            return job.bound <= self.available
        for (day_of, key), day in self.days.items():
            if day_of == now.date() and self.holds_back(key, job):
                ceiling = self.ceiling(key, day)
                open_to_some = day.state is HALF_OPEN or (day.state is OPEN and day.needed > ceiling)
                if open_to_some and job.bound <= ceiling:
                    return True
        return False

    @staticmethod
    def holds_back(key: Key, job: PaidJob) -> bool:
        """Whether a job waits because of that budget."""
        scope, user = key
        return job.reason is not None and job.reason.value == scope.value and user in {"", job.user}


def end_of_day(now: datetime) -> datetime:
    """When the next day begins."""
    return datetime.combine(now.date() + timedelta(days=1), time.min, UTC)
