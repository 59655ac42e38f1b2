"""How a finding is worded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from memoro_core.diagnosis.model import Diagnosis, Verdict

_NAMED: Final = 5


def ok(check: str, message: str) -> Diagnosis:
    """As it should be."""
    return Diagnosis(check, Verdict.OK, message)


def warning(check: str, message: str) -> Diagnosis:
    """Not as it should be in production."""
    return Diagnosis(check, Verdict.WARNING, message)


def failed(check: str, message: str) -> Diagnosis:
    """Dangerous, or out of order."""
    return Diagnosis(check, Verdict.FAILED, message)


def listed(names: Sequence[str]) -> str:
    """The first five, and how many more there are."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def numbers(version: str) -> tuple[int, ...]:
    """A version as it is compared; what is no number in it does not count."""
    return tuple(int(part) for part in version.split(".") if part.isdigit())
