"""What recurring work needs from the outside."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Fire:
    """A time of a schedule that somebody has begun to work on. `ended_at` None: it goes on, or its worker was lost."""

    fire_at: datetime
    started_at: datetime
    ended_at: datetime | None


class ScheduleStore(Protocol):
    """Which times of which schedules were worked on. Whoever begins one is the only one who does."""

    async def latest(self, schedule: str) -> Fire | None:
        """The latest time begun; None for a schedule that is not known yet."""
        ...

    async def introduce(self, schedule: str, *, now: datetime) -> None:
        """Makes a schedule known, as if it had fired now: times before it are none of its own."""
        ...

    async def begin(self, schedule: str, fire_at: datetime, *, now: datetime, lost_before: datetime) -> bool:
        """Whether this time is the caller's: nobody has begun it, or who did began before `lost_before` and is lost."""
        ...

    async def end(self, schedule: str, fire_at: datetime, *, started_at: datetime, now: datetime) -> bool:
        """Marks it as done, unless another has taken it over; whether it was still the caller's."""
        ...
