"""Grants: in which order they are used up, and what of them is lost when their time is over.

Holds are not bound to grants. All that is held claims the grants in their order of use, from the first on; what a grant
has beyond such claims is what expires. So what is left of all grants always is what is available and held.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from memoro_core.billing.ledger import Movement
from memoro_core.billing.model import Cause, EntryKind, Grant, LedgerAccount
from memoro_core.ids import GrantId

_NEVER: Final = datetime.max.replace(tzinfo=UTC)


def in_order_of_use(grants: Iterable[Grant]) -> Sequence[Grant]:
    """By priority, the lowest first; among equals the one that expires first; among these the oldest."""
    return sorted(grants, key=_use)


def consume(grants: Iterable[Grant], amount: int) -> Sequence[Grant]:
    """Takes an amount from grants, in their order of use: those that it changes, with what is left of them.

    Raises ValueError when they have less.
    """
    changed: list[Grant] = []
    for grant in in_order_of_use(grants):
        if not amount:
            break
        if taken := min(amount, grant.remaining):
            changed.append(dataclasses.replace(grant, remaining=grant.remaining - taken))
            amount -= taken
    if amount:
        raise ValueError(f"the grants have {amount} less than is taken from them")
    return changed


def expire(grants: Iterable[Grant], held: int, now: datetime) -> Sequence[tuple[Grant, int]]:
    """What is lost of grants whose time is over, beside what is held: each with what is left of it, and how much."""
    expired: list[tuple[Grant, int]] = []
    for grant in in_order_of_use(grants):
        claimed = min(held, grant.remaining)
        held -= claimed
        lost = grant.remaining - claimed
        if lost and grant.expires_at is not None and grant.expires_at <= now:
            expired.append((dataclasses.replace(grant, remaining=claimed), lost))
    return expired


def lapse(grant: Grant, lost: int) -> Movement:
    """What the expiry of a part of a grant moves."""
    return Movement(
        EntryKind.EXPIRY,
        {LedgerAccount.AVAILABLE: -lost, LedgerAccount.EXPIRED: lost},
        Cause(note=f"grant {grant.id}"),
    )


def next_expiry(grants: Iterable[Grant], now: datetime) -> datetime | None:
    """When the first of grants that have something left expires; those whose time is over wait for holds to end."""
    return min(
        (grant.expires_at for grant in grants if grant.remaining and grant.expires_at and grant.expires_at > now),
        default=None,
    )


def changed_by(grants: Iterable[Grant], changed: Iterable[Grant]) -> Sequence[Grant]:
    """The grants with those that changed in place of what they were."""
    by_id = {grant.id: grant for grant in changed}
    return [by_id.get(grant.id, grant) for grant in grants]


def changed_last(*changes: Iterable[Grant]) -> Sequence[Grant]:
    """What became of each grant that one of several changes, made one after the other, has changed."""
    return list({grant.id: grant for changed in changes for grant in changed}.values())


def _use(grant: Grant) -> tuple[int, datetime, GrantId]:
    return (grant.priority, grant.expires_at or _NEVER, grant.id)
