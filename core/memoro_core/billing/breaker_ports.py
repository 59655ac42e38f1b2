"""What daily budgets need from the outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol

from memoro_core.billing.model import BudgetDay, BudgetKey
from memoro_core.ids import TenantId
from memoro_core.tenancy.ports import Request


@dataclass(frozen=True, slots=True)
class Standing:
    """A budget on a day, and how many jobs wait because of it."""

    budget: BudgetDay
    deferred_jobs: int


class BudgetStore(Protocol):
    """Budgets, and how far each is used up day by day."""

    async def set_limit(
        self, key: BudgetKey, limit: int | None, day: date, request: Request | None, *, now: datetime
    ) -> None:
        """Sets a budget, or takes it away; a request that came before changes nothing.

        What is committed on that day counts against a new one, but for what is being accepted in this moment. Raises
        TENANT_NOT_FOUND, REQUEST_ID_REUSED.
        """
        ...

    async def reset(self, key: BudgetKey, day: date, request: Request | None, *, now: datetime) -> None:
        """Raises what may be committed on a day by the limit, and turns an OPEN breaker HALF_OPEN.

        A request that came before changes nothing. Raises BUDGET_NOT_FOUND, REQUEST_ID_REUSED.
        """
        ...

    async def get(self, key: BudgetKey, day: date) -> Standing | None:
        """One budget on a day, with nothing in it if nothing has been; None when there is no such budget."""
        ...

    async def standing(self, day: date, tenant_id: TenantId | None, *, limit: int) -> Sequence[Standing]:
        """The deployment's budget, then a tenant's and those of its users that have something on that day.

        Without a tenant, instead of the latter, all whose breakers are not CLOSED. Budgets that don't exist are left
        out.
        """
        ...

    async def turn(self, day: date) -> Sequence[BudgetDay]:
        """Moves the breakers of a day on, and returns those that it moved.

        OPEN ones become HALF_OPEN when what the job that opened them needs has room again; those that no job waits for
        and that are not used up become CLOSED.
        """
        ...
