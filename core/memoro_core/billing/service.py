"""What tenants have, and what operators do about it."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import datetime
from typing import Final, TypeVar

import structlog

from memoro_core.billing.model import Balance, Cause, Grant, LedgerEntry, LedgerFilter, Verification
from memoro_core.billing.ports import CreditStore
from memoro_core.clock import Clock
from memoro_core.errors import MemoroError, Reason, invalid_field
from memoro_core.idempotency import Idempotency, request_id_reused
from memoro_core.ids import GrantId, TenantId, new_id
from memoro_core.paging import Page, cut, ordinal
from memoro_core.tenancy.model import Principal

R = TypeVar("R")
_EXPIRED_AT_ONCE: Final = 100
_log: Final = structlog.get_logger(__name__)


class BillingService:
    """Balances and ledgers. Who may ask for those of which tenant, callers have seen to."""

    def __init__(self, store: CreditStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def balance(self, tenant_id: TenantId) -> Balance:
        """What a tenant has, with the first grants that have something left. Raises TENANT_NOT_FOUND."""
        return await self._store.balance(tenant_id)

    async def add_credits(
        self,
        principal: Principal,
        tenant_id: TenantId,
        amount: int,
        *,
        priority: int = 0,
        expires_at: datetime | None = None,
        note: str = "",
        idempotency: Idempotency | None = None,
    ) -> tuple[Grant, Balance]:
        """Gives micro-credits to a tenant: the grant, and the balance after it.

        Raises TENANT_NOT_FOUND, REQUEST_ID_REUSED, and INVALID_FIELD for an expiry that is not in the future.
        """
        now = self._clock.now()
        grant = Grant(GrantId(new_id()), amount, amount, priority, expires_at, note, now)
        cause = _cause(principal, idempotency, note)
        done = self._store.add_credits(tenant_id, grant, cause, _apart(principal, tenant_id, idempotency), now=now)
        answer = await _as_asked(done, idempotency)
        _tell("credits_added", principal, tenant_id, amount=amount, note=note)
        return answer

    async def set_balance(
        self,
        principal: Principal,
        tenant_id: TenantId,
        *,
        available: int | None = None,
        low_balance: int | None = None,
        note: str = "",
        idempotency: Idempotency | None = None,
    ) -> Balance:
        """Brings what is available to an amount, and sets below what the tenant is told; None leaves it as it is.

        Raises TENANT_NOT_FOUND, REQUEST_ID_REUSED.
        """
        done = self._store.set_balance(
            tenant_id,
            GrantId(new_id()),
            available,
            low_balance,
            _cause(principal, idempotency, note),
            _apart(principal, tenant_id, idempotency),
            now=self._clock.now(),
        )
        balance = await _as_asked(done, idempotency)
        _tell("balance_set", principal, tenant_id, available=available, low_balance=low_balance, note=note)
        return balance

    async def list_entries(
        self, tenant_id: TenantId, entry_filter: LedgerFilter, *, size: int, position: tuple[str, ...] | None
    ) -> Page[LedgerEntry]:
        """A tenant's ledger, the last entry first. Raises TENANT_NOT_FOUND, PAGE_TOKEN_INVALID."""
        before = ordinal(position) if position else None
        rows = await self._store.list_entries(tenant_id, entry_filter, limit=size + 1, before=before)
        return cut(rows, size, (str(rows[size - 1].seq),) if len(rows) > size else None)

    async def verify(
        self, tenant_id: TenantId, *, after_seq: int = 0, after_hash: bytes = b"", within: float
    ) -> Verification:
        """Checks a ledger: numbers, sums, hashes, and that they make the account.

        From its first entry on, or after one that was checked before, and must still have that hash. Stops after
        `within` seconds. Raises INVALID_FIELD, TENANT_NOT_FOUND.
        """
        if bool(after_seq) != bool(after_hash):
            raise invalid_field("after_hash", "goes with after_sequence, and must be that entry's")
        return await self._store.verify(tenant_id, after_seq=after_seq, after_hash=after_hash, within=within)

    async def expire(self, fire_at: datetime) -> None:
        """Takes from all tenants what they have not used in time. Raises UNAVAILABLE, and then has done a part."""
        tenants = 0
        while due := await self._store.expiring(now=fire_at, limit=_EXPIRED_AT_ONCE):
            for tenant_id in due:
                await self._store.expire_due(tenant_id, now=fire_at)
            tenants += len(due)
        if tenants:
            _log.info("credits_expired", tenants=tenants)


def _cause(principal: Principal, idempotency: Idempotency | None, note: str) -> Cause:
    return Cause(None, idempotency.request_id if idempotency else "", principal.api_key_id, note)


def _apart(principal: Principal, tenant_id: TenantId, idempotency: Idempotency | None) -> Idempotency | None:
    """An operator's request id, remembered with the tenant whose money it moves, apart from that tenant's own ids."""
    if idempotency is None or principal.tenant_id == tenant_id:
        return idempotency
    return Idempotency(f"{principal.tenant_id} {idempotency.request_id}", idempotency.fingerprint)


async def _as_asked(work: Awaitable[R], idempotency: Idempotency | None) -> R:
    """Names the request id as the caller did."""
    try:
        return await work
    except MemoroError as error:
        if error.reason is Reason.REQUEST_ID_REUSED and idempotency is not None:
            raise request_id_reused(idempotency.request_id) from None
        raise


def _tell(action: str, principal: Principal, tenant_id: TenantId, **what: object) -> None:
    """One line for the audit: what was done, to whose money, and by whose key."""
    shown = {name: value for name, value in what.items() if value is not None}
    _log.info(action, **principal.credential, tenant_id=str(tenant_id), **shown)
