"""Money: balances, the ledger, usage, prices and budgets. Amounts are micro-credits unless said otherwise.

`memoro.format_credits` and `memoro.format_dollars` show them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

from memoro.enums import AiOperation, BreakerState, BudgetScope, LedgerAccount, LedgerEntryKind


@dataclass(frozen=True, slots=True)
class Grant:
    """Credits that a tenant was given: used up by priority, the lowest first, then by what expires first."""

    id: str
    amount: int
    remaining: int
    """What jobs hold included."""
    priority: int
    expire_time: datetime | None
    """What is left then is lost, but for what jobs hold. None: never."""
    note: str
    create_time: datetime | None


@dataclass(frozen=True, slots=True)
class Balance:
    """What a tenant has: granted = available + held + spent + expired + refunded."""

    tenant_id: str
    available: int
    """What new jobs can be paid from."""
    held: int
    """What is set aside for jobs that have not ended."""
    granted: int
    spent: int
    expired: int
    refunded: int
    """What operators have taken back."""
    low_balance: int
    """Below so much `available` the tenant is told by the event `balance.low`; 0: never."""
    grants: tuple[Grant, ...]
    """Those that have something left, in the order in which they are used up, 100 at most."""


@dataclass(frozen=True, slots=True)
class AddedCredits:
    """A grant just made, and the balance after it."""

    grant: Grant
    balance: Balance


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One transaction of a tenant's ledger: never changed, never deleted."""

    sequence: int
    """From 1 without gaps."""
    kind: LedgerEntryKind
    postings: Mapping[LedgerAccount, int]
    """What came to each account, or was taken from it; they sum to zero."""
    available_after: int
    held_after: int
    job_id: str
    request_id: str
    actor: str
    """The id of the operator's key that did it; empty: the service itself."""
    note: str
    create_time: datetime | None
    hash: bytes
    """SHA-256 over the hash of the entry before it and all of its own fields."""


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What was used; what is not grouped by is None or empty."""

    day: date | None
    operation: AiOperation | None
    provider: str
    model: str
    user_id: str
    calls: int
    """Failed ones included."""
    input_tokens: int
    output_tokens: int
    items: int
    """Texts."""
    cost_nano_dollars: int
    """What the providers charge for it."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used, the latest day first, and what the jobs that ended in that time were `charged` in all."""

    rows: tuple[UsageRow, ...]
    charged: int


@dataclass(frozen=True, slots=True)
class EstimateLine:
    """What one operation of an estimate may use at most."""

    operation: AiOperation
    provider: str
    model: str
    items: int
    input_tokens: int
    output_tokens: int
    cost_nano_dollars: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """The most that a request may cost: it is far above what most requests do cost."""

    amount: int
    """What is set aside when it is accepted, margin and fees included."""
    lines: tuple[EstimateLine, ...]
    margin_basis_points: int
    available: int
    """What the caller's tenant has."""

    @property
    def affordable(self) -> bool:
        """Whether the request would be accepted with what is available now."""
        return self.amount <= self.available


@dataclass(frozen=True, slots=True)
class Price:
    """What an operation of a model costs from `valid_from` on, until a later price holds."""

    provider: str
    model: str
    operation: AiOperation
    input_price: int
    """What the provider charges for a million input tokens, in micro-dollars."""
    output_price: int
    """The same for output tokens."""
    fee: int
    """What a tenant pays beyond that for each text, in micro-credits, without margin."""
    valid_from: datetime | None


@dataclass(frozen=True, slots=True)
class PriceList:
    """Prices, and what is added to what the providers charge, in hundredths of a percent."""

    prices: tuple[Price, ...]
    margin_basis_points: int


@dataclass(frozen=True, slots=True)
class SpendBreaker:
    """A daily budget, and the breaker that keeps it."""

    scope: BudgetScope
    tenant_id: str
    user_id: str
    state: BreakerState
    day: date | None
    """The day, in the time zone of the deployment."""
    limit: int
    """What may be spent on this day, resets included."""
    reserved: int
    spent: int
    percent_used: float
    deferred_jobs: int
    """How many wait because of it."""
    open_time: datetime | None
    day_end_time: datetime | None


@dataclass(frozen=True, slots=True)
class OperationCost:
    """What an operation of a model has cost."""

    operation: AiOperation
    provider: str
    model: str
    calls: int
    input_tokens: int
    output_tokens: int
    cost_nano_dollars: int
    for_questions: bool = False
    """Of searches: no tenant is charged for them."""


@dataclass(frozen=True, slots=True)
class AiCall:
    """One call of a provider, for an attempt of a job."""

    tenant_id: str
    job_id: str
    attempt: int
    call: int
    operation: AiOperation
    provider: str
    model: str
    input_tokens: int
    output_tokens: int
    cost_nano_dollars: int
    presumed: bool
    """Its answer was lost, and the tokens are presumed."""
    start_time: datetime | None


@dataclass(frozen=True, slots=True)
class AiCosts:
    """What a day's AI work has cost."""

    day: date | None
    cost_nano_dollars: int
    budget: SpendBreaker | None
    """That of the deployment, or of the tenant; None: there is none."""
    operations: tuple[OperationCost, ...]
    """The dearest first."""
    recent_calls: tuple[AiCall, ...]
    """Newest first."""
    house: Mapping[LedgerAccount, int]
    """What the house's accounts gained on the day."""


@dataclass(frozen=True, slots=True)
class LedgerVerification:
    """What a check of a ledger has found."""

    valid: bool
    entries: int
    """How many were checked."""
    first_invalid_sequence: int
    """0: none is, and what is wrong, if anything, is the balance."""
    problem: str
    head_hash: bytes
    """Of the last entry that was checked: kept elsewhere, it shows later that nothing before it was changed."""
    complete: bool
    """The check came to the end of the ledger, and held the balance against it; if not, calls need more time."""


@dataclass(frozen=True, slots=True)
class AlertChannelResult:
    """What came of sending an alert over a channel: log, email or slack."""

    channel: str
    delivered: bool
    problem: str
    """Why not; empty: it was delivered."""
