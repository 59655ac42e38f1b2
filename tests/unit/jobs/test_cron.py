"""When schedules fire, above all on the days on which clocks are changed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoro_core.jobs.cron import Cron, time_zone_of

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu")
MINUTE = timedelta(minutes=1)


def times(cron: Cron, start: datetime, end: datetime) -> Iterator[datetime]:
    """All times after `start`, up to `end`."""
    while (start := cron.after(start)) <= end:
        yield start


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def on(day: str, expression: str, zone: str) -> list[str]:
    """The times within one day of a zone, in UTC."""
    begin = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone))
    end = (begin + timedelta(days=1)).astimezone(UTC) - timedelta(seconds=1)
    found = times(Cron(expression, ZoneInfo(zone)), begin.astimezone(UTC) - timedelta(seconds=1), end)
    return [f"{time:%H:%M}" for time in found]


@pytest.mark.parametrize(
    ("day", "zone", "expression", "expected"),
    [
        # Berlin leaves 02:00 to 02:59 out, and then has 02:00 to 02:59 twice.
        ("2026-03-29", "Europe/Berlin", "30 2 * * *", ["01:00"]),
        ("2026-03-29", "Europe/Berlin", "15,45 2 * * *", ["01:00"]),
        ("2026-03-29", "Europe/Berlin", "0 1,2,3 * * *", ["00:00", "01:00"]),
        ("2026-10-25", "Europe/Berlin", "30 2 * * *", ["00:30"]),
        ("2026-10-25", "Europe/Berlin", "0 1,2,3 * * *", ["23:00", "00:00", "02:00"]),
        ("2026-10-25", "Europe/Berlin", "*/30 2 * * *", ["00:00", "00:30", "01:00", "01:30"]),
        ("2026-03-29", "Europe/Berlin", "*/30 2 * * *", []),
        ("2026-03-08", "America/New_York", "30 2 * * *", ["07:00"]),
        ("2026-11-01", "America/New_York", "30 1 * * *", ["05:30"]),
        ("2026-11-01", "America/New_York", "0 0 * * 0", ["04:00"]),
    ],
)
def test_days_on_which_clocks_are_changed(day: str, zone: str, expression: str, expected: list[str]) -> None:
    assert on(day, expression, zone) == expected


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-06-01", 24)])
def test_every_ten_minutes_is_every_ten_minutes(day: str, hours: int) -> None:
    assert len(on(day, "*/10 * * * *", "Europe/Berlin")) == hours * 6


@settings(deadline=None, max_examples=150)
@given(
    zone=st.sampled_from(ZONES),
    hour=st.integers(0, 23),
    minute=st.integers(0, 59),
    first=st.dates(date(2025, 1, 1), date(2027, 12, 1)),
)
def test_a_daily_time_comes_once_each_day(zone: str, hour: int, minute: int, first: date) -> None:
    place = ZoneInfo(zone)
    begin = datetime(first.year, first.month, first.day, tzinfo=place).astimezone(UTC) - timedelta(seconds=1)
    days = [
        time.astimezone(place).date()
        for time in times(Cron(f"{minute} {hour} * * *", place), begin, begin + timedelta(days=30))
    ]
    assert len(days) == len(set(days))
    assert days == [first + timedelta(days=n) for n in range(len(days))]
    assert len(days) >= 29


expressions = st.tuples(
    st.sampled_from(["*", "*/7", "0", "30", "0,30", "59"]),
    st.sampled_from(["*", "2", "1-3", "*/5", "0,2,23"]),
    st.sampled_from(["*", "25,29", "1", "*/2"]),
    st.sampled_from(["*", "3,10,11"]),
    st.sampled_from(["*", "SUN", "1-5"]),
).map(" ".join)
changes = st.sampled_from(
    ["2026-03-29T01:00+00:00", "2026-10-25T01:00+00:00", "2026-03-08T07:00+00:00", "2026-11-01T06:00+00:00"]
)


@settings(deadline=None, max_examples=300)
@given(
    expression=expressions,
    # Not Lord Howe, whose clocks are changed by half an hour: see `Cron`.
    zone=st.sampled_from([zone for zone in ZONES if zone != "Australia/Lord_Howe"]),
    change=changes,
    seconds=st.integers(-5 * 3600, 5 * 3600),
)
def test_the_latest_time_and_the_next_leave_nothing_between_them(
    expression: str, zone: str, change: str, seconds: int
) -> None:
    cron, moment = Cron(expression, ZoneInfo(zone)), utc(change) + timedelta(seconds=seconds)
    latest, following = cron.latest(moment), cron.after(moment)
    assert latest is not None
    assert latest <= moment < following
    assert cron.after(latest) == following
    assert cron.latest(following) == following
    assert cron.latest(following - timedelta(seconds=1)) == latest
    assert latest.second == following.second == 0


@settings(deadline=None, max_examples=60)
@given(expression=expressions, zone=st.sampled_from(ZONES), change=changes, step=st.integers(1, 240))
def test_looking_now_and_then_finds_what_looking_each_minute_finds(
    expression: str, zone: str, change: str, step: int
) -> None:
    cron, begin = Cron(expression, ZoneInfo(zone)), utc(change) - timedelta(hours=5)
    end = begin + timedelta(hours=10)
    every = set(times(cron, begin, end))
    seen: set[datetime] = set()
    moment = begin
    while moment < end:
        moment = min(moment + step * MINUTE, end)
        latest = cron.latest(moment)
        assert latest is not None
        if latest > begin:
            seen.add(latest)
    assert seen <= every
    assert max(seen, default=None) == max(every, default=None)
    if step == 1:
        assert seen == every


@pytest.mark.parametrize(
    "expression", ["", "* * * *", "* * * * * *", "60 * * * *", "x * * * *", "0 0 30 2 *", "* * */20 * 1L"]
)
def test_what_is_no_schedule_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match=r"five fields|no cron expression|never fires"):
        Cron(expression, ZoneInfo("UTC"))


@pytest.mark.parametrize("name", ["", "Mars/Olympus", "../etc/passwd", "Europe", "/etc/localtime"])
def test_what_is_no_time_zone_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no IANA time zone"):
        time_zone_of(name)
