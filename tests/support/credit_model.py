"""What a tenant's money must be, in plain Python: one thing after the other, reckoned the slow and simple way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from fractions import Fraction
from math import ceil
from uuid import UUID

from memoro_core.billing.model import (
    BudgetScope,
    DeferralReason,
    Deferred,
    Held,
    HoldRequest,
    HoldVerdict,
    Refused,
)
from memoro_core.ids import GrantId, JobId, TenantId, UserId

NOBODY = UUID(int=0)
BudgetPlace = tuple[BudgetScope, UUID, str, date]


@dataclass
class ModelGrant:
    """What is left of a grant."""

    amount: int
    remaining: int
    priority: int
    expires_at: datetime | None


@dataclass
class ModelHold:
    """What is set aside for a job, and what came of it."""

    user_id: UserId
    amount: int
    margin: int
    day: date
    scopes: frozenset[BudgetScope]
    charged: int | None = None


@dataclass
class ModelDay:
    """A budget on one day."""

    reserved: int = 0
    spent: int = 0
    raised: int = 0
    state: str = "CLOSED"
    needed: int = 0
    opened: bool = False
    """By what is going on, so that it is to be told."""
    highest: int = 0
    """The highest threshold that was ever crossed."""


@dataclass
class ModelCall:
    """A call of a provider, and what it costs; an open one may be the same as another that was answered."""

    attempt: int
    state: str
    failed: bool
    tokens: int
    price: int
    fee: int
    items: int
    request: int


@dataclass
class CreditModel:
    """A tenant's money, its budgets, and whom of it was told what."""

    tenant: TenantId
    available: int = 0
    granted: int = 0
    spent: int = 0
    expired: int = 0
    refunded: int = 0
    low_balance: int = 0
    is_low: bool = False
    house: Counter[str] = field(default_factory=Counter)
    grants: dict[GrantId, ModelGrant] = field(default_factory=dict)
    holds: dict[JobId, ModelHold] = field(default_factory=dict)
    calls: dict[JobId, list[ModelCall]] = field(default_factory=dict)
    accepted: set[JobId] = field(default_factory=set)
    ended: set[JobId] = field(default_factory=set)
    limits: dict[BudgetScope, int] = field(default_factory=dict)
    days: dict[BudgetPlace, ModelDay] = field(default_factory=dict)
    requests: dict[str, GrantId] = field(default_factory=dict)
    """Of requests that gave credits: what they gave."""
    alerts: set[str] = field(default_factory=set)
    told: Counter[str] = field(default_factory=Counter)
    """Webhook events by type."""

    @property
    def held(self) -> int:
        return sum(one.amount for one in self.holds.values() if one.charged is None)

    # ---------------------------------------------------------------------------------------------- operators

    def give(self, grant_id: GrantId, amount: int, priority: int, expires_at: datetime | None, now: datetime) -> None:
        self.granted += amount
        self.available += amount
        self.grants[grant_id] = ModelGrant(amount, amount, priority, expires_at)
        self.lapse(now)
        self.look_low()

    def set_balance(self, grant_id: GrantId, available: int | None, low_balance: int | None, now: datetime) -> None:
        self.lapse(now)
        change = 0 if available is None else available - self.available
        if change > 0:
            self.granted += change
            self.grants[grant_id] = ModelGrant(change, change, 0, None)
        else:
            self.refunded -= change
            self.use(-change)
        self.available += change
        self.lapse(now)
        self.low_balance = self.low_balance if low_balance is None else low_balance
        self.look_low()

    def set_limit(self, scope: BudgetScope, limit: int | None, day: date) -> None:
        """What is committed on the day counts against a budget that there was not."""
        if limit is None:
            self.limits.pop(scope, None)
            return
        holds = [] if scope in self.limits else [hold for hold in self.holds.values() if hold.day == day]
        self.limits[scope] = limit
        places = [(hold, self.places(hold.user_id, frozenset({scope}), day)[0]) for hold in holds]
        for _, place in places:
            self.budget(place).reserved = self.budget(place).spent = 0
        for hold, place in places:
            if hold.charged is None:
                hold.scopes |= {scope}
                self.budget(place).reserved += hold.amount
            self.budget(place).spent += hold.charged or 0

    # ---------------------------------------------------------------------------------------------- jobs

    def hold(
        self, requests: Sequence[HoldRequest], margin: int, *, now: datetime, day: date, day_end: datetime
    ) -> Sequence[HoldVerdict]:
        if any(request.bound for request in requests):
            self.lapse(now)
        verdicts: dict[JobId, HoldVerdict] = {}
        self.accepted.update(request.job_id for request in requests)
        for request in requests:
            if request.job_id not in verdicts:
                verdicts[request.job_id] = self._hold(request, margin, day, day_end)
        self.look_low()
        users = {request.user_id for request in requests if request.bound}
        scopes = frozenset(self.limits)
        self.look_thresholds({place for user_id in users for place in self.places(user_id, scopes, day)})
        return [verdicts[request.job_id] for request in requests]

    def _hold(self, request: HoldRequest, margin: int, day: date, day_end: datetime) -> HoldVerdict:
        bound = request.bound
        if bound == 0 or request.job_id in self.holds:
            return Held()
        if bound > self.available:
            return Refused(bound, self.available)
        places = self.places(request.user_id, frozenset(self.limits), day)
        too_much = []
        for place in places:
            budget, ceiling = self.budget(place), self.ceiling(place)
            shut = budget.state == "OPEN" and budget.needed <= ceiling
            if shut or budget.reserved + budget.spent + bound > ceiling:
                too_much.append(place)
                if not shut and (budget.state != "OPEN" or bound <= ceiling):
                    budget.state, budget.needed, budget.opened = "OPEN", bound, True
        if too_much:
            return Deferred(DeferralReason(too_much[0][0]), day_end)
        for place in places:
            self.budget(place).reserved += bound
        self.available -= bound
        self.holds[request.job_id] = ModelHold(request.user_id, bound, margin, day, frozenset(self.limits))
        return Held()

    def extend(
        self, job_id: JobId, user_id: UserId, amount: int, margin: int, *, now: datetime, day: date
    ) -> int | None:
        """What is available, if that is too little: then nothing of this counts."""
        self.lapse(now)
        if amount > self.available:
            return self.available
        hold = self.holds.get(job_id)
        if hold is None:
            hold = self.holds[job_id] = ModelHold(user_id, 0, margin, day, frozenset(self.limits))
        hold.amount += amount
        self.available -= amount
        for place in self.places(hold.user_id, hold.scopes, hold.day):
            budget, ceiling = self.budget(place), self.ceiling(place)
            if budget.reserved + budget.spent + amount > ceiling:
                shut = budget.state == "OPEN" and budget.needed <= ceiling
                if not shut and (budget.state != "OPEN" or amount <= ceiling):
                    budget.state, budget.needed, budget.opened = "OPEN", amount, True
            budget.reserved += amount
        self.look_low()
        self.look_thresholds(self.places(hold.user_id, hold.scopes, hold.day))
        return None

    def end(self, job_ids: Iterable[JobId]) -> None:
        self.ended.update(self.accepted.intersection(job_ids))

    def resolve(self, job_ids: Sequence[JobId], *, now: datetime) -> Mapping[JobId, int]:
        charged = {}
        for job_id in sorted(set(job_ids)):
            hold = self.holds.get(job_id)
            if hold is None or hold.charged is not None or job_id not in self.ended:
                continue
            pico, fees = self.cost(job_id)
            bill = ceil(Fraction(pico * (10_000 + hold.margin), 100_000_000)) + fees
            provider = ceil(Fraction(pico, 10_000))
            hold.charged = charged[job_id] = min(bill, hold.amount)
            self.house["charged"] += hold.charged
            self.house["provider_cost"] += provider
            self.house["loss"] -= max(0, provider - hold.charged)
            if max(bill, provider) > hold.amount:
                self.alerts.add(f"bill:{self.tenant}:{now.date()}")
            for place in self.places(hold.user_id, hold.scopes, hold.day):
                self.budget(place).reserved -= hold.amount
                self.budget(place).spent += hold.charged
            self.available += hold.amount - hold.charged
            self.spent += hold.charged
            self.use(hold.charged)
        if charged:
            self.lapse(now)
            self.look_low()
        return charged

    def cost(self, job_id: JobId) -> tuple[int, int]:
        calls = self.calls.get(job_id, [])
        pico, fees = 0, Counter[int]()
        for call in calls:
            if call.state == "OPEN":
                again = [
                    (one.attempt, calls.index(one), one.tokens)
                    for one in calls
                    if one.state == "DONE" and not one.failed and one.request == call.request
                ]
                call.state = "PRESUMED"
                call.tokens = min(again)[-1] if again else call.tokens
            elif call.state == "DONE" and not call.failed:
                fees[call.attempt] += call.fee * call.items
            pico += call.tokens * call.price
        # A text that was worked on in several attempts is paid for once.
        return pico, max(fees.values(), default=0)

    # ---------------------------------------------------------------------------------------------- grants

    def in_order(self) -> Sequence[ModelGrant]:
        def use(item: tuple[GrantId, ModelGrant]) -> tuple[int, bool, float, GrantId]:
            grant_id, grant = item
            expiry = grant.expires_at.timestamp() if grant.expires_at else 0.0
            return grant.priority, grant.expires_at is None, expiry, grant_id

        return [grant for _, grant in sorted(self.grants.items(), key=use)]

    def use(self, amount: int) -> None:
        for grant in self.in_order():
            taken = min(amount, grant.remaining)
            grant.remaining -= taken
            amount -= taken
        assert amount == 0

    def lapse(self, now: datetime) -> None:
        """What is over, and not held."""
        claimed = self.held
        for grant in self.in_order():
            kept = min(claimed, grant.remaining)
            claimed -= kept
            if grant.expires_at and grant.expires_at <= now:
                self.available -= grant.remaining - kept
                self.expired += grant.remaining - kept
                grant.remaining = kept

    # ---------------------------------------------------------------------------------------------- budgets

    def places(self, user_id: UserId, scopes: frozenset[BudgetScope], day: date) -> Sequence[BudgetPlace]:
        places: list[BudgetPlace] = [
            (BudgetScope.DEPLOYMENT, NOBODY, "", day),
            (BudgetScope.TENANT, self.tenant, "", day),
            (BudgetScope.USER, self.tenant, user_id, day),
        ]
        return [place for place in places if place[0] in scopes]

    def budget(self, place: BudgetPlace) -> ModelDay:
        return self.days.setdefault(place, ModelDay())

    def ceiling(self, place: BudgetPlace) -> int:
        return self.limits.get(place[0], 10**18) + self.budget(place).raised

    # ---------------------------------------------------------------------------------------------- who is told

    def look_low(self) -> None:
        is_low = self.available < self.low_balance
        if is_low and not self.is_low:
            self.told["balance.low"] += 1
        self.is_low = is_low

    def look_thresholds(self, places: Iterable[BudgetPlace]) -> None:
        """Alerts are the thresholds crossed, each once a budget and day; and each way in which its breaker opened."""
        for place in places:
            name = ":".join(map(str, place))
            budget, ceiling = self.budget(place), self.ceiling(place)
            committed = budget.reserved + budget.spent
            crossed = {at for at in (50, 75, 100) if committed and committed >= Fraction(at * ceiling, 100)}
            new = {f"budget:{name}:{percent}" for percent in crossed} - self.alerts
            self.alerts |= new
            if place[0] is not BudgetScope.DEPLOYMENT:
                self.told["spend.threshold"] += len(new)
            budget.highest = max(budget.highest, *crossed, 0)
            if budget.opened:
                self.alerts.add(f"breaker:{name}:{'full' if budget.needed <= ceiling else 'too_large'}")
                budget.opened = False
