"""What a limiter decides, with Redis and PostgreSQL at hand."""

from __future__ import annotations

import asyncio
import time

import pytest
from redis.asyncio import Redis

from memoro_core.limits.leases import LEASE_SECONDS
from memoro_core.limits.limiter import SharedLimiter
from memoro_core.limits.model import UNLIMITED, Ask, Limits, MethodClass, Rate, Verdict
from memoro_core.settings import Settings
from tests.support.buckets import Admission, InForce, most_over
from tests.support.limiters import Caller, open_limiter, per_second


async def decide(limiter: SharedLimiter, ask: Ask) -> Verdict:
    return limiter.decide_now(ask) or await limiter.decide(ask)


async def test_many_at_once_pass_exactly_the_burst(settings: Settings) -> None:
    caller = Caller(Limits(requests=Rate(1, 50)))
    async with open_limiter(settings) as one, open_limiter(settings) as two:
        verdicts = await asyncio.gather(*(decide(limiter, caller.ask()) for _ in range(60) for limiter in (one, two)))
    assert sum(verdict.allowed for verdict in verdicts) == 50
    assert {verdict.refused_by for verdict in verdicts if not verdict.allowed} == {"requests"}
    assert {verdict.remaining for verdict in verdicts} == set(range(50))


async def test_a_lone_caller_that_waits_as_told_passes_each_time(settings: Settings) -> None:
    caller = Caller(Limits(requests=per_second(40, 20), writes=per_second(25, 20), user_requests=per_second(30, 20)))
    waited = 0
    async with open_limiter(settings) as limiter:
        for number in range(60):
            ask = caller.ask(1 + number % 7, MethodClass.WRITE, {"alice": 1 + number % 3})
            verdict = await decide(limiter, ask)
            if not verdict.allowed:
                waited += 1
                assert verdict.retry_after is not None
                assert 0 < verdict.retry_after < 1
                await asyncio.sleep(verdict.retry_after)
                verdict = await decide(limiter, ask)
                assert verdict.allowed, verdict
    assert waited > 5


async def test_a_refused_call_takes_nothing_and_does_not_even_ask(settings: Settings, redis: Redis) -> None:
    caller = Caller(Limits(requests=Rate(600, 20), writes=Rate(1, 20)))
    async with open_limiter(settings) as limiter:
        for _ in range(20):
            assert (await decide(limiter, caller.ask(1, MethodClass.WRITE))).allowed
        refused = await decide(limiter, caller.ask(1, MethodClass.WRITE))
        assert (refused.refused_by, refused.maximum, refused.remaining) == ("writes", 20, 0)
        assert refused.retry_after == pytest.approx(60, abs=1)
        asked = (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
        for weight in (1, 3):
            again = limiter.decide_now(caller.ask(weight, MethodClass.WRITE))
            assert again is not None
            assert again.retry_after == pytest.approx(60 * weight, abs=1)
        assert (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"] - asked <= 2  # signs of life
        await asyncio.sleep(2.1)
        # What the refused calls would have taken of all requests is still there.
        reads = [await decide(limiter, caller.ask()) for _ in range(20)]
        assert all(verdict.allowed for verdict in reads)


async def test_lighter_calls_pass_where_a_heavy_one_is_refused(settings: Settings) -> None:
    caller = Caller(Limits(requests=Rate(60, 20)))
    async with open_limiter(settings) as limiter:
        assert (await decide(limiter, caller.ask(15))).allowed
        assert not (await decide(limiter, caller.ask(10))).allowed
        assert limiter.decide_now(caller.ask(12)) is not None
        assert (await decide(limiter, caller.ask(5))).allowed


async def test_of_several_limits_the_longest_wait_is_told(settings: Settings) -> None:
    caller = Caller(Limits(requests=per_second(10, 20), reads=per_second(1, 20), user_requests=per_second(5, 20)))
    async with open_limiter(settings) as limiter:
        assert (await decide(limiter, caller.ask(20, users={"alice": 20}))).allowed
        refused = await decide(limiter, caller.ask(10, users={"alice": 10}))
        assert refused.refused_by == "reads"
        assert refused.retry_after == pytest.approx(10, abs=0.5)
        # Of another class, and of another user, nothing but the requests is used up.
        other = await decide(limiter, caller.ask(10, MethodClass.WRITE, {"bob": 10}))
        assert other.refused_by == "requests"


async def test_an_upgrade_counts_at_once_and_without_old_debt(settings: Settings) -> None:
    caller = Caller(Limits(requests=Rate(1, 20)))
    async with open_limiter(settings) as limiter:
        assert (await decide(limiter, caller.ask(20))).allowed
        assert not (await decide(limiter, caller.ask())).allowed
        upgraded = caller.under(Limits(requests=Rate(1, 100)), version="2")
        verdicts = [await decide(limiter, upgraded.ask()) for _ in range(90)]
        assert sum(verdict.allowed for verdict in verdicts) == 80
        # Whatever was used, the smaller bucket is at most full.
        downgraded = caller.under(Limits(requests=per_second(10, 20)), version="3")
        refused = await decide(limiter, downgraded.ask())
        assert refused.retry_after is not None
        # What was leased a moment ago still counts.
        assert refused.retry_after <= 0.1 + 2 * LEASE_SECONDS
        await asyncio.sleep(refused.retry_after)
        assert (await decide(limiter, downgraded.ask())).allowed
        # Back and forth gives nothing away.
        assert not (await decide(limiter, upgraded.ask(5))).allowed


async def test_with_leases_no_window_passes_too_much(settings: Settings) -> None:
    rate = per_second(300, 100)
    caller = Caller(Limits(requests=per_second(400, 100), user_requests=rate))
    admissions: list[Admission] = []
    async with open_limiter(settings) as one, open_limiter(settings) as two:
        end = time.monotonic() + 3

        async def call(limiter: SharedLimiter) -> None:
            while time.monotonic() < end:
                verdict = await decide(limiter, caller.ask(users={"alice": 1}))
                if verdict.allowed:
                    admissions.append(Admission(time.monotonic_ns() // 1000, 1))
                await asyncio.sleep(0.003)

        await asyncio.gather(*(call(limiter) for limiter in (one, two) for _ in range(2)))
    # Some milliseconds for the way from the decision to the note of it.
    assert most_over(admissions, [InForce(0, rate)]) <= 300 * 0.02
    assert len(admissions) >= 3 * 300 * 0.9


async def test_who_calls_often_is_paid_from_leases(settings: Settings) -> None:
    caller = Caller(
        Limits(requests=per_second(2000, 1000), reads=per_second(1500, 1000), user_requests=per_second(900, 900))
    )
    async with open_limiter(settings) as limiter:
        for _ in range(300):
            assert (await decide(limiter, caller.ask(2, users={"alice": 1, "bob": 1}))).allowed
            await asyncio.sleep(0.003)
        assert limiter.counts.leased >= 250
        verdict = await decide(limiter, caller.ask(2, users={"alice": 1}))
    assert verdict.maximum in {900, 1000}
    assert 0.6 < verdict.remaining / verdict.maximum <= 1


async def test_what_is_leased_and_not_spent_comes_back(settings: Settings) -> None:
    caller = Caller(Limits(requests=Rate(1, 400)))
    async with open_limiter(settings) as one, open_limiter(settings) as two:
        passed = 0
        for _ in range(150):
            passed += (await decide(one, caller.ask())).allowed
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.45)
        while (await decide(one, caller.ask())).allowed:
            passed += 1
        await asyncio.sleep(0.45)
        while (await decide(two, caller.ask())).allowed:
            passed += 1
        # A lease that ends unspent is lost to a bucket that drains as slowly as this one.
        assert 300 <= passed <= 400


async def test_without_limits_nothing_is_asked(settings: Settings) -> None:
    caller = Caller(Limits())
    async with open_limiter(settings) as limiter:
        assert limiter.decide_now(caller.ask(users={"alice": 1})) is UNLIMITED
        assert await limiter.decide(caller.ask()) is UNLIMITED
        only_users = Caller(Limits(user_requests=Rate(1, 20)))
        assert (await decide(limiter, only_users.ask(20))).allowed
        assert (await decide(limiter, only_users.ask(1, users={"alice": 20}))).allowed
        assert not (await decide(limiter, only_users.ask(1, users={"alice": 1, "bob": 1}))).allowed
        assert (await decide(limiter, only_users.ask(1, users={"bob": 20}))).allowed


async def test_a_call_that_is_given_up_leaves_no_trace_in_the_leases(settings: Settings) -> None:
    caller = Caller(Limits(requests=Rate(1, 100)))
    async with open_limiter(settings) as limiter:
        for _ in range(20):
            task = asyncio.create_task(limiter.decide(caller.ask()))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        verdict = await decide(limiter, caller.ask())
        assert verdict.allowed
        assert verdict.remaining >= 79
