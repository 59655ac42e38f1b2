"""Accounts, entries, grants, holds, prices, calls and budgets. Amounts are in micro-credits, unless said otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from memoro_core.ids import ApiKeyId, GrantId, JobId, TenantId, UserId
from memoro_core.llm.model import Operation

DEPLOYMENT: Final = TenantId(UUID(int=0))
"""Whose the deployment's own budget and alerts are."""


class LedgerAccount(StrEnum):
    """Where money is; the values are the ledger's columns. The first two are the tenant's, the others the house's."""

    AVAILABLE = "available"
    HELD = "held"
    GRANTED = "granted"
    REVENUE = "revenue"
    PROVIDER_COST = "provider_cost"
    ROUNDING = "rounding"
    LOSS = "loss"
    EXPIRED = "expired"
    REFUNDED = "refunded"


class EntryKind(StrEnum):
    """What moved money."""

    GRANT = "GRANT"
    HOLD = "HOLD"
    EXTENSION = "EXTENSION"
    SETTLEMENT = "SETTLEMENT"
    RELEASE = "RELEASE"
    EXPIRY = "EXPIRY"
    ADJUSTMENT = "ADJUSTMENT"


@dataclass(frozen=True, slots=True)
class Cause:
    """What an entry was made for: a job, a request, an operator's key; none of them: the service itself."""

    job_id: JobId | None = None
    request_id: str = ""
    actor: ApiKeyId | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One transaction of a tenant's ledger. `postings` sum to zero; accounts that nothing moved are left out."""

    tenant_id: TenantId
    seq: int
    kind: EntryKind
    postings: Mapping[LedgerAccount, int]
    available_after: int
    held_after: int
    cause: Cause
    created_at: datetime
    hash: bytes


@dataclass(frozen=True, slots=True)
class CreditAccount:
    """What a tenant has, as its row has it: granted = available + held + spent + expired + refunded."""

    tenant_id: TenantId
    available: int = 0
    held: int = 0
    granted: int = 0
    spent: int = 0
    expired: int = 0
    refunded: int = 0
    low_balance: int = 0
    is_low: bool = False
    next_expiry_at: datetime | None = None
    last_seq: int = 0
    last_hash: bytes = b""


@dataclass(frozen=True, slots=True)
class Grant:
    """Credits given. `remaining` counts what jobs hold; the lowest `priority` is used up first."""

    id: GrantId
    amount: int
    remaining: int
    priority: int
    expires_at: datetime | None
    note: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Balance:
    """An account with the grants that have something left, in the order in which they are used up."""

    account: CreditAccount
    grants: Sequence[Grant]


class HoldState(StrEnum):
    """Where a hold stands."""

    PENDING = "PENDING"
    CAPTURED = "CAPTURED"
    RELEASED = "RELEASED"


@dataclass(frozen=True, slots=True)
class Hold:
    """What is set aside for a job that has not ended: `scopes` are the budgets of `day` in which it is reserved."""

    job_id: JobId
    user_id: UserId
    amount: int
    margin_basis_points: int
    day: date
    scopes: Sequence[BudgetScope]


@dataclass(frozen=True, slots=True)
class HoldRequest:
    """A job to be accepted, and the most that it may cost (0: nothing, which always is held)."""

    job_id: JobId
    user_id: UserId
    bound: int
    request_id: str = ""


class BudgetScope(StrEnum):
    """Which jobs a daily budget bounds."""

    DEPLOYMENT = "DEPLOYMENT"
    TENANT = "TENANT"
    USER = "USER"


class DeferralReason(StrEnum):
    """Why a job is put off: whose budget is used up, or that credits are missing now that it could be let go.

    RELATIONS is not about money: entities and facts were found for as many jobs of the user as an hour allows.
    """

    DEPLOYMENT = "DEPLOYMENT"
    TENANT = "TENANT"
    USER = "USER"
    CREDITS = "CREDITS"
    RELATIONS = "RELATIONS"


@dataclass(frozen=True, slots=True)
class Held:
    """The job may run: its bound is set aside."""


@dataclass(frozen=True, slots=True)
class Deferred:
    """A budget is used up: the job is to be DEFERRED until then. Nothing is set aside."""

    reason: DeferralReason
    until: datetime


@dataclass(frozen=True, slots=True)
class Refused:
    """The tenant has too little: the job must not be stored."""

    need: int
    have: int


HoldVerdict = Held | Deferred | Refused


class BreakerState(StrEnum):
    """Where a spend breaker stands."""

    CLOSED = "CLOSED"
    OPEN = "OPEN"
    HALF_OPEN = "HALF_OPEN"


@dataclass(frozen=True, slots=True)
class BudgetKey:
    """Which daily budget: of the deployment, a tenant, or one user of a tenant."""

    scope: BudgetScope
    tenant_id: TenantId = DEPLOYMENT
    user_id: UserId | None = None


@dataclass(frozen=True, slots=True)
class BudgetDay:
    """A budget on one day. `limit` is what may be spent, without what resets have `raised` it by."""

    key: BudgetKey
    day: date
    limit: int
    reserved: int = 0
    spent: int = 0
    raised: int = 0
    state: BreakerState = BreakerState.CLOSED
    needed: int = 0
    alerted: int = 0
    opened_at: datetime | None = None

    @property
    def committed(self) -> int:
        """What is set aside and what is spent: no new job brings it above the ceiling.

        It is above when the limit was lowered, or when a job that ran already had to have more.
        """
        return self.reserved + self.spent

    @property
    def ceiling(self) -> int:
        """What may be committed on this day."""
        return self.limit + self.raised


@dataclass(frozen=True, slots=True)
class Price:
    """What an operation of a model costs from a time on.

    `input_price` and `output_price` are pico-dollars a token (micro-dollars a million); `fee` is micro-credits a text.
    """

    provider: str
    model: str
    operation: Operation
    input_price: int
    output_price: int
    fee: int
    valid_from: datetime

    def cost(self, *, input_tokens: int, output_tokens: int) -> int:
        """What the provider charges, in pico-dollars."""
        return input_tokens * self.input_price + output_tokens * self.output_price


class CallState(StrEnum):
    """Whether a provider's answer is there. An OPEN call counts as the most that it may use; see `ai_calls`."""

    OPEN = "OPEN"
    DONE = "DONE"
    PRESUMED = "PRESUMED"


@dataclass(frozen=True, slots=True)
class Cost:
    """What calls cost: the provider's part in pico-dollars, and fees in micro-credits."""

    pico_dollars: int = 0
    fees: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.pico_dollars + other.pico_dollars, self.fees + other.fees)


@dataclass(frozen=True, slots=True)
class LedgerFilter:
    """Which entries to list; all that is set must hold."""

    kinds: Sequence[EntryKind] = field(default=())
    job_id: JobId | None = None
    created_from: datetime | None = None
    created_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Verification:
    """What came of checking a ledger: how many entries were, and the first that is wrong (0: none is).

    `complete` says that the check came to the end of the ledger, and compared the account with it. `head_hash` is that
    of the last entry that was checked.
    """

    entries: int
    head_hash: bytes
    first_invalid_seq: int = 0
    problem: str = ""
    complete: bool = True

    @property
    def valid(self) -> bool:
        """Nothing is wrong with what was checked."""
        return not self.problem
