"""No limits at all."""

from __future__ import annotations

from memoro_core.limits.counts import LimitCounts
from memoro_core.limits.model import UNLIMITED, Ask, Verdict


class Unlimited:
    """A `Limiter` that lets everything pass."""

    def __init__(self) -> None:
        self.counts = LimitCounts()

    def decide_now(self, ask: Ask) -> Verdict | None:
        """It passes."""
        return UNLIMITED

    async def decide(self, ask: Ask) -> Verdict:
        """It passes."""
        return UNLIMITED
