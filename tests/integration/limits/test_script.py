"""The script in Redis against the pure model, at the times at which Redis says that it decided."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from uuid import uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memoro_core.ids import TenantId
from memoro_core.limits.bucket import TOKEN
from memoro_core.limits.model import Rate
from memoro_core.limits.ports import BucketAsk, GroupAsk, Taken, Taking, UnitsAsk
from memoro_core.redis.client import open_redis
from memoro_core.redis.limit_buckets import RedisBuckets
from memoro_core.settings import Settings
from tests.support.limit_model import Model

DAY = date(2030, 1, 2)
# Some fill in the course of a test, some don't; some drain within a lease.
RATES = st.sampled_from(
    [Rate(60, 5), Rate(6000, 20), Rate(60_000, 50), Rate(60_000_000, 1_000_000), Rate(1, 1_000_000)]
)


@st.composite
def takings(draw: st.DrawFn) -> Taking:
    names = draw(st.lists(st.sampled_from("abcd"), min_size=1, max_size=4, unique=True))
    cut = draw(st.integers(0, len(names)))
    groups = [
        GroupAsk(
            [
                BucketAsk(name, draw(RATES), carried, carried)
                for name in part
                for carried in [draw(st.sampled_from([0, 0, 0, 3 * TOKEN + 1, 10**12]))]
            ],
            draw(st.one_of(st.just(0), st.integers(1, 60))),
            draw(st.sampled_from([0, 0, 1, 10, 1000])),
            draw(st.lists(st.tuples(st.integers(1, 8), st.integers(0, 3)), max_size=2)),
        )
        for part in (names[:cut], names[cut:])
        if part
    ]
    units = draw(
        st.none()
        | st.builds(
            UnitsAsk, st.just(DAY), st.integers(1, 200), st.sampled_from([0, 0, 5, 100]), st.sampled_from([0, 0, 3])
        )
    )
    return Taking(TenantId(uuid4()), groups, units)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(steps=st.lists(st.tuples(takings(), st.sampled_from([0, 0, 0.003, 0.06, 0.25])), min_size=1, max_size=12))
def test_the_script_decides_as_the_model(redis_url: str, steps: Sequence[tuple[Taking, float]]) -> None:
    asyncio.run(_compare(redis_url, steps))


async def _compare(redis_url: str, steps: Sequence[tuple[Taking, float]]) -> None:
    tenant, model, times = TenantId(uuid4()), Model(), [0]
    async with open_redis(Settings(redis_url=redis_url)) as redis:
        store = RedisBuckets(redis)
        for taking, pause in steps:
            if pause:
                await asyncio.sleep(pause)
            # What is handed back was leased at one of the times before.
            groups = [
                replace(group, back=[(tokens, times[-1 - ago % len(times)]) for tokens, ago in group.back])
                for group in taking.groups
            ]
            asked = replace(taking, tenant_id=tenant, groups=groups)
            [taken] = await store.take([asked])
            assert taken is not None
            times.append(taken.at)
            assert _plain(model.take(asked, taken.at)) == _plain(taken)


def _plain(taken: Taken) -> object:
    return taken.passed, taken.units, taken.units_have_room, list(taken.leased), list(taken.buckets)


async def test_calls_of_many_tenants_go_together_also_after_redis_has_forgotten_the_script(redis_url: str) -> None:
    tenants = [TenantId(uuid4()) for _ in range(8)]
    async with open_redis(Settings(redis_url=redis_url)) as redis:
        store = RedisBuckets(redis)
        for passes in (True, True, False):
            await redis.script_flush()
            taken = await store.take(
                [Taking(tenant, [GroupAsk([BucketAsk("requests", Rate(1, 5))], 2)]) for tenant in tenants]
            )
            assert [one is not None and one.passed for one in taken] == [passes] * 8


async def test_what_was_taken_elsewhere_counts_in_full_only_where_the_rest_is_lost(redis_url: str) -> None:
    rate, tenant = Rate(1, 10), TenantId(uuid4())
    async with open_redis(Settings(redis_url=redis_url)) as redis:
        store = RedisBuckets(redis)

        async def level(*, take: int, carried: int, carried_if_lost: int) -> int:
            bucket = BucketAsk("requests", rate, carried * TOKEN, carried_if_lost * TOKEN)
            [taken] = await store.take([Taking(tenant, [GroupAsk([bucket], take)])])
            assert taken is not None
            return -(-taken.buckets[0].level // TOKEN)

        assert await level(take=4, carried=0, carried_if_lost=0) == 4
        assert await level(take=0, carried=3, carried_if_lost=6) == 7
        await redis.flushall()
        assert await level(take=0, carried=3, carried_if_lost=6) == 6
        assert await level(take=0, carried=90, carried_if_lost=90) == 20


async def test_keys_end_when_they_say_nothing_any_more(redis_url: str) -> None:
    tenant = TenantId(uuid4())
    async with open_redis(Settings(redis_url=redis_url)) as redis:
        ask = GroupAsk([BucketAsk("requests", Rate(600, 5))], 5)
        await RedisBuckets(redis).take([Taking(tenant, [ask])])
        [key] = await redis.keys(f"*{tenant}*")
        assert 500 < await redis.pttl(key) <= 900
