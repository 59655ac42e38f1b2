"""An echo, bare by one method, and by the other with a decision of the limiter in front, paid from leases.

Both in one process: two that have loaded different things already differ by more than a decision costs.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from contextlib import AsyncExitStack
from datetime import UTC
from typing import Final
from uuid import UUID

import grpc.aio
import uvloop

from memoro_core.billing.calendar import Calendar
from memoro_core.clock import SystemClock
from memoro_core.ids import TenantId, UserId
from memoro_core.limits.limiter import SharedLimiter
from memoro_core.limits.model import Ask, Limits, MethodClass, Rate, TenantLimits
from memoro_core.limits.units import DailyUnits
from memoro_core.postgres.database import open_database
from memoro_core.postgres.unit_store import PostgresUnitStore
from memoro_core.redis.client import open_redis
from memoro_core.redis.limit_buckets import RedisBuckets
from memoro_core.redis.servers import RedisServerRegister
from memoro_core.settings import Settings

BARE: Final = "/echo/Bare"
LIMITED: Final = "/echo/Limited"
_RATE: Final = Rate(12_000_000, 400_000)
POLICY: Final = TenantLimits(Limits(requests=_RATE, writes=_RATE, user_requests=_RATE), "1")
_TENANT: Final = TenantId(UUID(int=7))
_USER: Final = UserId("user")
_ASK: Final = Ask(_TENANT, POLICY, MethodClass.WRITE, 5, {_USER: 1})
"""The server remembers what is asked again and again, too."""


class _Echo(grpc.GenericRpcHandler):
    def __init__(self, limiter: SharedLimiter) -> None:
        self._limiter = limiter

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        return grpc.unary_unary_rpc_method_handler(
            self._limited if handler_call_details.method == LIMITED else self._bare
        )

    async def _bare(self, request: bytes, _: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        return request

    async def _limited(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        verdict = self._limiter.decide_now(_ASK) or await self._limiter.decide(_ASK)
        if not verdict.allowed:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, verdict.refused_by)
        return request


async def _serve(port: int, settings: Settings) -> None:
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(settings))
        redis = await stack.enter_async_context(open_redis(settings, command_timeout=None, health_check_interval=0))
        units = DailyUnits(PostgresUnitStore(database), Calendar(UTC), SystemClock())
        limiter = await stack.enter_async_context(
            SharedLimiter(
                RedisBuckets(redis), units, RedisServerRegister(redis), timeout=settings.limit_timeout, servers=1
            )
        )
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((_Echo(limiter),))
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        # As the server does: what is there by now stays.
        gc.collect()
        gc.freeze()
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), Settings()))
