"""What a job's end moves: what it cost is taken from what was set aside, and the rest given back."""

from __future__ import annotations

from dataclasses import dataclass

from memoro_core.billing.ledger import Movement
from memoro_core.billing.model import Cause, Cost, EntryKind, Hold, LedgerAccount
from memoro_core.billing.money import BASIS_POINTS, PICO_DOLLARS_PER_MICRO_CREDIT, ceiling, charge


@dataclass(frozen=True, slots=True)
class Settlement:
    """The end of a hold. `bill` is what the job would cost if it had been held, `loss` what the house pays of it."""

    hold: Hold
    movement: Movement
    charged: int
    bill: int
    loss: int

    @property
    def above_bound(self) -> bool:
        """Whether the job cost more than was set aside for it."""
        return self.bill > self.hold.amount


def settle(hold: Hold, cost: Cost) -> Settlement:
    """Ends a hold: a SETTLEMENT, or a RELEASE when there is nothing to charge.

    The provider's part is rounded up to whole micro-credits, so is the charge. What a charge has beyond the provider's
    part is revenue, but for the micro-credit that rounding it up may have added; what is missing from it, the house
    pays.
    """
    amount, margin = hold.amount, hold.margin_basis_points
    bill = charge(cost.pico_dollars, cost.fees, margin_basis_points=margin)
    charged = min(bill, amount)
    provider_cost = ceiling(cost.pico_dollars, PICO_DOLLARS_PER_MICRO_CREDIT)
    earned = max(0, charged - provider_cost)
    fraction = cost.pico_dollars * (BASIS_POINTS + margin) % (BASIS_POINTS * PICO_DOLLARS_PER_MICRO_CREDIT)
    rounding = min(earned, 1) if fraction and bill <= amount else 0
    loss = max(0, provider_cost - charged)
    moved = {
        LedgerAccount.AVAILABLE: amount - charged,
        LedgerAccount.HELD: -amount,
        LedgerAccount.REVENUE: earned - rounding,
        LedgerAccount.PROVIDER_COST: provider_cost,
        LedgerAccount.ROUNDING: rounding,
        LedgerAccount.LOSS: -loss,
    }
    return Settlement(
        hold,
        Movement(
            EntryKind.SETTLEMENT if charged else EntryKind.RELEASE,
            {place: moved_amount for place, moved_amount in moved.items() if moved_amount},
            Cause(hold.job_id),
        ),
        charged,
        max(bill, provider_cost),
        loss,
    )
