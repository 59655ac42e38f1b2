"""What billing needs to be kept."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from memoro_core.billing.model import Balance, Cause, Grant, LedgerEntry, LedgerFilter, Verification
from memoro_core.idempotency import Idempotency
from memoro_core.ids import GrantId, TenantId


class CreditStore(Protocol):
    """The accounts of all tenants, with their entries and grants. Each change is one transaction."""

    async def balance(self, tenant_id: TenantId) -> Balance:
        """An account as it stands, and its first grants. Raises TENANT_NOT_FOUND."""
        ...

    async def add_credits(
        self, tenant_id: TenantId, grant: Grant, cause: Cause, idempotency: Idempotency | None, *, now: datetime
    ) -> tuple[Grant, Balance]:
        """Gives credits; of a request that was done before, the grant as it stands now, and the balance.

        Raises TENANT_NOT_FOUND, REQUEST_ID_REUSED.
        """
        ...

    async def set_balance(
        self,
        tenant_id: TenantId,
        grant_id: GrantId,
        available: int | None,
        low_balance: int | None,
        cause: Cause,
        idempotency: Idempotency | None,
        *,
        now: datetime,
    ) -> Balance:
        """Brings what is available to an amount, what is not None; what is added becomes a grant with that id.

        Raises TENANT_NOT_FOUND, REQUEST_ID_REUSED.
        """
        ...

    async def list_entries(
        self, tenant_id: TenantId, entry_filter: LedgerFilter, *, limit: int, before: int | None
    ) -> Sequence[LedgerEntry]:
        """Entries that fit, the last first, before a number."""
        ...

    async def expiring(self, *, now: datetime, limit: int) -> Sequence[TenantId]:
        """Tenants with grants whose time is over and that nobody has seen to."""
        ...

    async def expire_due(self, tenant_id: TenantId, *, now: datetime) -> None:
        """Takes what a tenant has not used in time."""
        ...

    async def verify(
        self, tenant_id: TenantId, *, after_seq: int = 0, after_hash: bytes = b"", within: float
    ) -> Verification:
        """Checks a ledger, for at most so many seconds, against itself and the account.

        From its first entry on, or after that of a number, which was checked before and had this hash then. Raises
        TENANT_NOT_FOUND.
        """
        ...
