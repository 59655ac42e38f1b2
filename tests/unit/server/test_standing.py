"""Streams end when their callers may no longer call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from memoro.v1 import jobs_service_pb2 as pb
from memoro_core.errors import Code, MemoroError, Reason, unavailable
from memoro_core.ids import ApiKeyId, TenantId, new_id
from memoro_core.tasks import end_task
from memoro_core.tenancy.model import FREE_TIER, Principal, Scope
from memoro_server.call import Call, Handler, Method
from memoro_server.interceptors.standing import StandingInterceptor
from memoro_server.policy import POLICIES
from tests.support.interception import GET_JOB, WATCH_JOB

REVOKED = MemoroError(Code.UNAUTHENTICATED, Reason.CREDENTIALS_INVALID, "the key is not valid")
METHOD = Method(WATCH_JOB, POLICIES[WATCH_JOB], pb.WatchJobRequest)
NEVER = 3600.0


class Keys:
    """Knows every credential, but for those in `refused`."""

    def __init__(self) -> None:
        self.refused: dict[str, Exception] = {}
        self.asked: list[str] = []
        self.gate: asyncio.Event | None = None

    async def authenticate(self, authorization: str | None) -> Principal:
        assert authorization is not None
        self.asked.append(authorization)
        if self.gate is not None:
            await self.gate.wait()
        if error := self.refused.get(authorization):
            raise error
        return principal(TenantId(new_id()))


def principal(tenant_id: TenantId) -> Principal:
    return Principal(tenant_id, ApiKeyId(new_id()), frozenset(Scope), FREE_TIER)


@asynccontextmanager
async def standing(keys: Keys, *, interval: float = NEVER) -> AsyncIterator[StandingInterceptor]:
    interceptor = StandingInterceptor(keys, interval=interval)
    task = asyncio.create_task(interceptor.run())
    try:
        yield interceptor
    finally:
        await end_task(task)


def opened(interceptor: StandingInterceptor, key: str, tenant_id: TenantId) -> asyncio.Task[bytes | None]:
    """A stream that goes on until it is ended."""

    async def proceed(request: Any, call: Call) -> bytes | None:
        await asyncio.Event().wait()
        return None

    return asyncio.create_task(_served(interceptor.wrap(METHOD, proceed), key, tenant_id))


async def _served(handler: Handler, key: str, tenant_id: TenantId) -> bytes | None:
    call = Call(METHOD, None)  # type: ignore[arg-type]
    call.principal, call.authorization = principal(tenant_id), key
    return await handler(b"", call)


async def refused(stream: asyncio.Task[bytes | None]) -> None:
    with pytest.raises(MemoroError) as caught:
        await asyncio.wait_for(asyncio.shield(stream), 5)
    assert caught.value is REVOKED


async def settle() -> None:
    await asyncio.sleep(0.02)


async def test_the_streams_of_a_key_end_as_soon_as_its_tenant_has_changed() -> None:
    keys, ours, others = Keys(), TenantId(new_id()), TenantId(new_id())
    async with standing(keys) as interceptor:
        first, second = opened(interceptor, "a", ours), opened(interceptor, "a", ours)
        same_tenant, other = opened(interceptor, "b", ours), opened(interceptor, "c", others)
        await settle()
        keys.refused["a"] = keys.refused["c"] = REVOKED
        interceptor.forget(ours)
        await refused(first)
        await refused(second)
        await settle()
        assert not same_tenant.done()
        assert not other.done()
        interceptor.forget_all()
        await refused(other)
        await end_task(same_tenant)


async def test_everybody_is_looked_at_now_and_then() -> None:
    keys = Keys()
    async with standing(keys, interval=0.01) as interceptor:
        stream = opened(interceptor, "a", TenantId(new_id()))
        await settle()
        keys.refused["a"] = REVOKED
        await refused(stream)
        keys.asked.clear()
        await settle()
        assert keys.asked == [], "a caller without streams is not looked at"


@pytest.mark.parametrize("error", [unavailable("database"), RuntimeError("a bug")])
async def test_a_caller_of_whom_nothing_can_be_found_out_stays(error: Exception) -> None:
    keys, tenant = Keys(), TenantId(new_id())
    async with standing(keys) as interceptor:
        stream = opened(interceptor, "a", tenant)
        await settle()
        keys.refused["a"] = error
        interceptor.forget(tenant)
        await settle()
        assert not stream.done()
        keys.refused["a"] = REVOKED
        interceptor.forget(tenant)
        await refused(stream)


async def test_a_change_while_a_stream_opens_is_not_missed() -> None:
    keys, tenant = Keys(), TenantId(new_id())
    async with standing(keys) as interceptor:
        keys.refused["a"] = REVOKED
        # The change was told before the stream was there.
        interceptor.forget(tenant)
        await settle()
        await refused(opened(interceptor, "a", tenant))


async def test_those_that_have_changed_come_before_all_others() -> None:
    keys, tenant = Keys(), TenantId(new_id())
    async with standing(keys) as interceptor:
        streams = [opened(interceptor, f"other-{number}", TenantId(new_id())) for number in range(50)]
        streams.append(opened(interceptor, "changed", tenant))
        await settle()
        keys.asked.clear()
        keys.gate = asyncio.Event()
        interceptor.forget_all()
        await settle()
        interceptor.forget(tenant)
        keys.gate.set()
        await settle()
        assert "changed" in keys.asked[:2]
        assert len(keys.asked) >= 51
        for stream in streams:
            await end_task(stream)


async def test_a_timeout_of_the_stream_itself_is_left_alone() -> None:
    async def proceed(request: Any, call: Call) -> bytes | None:
        async with asyncio.timeout(0):
            await asyncio.sleep(1)
        return None

    interceptor = StandingInterceptor(Keys(), interval=NEVER)
    with pytest.raises(TimeoutError):
        await _served(interceptor.wrap(METHOD, proceed), "a", TenantId(new_id()))


def test_other_calls_pass_untouched() -> None:
    async def proceed(request: Any, call: Call) -> bytes | None:
        return None

    interceptor = StandingInterceptor(Keys(), interval=NEVER)
    for path in (GET_JOB, "/grpc.health.v1.Health/Watch"):
        assert interceptor.wrap(Method(path, POLICIES[path], None), proceed) is proceed
