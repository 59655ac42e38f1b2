"""Daily budgets as operators see them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from memoro_core.billing.model import BudgetDay


@dataclass(frozen=True, slots=True)
class BreakerStatus:
    """A budget today, how many jobs wait because of it, and when the next day begins."""

    budget: BudgetDay
    deferred_jobs: int
    day_end: datetime
