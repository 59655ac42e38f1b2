"""Which failures are worth another attempt, and when."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from memoro_core.errors import Code, MemoroError, ProviderError, Reason
from memoro_core.jobs.model import JobError

RETRYABLE: Final = frozenset(
    {Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED, Code.DEADLINE_EXCEEDED, Code.ABORTED, Code.INTERNAL}
)
"""What may be over when the same work is tried again."""
LONGEST_WAIT: Final = 3600.0
"""A provider that asks to be left alone for longer is asked again after this all the same."""
JITTER: Final = 0.25
_MAX_MESSAGE: Final = 500


@dataclass(frozen=True, slots=True)
class Failure:
    """What an attempt failed of; `retry_after` is how long the other side asked to be left alone, in seconds."""

    error: JobError
    retry_after: float | None = None


def classify(error: Exception) -> Failure:
    """What callers may know of an exception. One that is not ours is retried, and its text stays in the log."""
    if not isinstance(error, MemoroError):
        return Failure(JobError(Reason.INTERNAL, "an unexpected error; it is in the worker's log", retryable=True))
    retryable = error.retryable if isinstance(error, ProviderError) else error.code in RETRYABLE
    return Failure(JobError(error.reason, error.message[:_MAX_MESSAGE], retryable=retryable), error.retry_after)


def timed_out(limit: float) -> Failure:
    """An attempt that took longer than its limit, in seconds."""
    return Failure(JobError(Reason.JOB_TIMED_OUT, f"the attempt took longer than {limit:g} s", retryable=True))


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff: `base` seconds after the first attempt, twice as long after each, `maximum` at most.

    Jitter of ±25 % keeps jobs that failed together from coming back together.
    """

    base: float
    maximum: float
    rand: Callable[[], float] = random.random

    def delay(self, attempt: int, *, retry_after: float | None = None) -> float:
        """Seconds to wait after the attempt of this number (from 1); never less than the other side asked for."""
        backoff = min(self.maximum, self.base * 2.0 ** min(attempt - 1, 60))
        jittered = min(self.maximum, backoff * (1 + JITTER * (2 * self.rand() - 1)))
        return max(jittered, min(retry_after or 0.0, LONGEST_WAIT))

    def retry_at(self, now: datetime, attempt: int, *, retry_after: float | None = None) -> datetime:
        """When the attempt after this one may begin."""
        return now + timedelta(seconds=self.delay(attempt, retry_after=retry_after))

    def retry_lost_at(self, now: datetime, attempt: int) -> datetime:
        """When a job may begin again whose worker was lost in the attempt of this number.

        The first time at once. From then on the job may be what kills its workers: backing off, with jitter, takes it
        away from the jobs that were lost together with it, before it has used up their attempts too.
        """
        return now if attempt <= 1 else self.retry_at(now, attempt - 1)
