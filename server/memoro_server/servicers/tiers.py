"""AdminService: tiers."""

from __future__ import annotations

from memoro.v1 import admin_service_pb2 as pb
from memoro_core.tenancy.tiers import TierService
from memoro_server.call import Call
from memoro_server.convert.idempotency import idempotency_of
from memoro_server.convert.limits import from_tier, to_tier
from memoro_server.convert.scalars import to_version


class TiersServicer:
    """The calls of AdminService that are about tiers."""

    def __init__(self, tiers: TierService) -> None:
        self._tiers = tiers

    async def ListTiers(self, request: pb.ListTiersRequest, call: Call) -> pb.ListTiersResponse:
        return pb.ListTiersResponse(tiers=[from_tier(tier) for tier in await self._tiers.list_tiers()])

    async def PutTier(self, request: pb.PutTierRequest, call: Call) -> pb.PutTierResponse:
        tier = await self._tiers.put_tier(
            call.principal,
            to_tier(request.tier),
            version=to_version(request.tier.etag),
            idempotency=idempotency_of(call.method.path, request),
        )
        return pb.PutTierResponse(tier=from_tier(tier))
