"""Time in questions: which days a question names, whether it asks when, and which texts tell a time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

_MONTHS: Final = (
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
)  # fmt: skip
_MONTH: Final = "|".join(f"{month}|{month[:3]}(?=[ .,])" for month in _MONTHS) + "|sept(?=[ .,])"
_YEAR: Final = r"(?P<year>(?:19|20)\d\d)"
_DAY: Final = r"(?P<day>[0-3]?\d)(?:st|nd|rd|th)?"
_NAMED_DATES: Final = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"\b{_YEAR}-(?P<number>[01]\d)-{_DAY}\b",
        rf"\b{_DAY}(?: of)? (?P<month>{_MONTH})\.?(?:,? {_YEAR})?\b",
        rf"\b(?P<month>{_MONTH})\.? {_DAY}(?:,? {_YEAR})?\b",
        rf"\b(?P<month>{_MONTH})\.?,?(?: of)? {_YEAR}\b",
        # "may" alone is a verb, and so is "march"; both are months after a preposition.
        rf"\b(?:in|during|since|until|by|of|last|this|early|late|mid) (?P<month>{_MONTH})\b",
        rf"\b{_YEAR}\b",
    )
)
_ASKS_WHEN: Final = re.compile(
    r"^\W*when\b|\bwhen (?:am|are|can|could|did|do|does|had|has|have|is|should|was|were|will|would)\b"
    r"|\bhow (?:long|recently)\b|\b(?:what|which) (?:date|day|month|year|season|time|week|weekend)\b",
    re.IGNORECASE,
)
_TELLS_TIME: Final = re.compile(
    r"\b(?:yesterday|today|tonight|tomorrow|last|next|ago|weeks?|weekends?|months?|years?|days?|since|recently|just|soon|morning"
    r"|night|spring|summer|autumn|fall|winter|(?:mon|tues|wednes|thurs|fri|satur|sun)days?|(?:19|20)\d\d"
    rf"|{'|'.join(_MONTHS)})\b",
    re.IGNORECASE,
)
_ECHO: Final = timedelta(days=21)
"""What happened on a day is still talked of for about three weeks."""
_DAY_LENGTH: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class NamedTime:
    """A day, month or year that a question names. Without a year, it is that of any year."""

    year: int | None
    month: int | None
    day: int | None

    def closeness(self, moment: datetime) -> float:
        """From 0 to 1: how well a moment fits: 1 within the time itself (or a day around a day), less soon after it."""
        moment = moment.astimezone(UTC)
        if self.month is None:
            return 1.0 if moment.year == self.year else 0.0
        # Without a year, the latest such time before the moment is meant: the one that may be talked of then.
        years = (moment.year, moment.year - 1) if self.year is None else (self.year,)
        return max(self._closeness_in(year, moment) for year in years)

    def _closeness_in(self, year: int, moment: datetime) -> float:
        assert self.month is not None
        try:
            start = datetime(year, self.month, self.day or 1, tzinfo=UTC)
            if self.day is None:
                end, early = datetime(year + self.month // 12, self.month % 12 + 1, 1, tzinfo=UTC), timedelta()
            else:
                end, early = start + 2 * _DAY_LENGTH, _DAY_LENGTH
        except (ValueError, OverflowError):  # no such day, or beyond the calendar
            return 0.0
        if start <= moment + early and moment < end:
            return 1.0
        return max(0.0, 1.0 - (moment - end) / _ECHO) if moment >= end else 0.0


def named_time(question: str) -> NamedTime | None:
    """The first, most precise time that a question names in English words or ISO 8601; None when it names none."""
    for pattern in _NAMED_DATES:
        if match := pattern.search(question):
            parts = match.groupdict()
            number, month = parts.get("number"), parts.get("month")
            if number is None and month is not None:
                number = next(str(place) for place, name in enumerate(_MONTHS, 1) if name.startswith(month.lower()[:3]))
            time = NamedTime(*(int(part) if part else None for part in (parts.get("year"), number, parts.get("day"))))
            if (time.month or 1) <= 12 and 1 <= (time.day or 1) <= 31:
                return time
    return None


def asks_when(question: str) -> bool:
    """Whether the answer to a question is a time."""
    return _ASKS_WHEN.search(question) is not None


def tells_time(text: str) -> bool:
    """Whether a text has words that place something in time."""
    return _TELLS_TIME.search(text) is not None
