"""What retention needs from the outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Protocol

from memoro_core.jobs.model import JobState


@dataclass(frozen=True, slots=True)
class Keeping:
    """How long a tier keeps jobs that have ended; None: as long as the settings say."""

    tier: str
    succeeded: timedelta | None
    failed: timedelta | None


class RetentionStore(Protocol):
    """What is old, of all tenants."""

    async def keeping(self) -> Sequence[Keeping]:
        """What each tier says."""
        ...

    async def forget_jobs(
        self, tier: str, states: Sequence[JobState], *, ended_from: datetime, ended_before: datetime, limit: int
    ) -> tuple[int, datetime]:
        """Deletes the tier's jobs of these states that ended in that time, with their events, the first first.

        Returns how many, at most `limit`, and when the last of them ended: nothing is left from before that.
        """
        ...

    async def forget_fires(self, *, before: datetime) -> int:
        """Deletes times of schedules from before, except the latest of each; how many."""
        ...

    async def forget_workers(self, *, silent_since: datetime) -> int:
        """Deletes workers that have told nothing of themselves since; how many."""
        ...

    async def forget_unit_days(self, *, before: date) -> int:
        """Deletes the weight of calls on earlier days; how many rows."""
        ...

    async def forget_budget_days(self, *, before: date) -> int:
        """Deletes how far budgets were used up on earlier days; how many rows."""
        ...

    async def forget_relation_slots(self, *, before: datetime) -> int:
        """Deletes for which jobs entities and facts were found before; how many."""
        ...
