"""Days, as budgets count them: in the time zone of the deployment."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, tzinfo


class Calendar:
    """Tells the day of a moment, and when it ends."""

    def __init__(self, time_zone: tzinfo) -> None:
        self.time_zone = time_zone

    def day(self, now: datetime) -> date:
        """The date of a moment."""
        return now.astimezone(self.time_zone).date()

    def day_start(self, day: date) -> datetime:
        """The first moment of a day, in UTC.

        Where clocks are put forward at midnight, that is the moment at which they are.
        """
        return datetime.combine(day, time.min, tzinfo=self.time_zone).astimezone(UTC)

    def day_end(self, now: datetime) -> datetime:
        """The first moment of the following day, in UTC."""
        return self.day_start(self.day(now) + timedelta(days=1))
