"""Days in a time zone."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoro_core.billing.calendar import Calendar

MICROSECOND = timedelta(microseconds=1)
ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kathmandu",
    "Pacific/Apia",
    "Africa/Cairo",
    "America/Sao_Paulo",
]


@settings(deadline=None)
@given(
    zone=st.sampled_from(ZONES),
    now=st.datetimes(datetime(2000, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC)),
)
def test_a_day_ends_where_the_next_begins(zone: str, now: datetime) -> None:
    calendar = Calendar(ZoneInfo(zone))
    end = calendar.day_end(now)
    assert end > now
    assert end.tzinfo is UTC
    assert calendar.day(end - MICROSECOND) == calendar.day(now) < calendar.day(end)


@pytest.mark.parametrize(
    ("zone", "now", "day", "end"),
    [
        ("UTC", datetime(2026, 1, 31, 12, tzinfo=UTC), date(2026, 1, 31), datetime(2026, 2, 1, tzinfo=UTC)),
        (
            "Europe/Berlin",
            datetime(2026, 1, 31, 23, tzinfo=UTC),
            date(2026, 2, 1),
            datetime(2026, 2, 1, 23, tzinfo=UTC),
        ),
        # Clocks go forward in the night to the 30th, so that this day has 23 hours.
        (
            "Europe/Berlin",
            datetime(2025, 3, 30, 0, tzinfo=UTC),
            date(2025, 3, 30),
            datetime(2025, 3, 30, 22, tzinfo=UTC),
        ),
        # Samoa went from the 29th of December 2011 straight to the 31st.
        (
            "Pacific/Apia",
            datetime(2011, 12, 30, 9, tzinfo=UTC),
            date(2011, 12, 29),
            datetime(2011, 12, 30, 10, tzinfo=UTC),
        ),
    ],
)
def test_days_are_those_of_the_zone(zone: str, now: datetime, day: date, end: datetime) -> None:
    calendar = Calendar(ZoneInfo(zone))
    assert (calendar.day(now), calendar.day_end(now)) == (day, end)
