"""What was used, and what it has cost. Sums of pico-dollars may exceed 64 bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Final

from memoro_core.billing.breaker_model import BreakerStatus
from memoro_core.billing.model import LedgerAccount
from memoro_core.ids import JobId, TenantId, UserId
from memoro_core.llm.model import Operation
from memoro_core.paging import Page

MAX_DAYS: Final = 366
"""How many days after its first day the last day of a report may be."""
USUAL_DAYS: Final = 30
HOUSE_ACCOUNTS: Final = tuple(
    account for account in LedgerAccount if account not in {LedgerAccount.AVAILABLE, LedgerAccount.HELD}
)
"""The accounts that are not the tenant's own."""


class UsageDimension(StrEnum):
    """What usage is summed up by."""

    DAY = "DAY"
    OPERATION = "OPERATION"
    MODEL = "MODEL"
    USER = "USER"


USUAL_DIMENSIONS: Final = (UsageDimension.DAY, UsageDimension.OPERATION, UsageDimension.MODEL)


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """Which calls to sum up, and by what: those of the days from `first` to `last`, both included."""

    first: date
    last: date
    user_id: UserId | None = None
    group_by: Sequence[UsageDimension] = USUAL_DIMENSIONS


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What was used of one thing. What is not summed up by is None, or empty for provider and model."""

    day: date | None
    operation: Operation | None
    provider: str
    model: str
    user_id: UserId | None
    calls: int
    input_tokens: int
    output_tokens: int
    items: int
    cost_pico_dollars: int


@dataclass(frozen=True, slots=True)
class UsageReport:
    """A page of what was used, and what the jobs that ended in all of that time were charged, in micro-credits."""

    rows: Page[UsageRow]
    charged: int


@dataclass(frozen=True, slots=True)
class OperationCost:
    """What an operation of a model has cost: of jobs, or for the questions of searches, which the house pays itself."""

    operation: Operation
    provider: str
    model: str
    calls: int
    input_tokens: int
    output_tokens: int
    cost_pico_dollars: int
    for_questions: bool = False


@dataclass(frozen=True, slots=True)
class AiCall:
    """One call of a provider. Of one that is not DONE, the tokens are the most it may use, or presumed."""

    tenant_id: TenantId
    job_id: JobId
    attempt: int
    call: int
    operation: Operation
    provider: str
    model: str
    input_tokens: int
    output_tokens: int
    cost_pico_dollars: int
    presumed: bool
    started_at: datetime


@dataclass(frozen=True, slots=True)
class AiCosts:
    """What a day's work has cost: of all tenants, or of one. `budget` is None where none is set.

    `operations` are sorted by cost, the dearest first; `recent_calls` by time, the latest first; `house` is what the
    house's accounts gained.
    """

    day: date
    budget: BreakerStatus | None
    operations: Sequence[OperationCost]
    recent_calls: Sequence[AiCall]
    house: Mapping[LedgerAccount, int]

    @property
    def cost_pico_dollars(self) -> int:
        """What the providers charge for all of it."""
        return sum(operation.cost_pico_dollars for operation in self.operations)
