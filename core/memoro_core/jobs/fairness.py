"""Whose jobs come next: weighted deficit round-robin over tenants. Pure.

After Shreedhar and Varghese, "Efficient Fair Queuing Using Deficit Round-Robin" (1996); each job costs one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memoro_core.ids import TenantId


@dataclass(frozen=True, slots=True)
class WaitingTenant:
    """A tenant whose turn may come: its weight (at least 1), and how many of its jobs could begin now.

    `released` are jobs beside these that had been put off and were let go a short while ago: they come after all else.
    """

    tenant_id: TenantId
    weight: int
    jobs: int
    released: int = 0


class Turns:
    """Shares slots among tenants: first what has waited as usual, of all of them, then what had been put off."""

    def __init__(self) -> None:
        self._usual = DeficitRoundRobin()
        self._released = DeficitRoundRobin()

    def share(self, waiting: Sequence[WaitingTenant], slots: int) -> dict[TenantId, int]:
        """How many jobs of each tenant begin: `slots` in all, or as many as there are."""
        shares = self._usual.share(waiting, slots)
        left = slots - sum(shares.values())
        put_off = [WaitingTenant(tenant.tenant_id, tenant.weight, tenant.released) for tenant in waiting]
        for tenant_id, jobs in self._released.share(put_off, left).items():
            shares[tenant_id] = shares.get(tenant_id, 0) + jobs
        return shares


class DeficitRoundRobin:
    """Shares slots among tenants in proportion to their weights, whatever they have waiting, over calls as within one.

    A tenant that has nothing more to begin gives its turn away and saves nothing up.
    """

    def __init__(self) -> None:
        self._credits: dict[TenantId, int] = {}
        """What is left of each tenant's turn, in the order of the turns; the first is the next."""

    def share(self, waiting: Sequence[WaitingTenant], slots: int) -> dict[TenantId, int]:
        """How many jobs of each tenant begin: `slots` in all, or as many as there are."""
        tenants = {tenant.tenant_id: tenant for tenant in waiting if tenant.jobs > 0}
        self._credits = {known: credit for known, credit in self._credits.items() if known in tenants}
        for tenant_id in tenants:
            self._credits.setdefault(tenant_id, 0)
        shares: dict[TenantId, int] = {}
        while slots > 0 and self._credits:
            tenant_id = next(iter(self._credits))
            credit = self._credits[tenant_id] or tenants[tenant_id].weight
            left = tenants[tenant_id].jobs - shares.get(tenant_id, 0)
            begun = min(credit, left, slots)
            shares[tenant_id] = shares.get(tenant_id, 0) + begun
            slots -= begun
            del self._credits[tenant_id]
            if begun < min(credit, left):
                # The slots are used up within its turn, which goes on the next time.
                self._credits = {tenant_id: credit - begun, **self._credits}
            elif begun < left:
                self._credits[tenant_id] = 0
        return shares
