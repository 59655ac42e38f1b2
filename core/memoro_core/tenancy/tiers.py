"""Tiers: what the tenants of each may do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from memoro_core.clock import Clock
from memoro_core.errors import Code, MemoroError, Reason
from memoro_core.idempotency import Idempotency
from memoro_core.tenancy.model import Principal, Tier, TierName
from memoro_core.tenancy.ports import Request, TierStore

MAX_TIERS: Final = 100


class TierService:
    """The tiers of the deployment; callers have shown the scope admin."""

    def __init__(self, store: TierStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def list_tiers(self) -> Sequence[Tier]:
        """All tiers, by their weight."""
        return await self._store.list_tiers()

    async def put_tier(
        self, principal: Principal, tier: Tier, *, version: int | None = None, idempotency: Idempotency | None = None
    ) -> Tier:
        """Makes a tier, or puts it in the place of the one of its name; the version and the time are given to it here.

        Raises TIER_NOT_FOUND and ETAG_MISMATCH when there is none of that `version`, QUOTA_EXCEEDED, REQUEST_ID_REUSED.
        """
        return await self._store.put_tier(
            replace(tier, updated_at=self._clock.now()),
            version=version,
            most=MAX_TIERS,
            request=Request(principal.tenant_id, idempotency) if idempotency else None,
        )


def tier_not_found(tier: TierName) -> MemoroError:
    """NOT_FOUND / TIER_NOT_FOUND: nobody has made a tier of that name."""
    return MemoroError(Code.NOT_FOUND, Reason.TIER_NOT_FOUND, f"no tier {tier}")


def too_many_tiers(most: int) -> MemoroError:
    """RESOURCE_EXHAUSTED / QUOTA_EXCEEDED: there are as many tiers as there can be."""
    return MemoroError(
        Code.RESOURCE_EXHAUSTED,
        Reason.QUOTA_EXCEEDED,
        f"there are {most} tiers, which is the most there can be",
        metadata={"limit": "tiers", "maximum": str(most)},
    )
