"""What operators do to a balance: credits are given, and what is available is set."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from memoro_core.billing.grants import consume
from memoro_core.billing.ledger import Movement
from memoro_core.billing.model import Cause, CreditAccount, EntryKind, Grant, LedgerAccount
from memoro_core.billing.money import MAX_MICRO_CREDITS
from memoro_core.errors import invalid_field
from memoro_core.ids import GrantId

_MAX_GRANTED: Final = 1000 * MAX_MICRO_CREDITS
"""The most that a tenant can ever be granted: far from what an account's columns can hold."""


def give(account: CreditAccount, grant: Grant, cause: Cause, now: datetime) -> Movement:
    """What giving credits moves. Raises INVALID_FIELD for a grant whose time is over, or that is one too many."""
    if grant.expires_at is not None and grant.expires_at <= now:
        raise invalid_field("expire_time", "must be in the future")
    if account.granted + grant.amount > _MAX_GRANTED:
        raise invalid_field("amount", f"a tenant can be granted {_MAX_GRANTED} micro-credits in all")
    return Movement(
        EntryKind.GRANT, {LedgerAccount.AVAILABLE: grant.amount, LedgerAccount.GRANTED: -grant.amount}, cause
    )


def set_available(
    account: CreditAccount, grants: Sequence[Grant], available: int, grant_id: GrantId, cause: Cause, now: datetime
) -> tuple[Sequence[Movement], Sequence[Grant]]:
    """What brings `available` to an amount: the movement, if any, and the grants that are new or have less left.

    What is missing is a grant that never expires; what is too much is taken from the grants in their order of use.
    Raises INVALID_FIELD as `give` does.
    """
    change = available - account.available
    if change > 0:
        if account.granted + change > _MAX_GRANTED:
            raise invalid_field("available", f"a tenant can be granted {_MAX_GRANTED} micro-credits in all")
        grant = Grant(grant_id, change, change, priority=0, expires_at=None, note=cause.note, created_at=now)
        return [_adjustment(change, LedgerAccount.GRANTED, cause)], [grant]
    if change < 0:
        return [_adjustment(change, LedgerAccount.REFUNDED, cause)], consume(grants, -change)
    return (), ()


def _adjustment(change: int, against: LedgerAccount, cause: Cause) -> Movement:
    return Movement(EntryKind.ADJUSTMENT, {LedgerAccount.AVAILABLE: change, against: -change}, cause)
