"""When a schedule fires: a cron expression, read in a time zone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError


def time_zone_of(name: str) -> ZoneInfo:
    """The time zone of an IANA name. Raises ValueError."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name!r} is no IANA time zone") from None


class Cron:
    """The times of a five-field cron expression, as Debian's cron reads it, all in UTC.

    At fixed hours and minutes it fires once a day, daylight saving time or not: what falls into the hour that is left
    out comes right after it, and what falls into the hour that comes twice comes the first time. With `*` or `*/n` in
    the minutes or the hours it follows the clock on the wall: the hour that comes twice counts twice. (Where clocks
    are changed by half an hour, on Lord Howe Island only, it can miss the first half hour after the change.)
    """

    def __init__(self, expression: str, zone: ZoneInfo) -> None:
        """Raises ValueError for an expression that is none, or that never fires within fifty years."""
        self._expression = expression
        self._zone = zone
        if len(expression.split()) != 5:
            raise ValueError(f"{expression!r} must have five fields: minute, hour, day of month, month, day of week")
        try:
            self.after(datetime(2000, 1, 1, tzinfo=UTC))
        except CronSimError as error:
            raise ValueError(f"{expression!r} is no cron expression: {error}") from None

    def after(self, moment: datetime) -> datetime:
        """The first time after a moment. Raises ValueError when there is none within fifty years."""
        for time in self._times(moment):
            if time > moment:
                return time
        raise ValueError(f"{self._expression!r} never fires")

    def latest(self, moment: datetime) -> datetime | None:
        """The last time at or before a moment; None when there is none within fifty years."""
        local = (moment + timedelta(seconds=1)).astimezone(self._zone)
        try:
            latest = next(CronSim(self._expression, local, reverse=True)).astimezone(UTC)
        except StopIteration:
            return None
        # Backwards, the library takes no notice of times in the first pass of an hour that comes twice.
        for time in self._times(latest):
            if time > moment:
                break
            latest = time
        return latest

    def _times(self, moment: datetime) -> Iterator[datetime]:
        """Times from about a moment on, in order; some may come twice, and some from before it."""
        return (time.astimezone(UTC) for time in CronSim(self._expression, moment.astimezone(self._zone)))
