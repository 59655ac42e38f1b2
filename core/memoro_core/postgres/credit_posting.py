"""Writing what moves money: entries, the account after them, and the grants that they change."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from memoro_core.billing import notices
from memoro_core.billing.grants import changed_last, expire, lapse, next_expiry
from memoro_core.billing.ledger import Movement, post
from memoro_core.billing.model import CreditAccount, Grant, LedgerAccount, LedgerEntry
from memoro_core.postgres.credit_rows import grant_of
from memoro_core.postgres.database import Connection
from memoro_core.postgres.queries import load_queries
from memoro_core.postgres.webhook_store import announce_in
from memoro_core.webhooks.events import balance_low

_SQL: Final = load_queries("credits")


async def grants_left_in(
    connection: Connection, account: CreditAccount, *, limit: int | None = None
) -> Sequence[Grant]:
    """Grants that have something left, in the order in which they are used up; to be read with the account locked."""
    return [grant_of(row) for row in await connection.fetch(_SQL["grants_left"], account.tenant_id, limit)]


async def move_in(
    connection: Connection,
    account: CreditAccount,
    movements: Sequence[Movement],
    grants: Sequence[Grant],
    changed: Sequence[Grant],
    *,
    low_balance: int | None = None,
    now: datetime,
) -> CreditAccount:
    """Makes movements of an account that is locked, and takes what of its grants is not used in time; the account then.

    `grants` are those that have something left, as the movements leave them; `changed` those of them that are new, or
    of which the movements take something, with those that have nothing left. `low_balance` is set unless it is
    None; the tenant is told when less than that is available.
    """
    held = account.held + sum(movement.postings.get(LedgerAccount.HELD, 0) for movement in movements)
    expired = expire(grants, held, now)
    after, entries = post(account, [*movements, *(lapse(grant, lost) for grant, lost in expired)], now)
    low_balance = account.low_balance if low_balance is None else low_balance
    after = dataclasses.replace(after, next_expiry_at=next_expiry(grants, now), low_balance=low_balance)
    after, is_low = notices.tell_low(after)
    if after != account:
        await _post_in(connection, after, entries, now=now)
    await _write_grants_in(connection, after, changed_last(changed, [grant for grant, _ in expired]))
    if is_low:
        event = balance_low(after.tenant_id, after.available, after.low_balance, now)
        await announce_in(connection, after.tenant_id, [event], now=now)
    return after


async def expire_in(connection: Connection, account: CreditAccount, *, now: datetime) -> CreditAccount:
    """Takes what was not used in time from an account that is locked, if there may be any; the account then."""
    if account.next_expiry_at is None or account.next_expiry_at > now:
        return account
    return await move_in(connection, account, (), await grants_left_in(connection, account), (), now=now)


async def _post_in(
    connection: Connection, account: CreditAccount, entries: Sequence[LedgerEntry], *, now: datetime
) -> None:
    """Writes an account that is locked, and the entries that brought it there."""
    await connection.execute(
        _SQL["post"],
        account.tenant_id,
        account.available,
        account.held,
        account.granted,
        account.spent,
        account.expired,
        account.refunded,
        account.low_balance,
        account.is_low,
        account.next_expiry_at,
        account.last_seq,
        account.last_hash,
        now,
        account.last_seq - len(entries) + 1,
        [entry.kind for entry in entries],
        *([entry.postings.get(place, 0) for entry in entries] for place in LedgerAccount),
        [entry.available_after for entry in entries],
        [entry.held_after for entry in entries],
        [entry.cause.job_id for entry in entries],
        [entry.cause.request_id for entry in entries],
        [entry.cause.actor for entry in entries],
        [entry.cause.note for entry in entries],
        [entry.hash for entry in entries],
    )


async def _write_grants_in(connection: Connection, account: CreditAccount, grants: Sequence[Grant]) -> None:
    """Writes grants that are new, or of which something was taken."""
    if not grants:
        return
    await connection.execute(
        _SQL["write_grants"],
        account.tenant_id,
        [grant.id for grant in grants],
        [grant.amount for grant in grants],
        [grant.remaining for grant in grants],
        [grant.priority for grant in grants],
        [grant.expires_at for grant in grants],
        [grant.note for grant in grants],
        [grant.created_at for grant in grants],
    )
