"""Accounts, entries and grants in PostgreSQL."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from memoro_core.billing.adjustments import give, set_available
from memoro_core.billing.grants import changed_last
from memoro_core.billing.model import (
    Balance,
    Cause,
    CreditAccount,
    Grant,
    LedgerEntry,
    LedgerFilter,
    Verification,
)
from memoro_core.billing.verification import LedgerCheck
from memoro_core.idempotency import Idempotency
from memoro_core.ids import GrantId, TenantId
from memoro_core.postgres.answer_store import answered_before_in
from memoro_core.postgres.credit_posting import expire_in, grants_left_in, move_in
from memoro_core.postgres.credit_rows import account_of, entry_of, grant_of
from memoro_core.postgres.database import Connection, Database
from memoro_core.postgres.queries import load_queries
from memoro_core.tenancy.service import tenant_not_found

_SQL: Final = load_queries("credits")
_SHOWN_GRANTS: Final = 100
_CHECKED_AT_ONCE: Final = 1000
_SUMMED_AT_ONCE: Final = 500_000
_SUMMED: Final = ("available", "held", "granted", "spent", "expired", "refunded")


class PostgresCreditStore:
    """A `CreditStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def balance(self, tenant_id: TenantId) -> Balance:
        async with self._database.tenant_tx(tenant_id) as connection:
            return await _balance_in(connection, tenant_id)

    async def add_credits(
        self, tenant_id: TenantId, grant: Grant, cause: Cause, idempotency: Idempotency | None, *, now: datetime
    ) -> tuple[Grant, Balance]:
        async with self._database.tenant_tx(tenant_id) as connection:
            # The account is locked first: a request id is remembered for tenants that there are.
            account = await _lock_in(connection, tenant_id)
            made_now = {"id": str(grant.id)}
            answer = await answered_before_in(connection, tenant_id, idempotency, made_now, kept=True, now=now)
            if answer is None:
                grants = [*await grants_left_in(connection, account), grant]
                await move_in(connection, account, [give(account, grant, cause, now)], grants, [grant], now=now)
            made = grant.id if answer is None else UUID(str(answer["id"]))
            row = await connection.fetchrow(_SQL["find_grant"], tenant_id, made)
            assert row is not None, "grants are kept"
            return grant_of(row), await _balance_in(connection, tenant_id)

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
        async with self._database.tenant_tx(tenant_id) as connection:
            account = await _lock_in(connection, tenant_id)
            if await answered_before_in(connection, tenant_id, idempotency, {}, kept=True, now=now) is None:
                account = await expire_in(connection, account, now=now)
                grants = await grants_left_in(connection, account)
                wanted = account.available if available is None else available
                movements, changed = set_available(account, grants, wanted, grant_id, cause, now)
                left = changed_last(grants, changed)
                await move_in(connection, account, movements, left, changed, low_balance=low_balance, now=now)
            return await _balance_in(connection, tenant_id)

    async def list_entries(
        self, tenant_id: TenantId, entry_filter: LedgerFilter, *, limit: int, before: int | None
    ) -> Sequence[LedgerEntry]:
        async with self._database.tenant_tx(tenant_id) as connection:
            rows = await connection.fetch(
                _SQL["list_entries"],
                tenant_id,
                list(entry_filter.kinds),
                entry_filter.job_id,
                entry_filter.created_from,
                entry_filter.created_until,
                before,
                limit,
            )
            if not rows:
                await _account_in(connection, tenant_id)
        return [entry_of(row) for row in rows]

    async def expiring(self, *, now: datetime, limit: int) -> Sequence[TenantId]:
        async with self._database.system_tx() as connection:
            rows = await connection.fetch(_SQL["expiring"], now, limit)
        return [row["tenant_id"] for row in rows]

    async def expire_due(self, tenant_id: TenantId, *, now: datetime) -> None:
        async with self._database.tenant_tx(tenant_id) as connection:
            await expire_in(connection, await _lock_in(connection, tenant_id), now=now)

    async def verify(
        self, tenant_id: TenantId, *, after_seq: int = 0, after_hash: bytes = b"", within: float
    ) -> Verification:
        until = time.monotonic() + within
        async with self._database.tenant_tx(tenant_id) as connection:
            account = await _account_in(connection, tenant_id, lock=True)
            beside = await connection.fetchrow(_SQL["sums_beside_ledger"], tenant_id)
        assert beside is not None
        check = LedgerCheck(account)
        if after_seq:
            # A number that nobody has come to yet needs no summing up, however large it is.
            nothing = 0, CreditAccount(tenant_id, last_seq=after_seq)
            entries, sums = await self._sums(tenant_id, after_seq) if after_seq <= account.last_seq else nothing
            if (wrong := check.go_on(entries, sums, after_hash)) is not None:
                return wrong
        # What an entry says never changes, so that each batch may be read in a transaction of its own.
        while check.replayed.last_seq < account.last_seq:
            if time.monotonic() >= until:
                return check.broken_off()
            async with self._database.tenant_tx(tenant_id) as connection:
                rows = await connection.fetch(
                    _SQL["entries_from"], tenant_id, check.replayed.last_seq, account.last_seq, _CHECKED_AT_ONCE
                )
            if not rows:
                break
            if (wrong := check.add(entry_of(row) for row in rows)) is not None:
                return wrong
        return check.end(last_seq=beside["last_seq"], remaining=int(beside["remaining"]), held=int(beside["held"]))

    async def _sums(self, tenant_id: TenantId, until: int) -> tuple[int, CreditAccount]:
        """How many entries there are up to a number, and the account that they make."""
        entries, sums = 0, CreditAccount(tenant_id, last_seq=until)
        for first in range(1, until + 1, _SUMMED_AT_ONCE):
            last = min(until, first + _SUMMED_AT_ONCE - 1)
            async with self._database.tenant_tx(tenant_id) as connection:
                row = await connection.fetchrow(_SQL["sum_entries"], tenant_id, first, last)
            assert row is not None
            entries += row["entries"]
            added = {name: getattr(sums, name) + row[name] for name in _SUMMED}
            sums = dataclasses.replace(sums, **added, last_hash=row["last_hash"] or b"")
        return entries, sums


async def _lock_in(connection: Connection, tenant_id: TenantId) -> CreditAccount:
    """The account, locked, and opened if there was none. Raises TENANT_NOT_FOUND."""
    row = await connection.fetchrow(_SQL["lock_account"], tenant_id)
    if row is None:
        await connection.execute(_SQL["open_account"], tenant_id)
        row = await connection.fetchrow(_SQL["lock_account"], tenant_id)
    if row is None:
        raise tenant_not_found(tenant_id)
    return account_of(row)


async def _account_in(connection: Connection, tenant_id: TenantId, *, lock: bool = False) -> CreditAccount:
    """The account; an empty one of a tenant that never had credits. Raises TENANT_NOT_FOUND."""
    row = await connection.fetchrow(_SQL["lock_account"], tenant_id) if lock else None
    row = row or await connection.fetchrow(_SQL["find_account"], tenant_id)
    if row is None:
        raise tenant_not_found(tenant_id)
    return account_of(row)


async def _balance_in(connection: Connection, tenant_id: TenantId) -> Balance:
    account = await _account_in(connection, tenant_id)
    return Balance(account, await grants_left_in(connection, account, limit=_SHOWN_GRANTS))
