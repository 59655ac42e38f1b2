"""What reports of usage need from the outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Protocol

from memoro_core.billing.model import LedgerAccount
from memoro_core.billing.usage_model import AiCall, OperationCost, UsageFilter, UsageRow
from memoro_core.ids import TenantId, UserId


class UsageStore(Protocol):
    """Sums over the calls of providers and over the ledger, none of which overflows."""

    async def usage(
        self, tenant_id: TenantId, usage_filter: UsageFilter, *, after: UsageRow | None, limit: int
    ) -> Sequence[UsageRow]:
        """Rows by day, the latest first, then by operation, provider, model and user, from after a row on."""
        ...

    async def charged(self, tenant_id: TenantId, user_id: UserId | None, *, since: datetime, until: datetime) -> int:
        """What settlements in that time took from a tenant, for one user's jobs or for all, in micro-credits."""
        ...

    async def operations(self, day: date, tenant_id: TenantId | None) -> Sequence[OperationCost]:
        """What a day's calls have cost, of one tenant or of all, the dearest first."""
        ...

    async def recent_calls(self, day: date, tenant_id: TenantId | None, *, limit: int) -> Sequence[AiCall]:
        """A day's latest calls, of one tenant or of all, the latest first."""
        ...

    async def house(
        self, tenant_id: TenantId | None, *, since: datetime, until: datetime
    ) -> Mapping[LedgerAccount, int]:
        """What each of the house's accounts gained in that time, by one tenant or by all."""
        ...
