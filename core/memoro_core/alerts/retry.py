"""When an alert is tried again, and when it is given up. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from memoro_core.alerts.model import ALERT_LIFETIME, AlertClaim, AlertState, AlertVerdict, ChannelResult

DELAYS: Final = tuple(timedelta(seconds=seconds) for seconds in (5, 30, 120, 600, 1800, 3600))
"""How long to wait after the first attempt, the second, and so on; after the last of them always as long."""
JITTER: Final = 0.1
_MAX_ERROR: Final = 500


@dataclass(frozen=True, slots=True)
class AlertPolicy:
    """Judges attempts. Jitter of ±10 % keeps alerts that failed together from coming back together."""

    rand: Callable[[], float] = random.random

    def judge(
        self, claim: AlertClaim, results: Sequence[ChannelResult], now: datetime, *, complete: bool
    ) -> AlertVerdict:
        """What an attempt that ended now means; a channel that asks for more time than the step gets it."""
        error = "; ".join(f"{result.channel}: {result.problem}" for result in results if result.failed)[:_MAX_ERROR]
        if complete:
            return AlertVerdict(AlertState.DELIVERED, error=error)
        left = claim.alert.created_at + ALERT_LIFETIME - now
        if left < DELAYS[0]:
            return AlertVerdict(AlertState.FAILED, error=error)
        asked = [result.retry_after for result in results if result.failed and result.retry_after is not None]
        # The last attempt is at the end of the time, however the steps fall.
        return AlertVerdict(AlertState.PENDING, now + min(max([self.delay(claim.attempt), *asked]), left), error)

    def delay(self, attempt: int) -> timedelta:
        """How long to wait after the attempt of this number, from 1."""
        return DELAYS[min(attempt, len(DELAYS)) - 1] * (1 + JITTER * (2 * self.rand() - 1))
