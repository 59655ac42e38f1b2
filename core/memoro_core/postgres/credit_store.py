"""Accounts, entries and grants in PostgreSQL."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from memoro_core.billing import notices
from memoro_core.billing.grants import changed_last, expire, lapse, next_expiry
from memoro_core.billing.ledger import Movement, post
from memoro_core.billing.model import Balance, Cause, CreditAccount, EntryKind, Grant, LedgerAccount
from memoro_core.idempotency import Idempotency
from memoro_core.ids import TenantId
from memoro_core.postgres.answer_store import answered_before_in
from memoro_core.postgres.credit_rows import account_of, grant_of, grants_left_in, post_in, write_grants_in
from memoro_core.postgres.database import Connection, Database
from memoro_core.postgres.queries import load_queries
from memoro_core.postgres.webhook_store import announce_in
from memoro_core.tenancy.service import tenant_not_found
from memoro_core.webhooks.events import balance_low

_SQL: Final = load_queries("credits")
_SHOWN_GRANTS: Final = 100


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
            answer = await answered_before_in(connection, tenant_id, idempotency, {"id": str(grant.id)}, now=now)
            if answer is None:
                account = await _lock_in(connection, tenant_id)
                movement = Movement(
                    EntryKind.GRANT,
                    {LedgerAccount.GRANTED: -grant.amount, LedgerAccount.AVAILABLE: grant.amount},
                    cause,
                )
                await _move_in(connection, account, [movement], [grant], now=now)
            row = await connection.fetchrow(
                _SQL["find_grant"], tenant_id, UUID(str(answer["id"])) if answer else grant.id
            )
            assert row is not None
            return grant_of(row), await _balance_in(connection, tenant_id)


async def _lock_in(connection: Connection, tenant_id: TenantId) -> CreditAccount:
    """The account, locked, and opened if there was none. Raises TENANT_NOT_FOUND."""
    row = await connection.fetchrow(_SQL["lock_account"], tenant_id)
    if row is None:
        await connection.execute(_SQL["open_account"], tenant_id)
        row = await connection.fetchrow(_SQL["lock_account"], tenant_id)
    if row is None:
        raise tenant_not_found(tenant_id)
    return account_of(row)


async def _balance_in(connection: Connection, tenant_id: TenantId) -> Balance:
    row = await connection.fetchrow(_SQL["find_account"], tenant_id)
    if row is None:
        raise tenant_not_found(tenant_id)
    account = account_of(row)
    return Balance(account, await grants_left_in(connection, account, limit=_SHOWN_GRANTS))


async def _move_in(
    connection: Connection,
    account: CreditAccount,
    movements: Sequence[Movement],
    changed: Sequence[Grant],
    *,
    now: datetime,
) -> None:
    """Writes movements of an account that is locked, with the grants that they change, and what then expires."""
    grants = [*await grants_left_in(connection, account)]
    grants = list({grant.id: grant for grant in (*grants, *changed)}.values())
    expired = expire(grants, account.held, now)
    lapses = [lapse(grant, lost) for grant, lost in expired]
    before = account
    account, entries = post(account, [*movements, *lapses], now)
    account = dataclasses.replace(account, next_expiry_at=next_expiry(grants, now))
    account, is_low = notices.tell_low(account)
    if account != before:
        await post_in(connection, account, entries, now=now)
    await write_grants_in(connection, account, changed_last(changed, [grant for grant, _ in expired]))
    if is_low:
        event = balance_low(account.tenant_id, account.available, account.low_balance, now)
        await announce_in(connection, account.tenant_id, [event], now=now)
