"""How a breaker moves on by itself while its day lasts. Pure."""

from __future__ import annotations

from memoro_core.billing.model import BreakerState, BudgetDay


def turned(budget: BudgetDay, *, waited_for: bool) -> BreakerState:
    """The state that a breaker moves on to, or the one it has. `waited_for`: a job is put off because of it.

    OPEN becomes HALF_OPEN when what the job that opened it needs has room again: it is let go then, and others after
    it, until one does not fit. With no job left that waits, and something left to spend, it is CLOSED.
    """
    room = budget.ceiling - budget.committed
    if not waited_for:
        return BreakerState.CLOSED if room > 0 else budget.state
    if budget.state is BreakerState.OPEN and budget.needed <= room:
        return BreakerState.HALF_OPEN
    return budget.state
