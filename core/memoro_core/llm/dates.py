"""Reads the absolute dates of a text."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

_MONTH_NAMES = "january february march april may june july august september october november december"
MONTHS = {
    name[:length]: number for number, name in enumerate(_MONTH_NAMES.split(" "), start=1) for length in (3, len(name))
} | {"sept": 9}
"""The number of each month, by its full and its short name."""

_MONTH: Final = r"(?P<month>[A-Za-z]{3,9})\.?"
_YEAR: Final = r"(?P<year>[12]\d{3})"
_DAY: Final = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_SHAPES: Final = tuple(
    re.compile(shape)
    for shape in (
        _YEAR,
        rf"{_MONTH}(?: of)?,? {_YEAR}",
        rf"(?:the )?{_DAY}(?: of)? {_MONTH},? {_YEAR}",
        rf"{_MONTH} (?:the )?{_DAY},? {_YEAR}",
        r"(?P<year>\d{4})-(?P<number>\d{1,2})(?:-(?P<day>\d{1,2}))?",
    )
)


def absolute_date(text: str) -> datetime | None:
    """The first moment, in UTC, of the year, month or day that `text` names in full; None when it names none.

    "2021", "May 2021", "7 May 2021", "May 7th, 2021", "2021-05" and "2021-05-07" are read; "last Tuesday" is not.
    """
    text = " ".join(text.split())
    for shape in _SHAPES:
        if (match := shape.fullmatch(text)) is None:
            continue
        parts = match.groupdict()
        month = int(parts["number"]) if parts.get("number") else 1
        if parts.get("month"):
            if (named := MONTHS.get(parts["month"].lower())) is None:
                return None
            month = named
        try:
            return datetime(int(parts["year"]), month, int(parts.get("day") or 1), tzinfo=UTC)
        except ValueError:
            return None
    return None
