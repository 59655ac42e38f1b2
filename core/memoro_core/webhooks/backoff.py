"""When a delivery is tried again, when it is given up, and when its endpoint is. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Final

from memoro_core.webhooks.model import DeliveryClaim, DeliveryState, Outcome, Verdict

DELAYS: Final = tuple(
    timedelta(seconds=seconds) for seconds in (5, 30, 120, 600, 1800, 3600, 3 * 3600, 6 * 3600, 12 * 3600)
)
"""How long to wait after the first attempt, the second, and so on; after the last of them always as long."""
JITTER: Final = 0.1
DEAD_AFTER: Final = timedelta(days=3)
"""An endpoint that has taken nothing for so long is disabled with the next attempt that fails."""


@dataclass(frozen=True, slots=True)
class DeliveryPolicy:
    """Judges attempts. Jitter of ±10 % keeps deliveries that failed together from coming back together."""

    rand: Callable[[], float] = random.random

    def judge(self, claim: DeliveryClaim, outcome: Outcome, now: datetime) -> Verdict:
        """What an attempt that ended now means."""
        if not outcome.error:
            return Verdict(DeliveryState.SUCCEEDED)
        failing_since = claim.failing_since or now
        if outcome.status == HTTPStatus.GONE or now - failing_since >= DEAD_AFTER:
            return Verdict(DeliveryState.FAILED, disable=True)
        left = claim.give_up_at - now
        if left < DELAYS[0]:
            return Verdict(DeliveryState.FAILED)
        # The last attempt is at the end of the time, however the steps fall.
        return Verdict(DeliveryState.PENDING, next_attempt_at=now + min(self.delay(claim.attempt), left))

    def delay(self, attempt: int) -> timedelta:
        """How long to wait after the attempt of this number, from 1."""
        return DELAYS[min(attempt, len(DELAYS)) - 1] * (1 + JITTER * (2 * self.rand() - 1))
