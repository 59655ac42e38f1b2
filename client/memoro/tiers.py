"""Tiers, for operators."""

from __future__ import annotations

from memoro import convert_tiers, methods, requests
from memoro.transport import Transport
from memoro.types import Tier
from memoro.v1 import admin_service_pb2


class AsyncTiers:
    """What the tenants of each tier may do."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def list(self, *, timeout: float | None = None) -> tuple[Tier, ...]:
        """All tiers, by their weight."""
        response = await self._transport.unary(methods.LIST_TIERS, admin_service_pb2.ListTiersRequest(), timeout)
        return tuple(convert_tiers.tier(one) for one in response.tiers)

    async def put(self, tier: Tier, *, request_id: str | None = None, timeout: float | None = None) -> Tier:
        """Sets all of a tier, everywhere within 250 ms; one that is not there is made.

        To change some of it, put `dataclasses.replace(tier, …)` of one that was listed: its `etag` sees to it that
        nobody else's change is lost. Raises Conflict when the tier no longer has the `etag`; an empty one fits all.
        """
        request = admin_service_pb2.PutTierRequest(
            request_id=requests.request_id_or_new(request_id), tier=convert_tiers.tier_message(tier)
        )
        return convert_tiers.tier((await self._transport.unary(methods.PUT_TIER, request, timeout)).tier)
