"""Limits while Redis is killed, hangs, or forgets all: no call fails for it, and at most one burst too many passes."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import dataclass, field

import pytest
from redis.asyncio import Redis

from benchmarks.report import percentile
from memoro_core.embedded.redis import EmbeddedRedis
from memoro_core.limits.limiter import SharedLimiter
from memoro_core.limits.model import Limits
from memoro_core.settings import Settings
from tests.support.buckets import Admission, InForce, most_over
from tests.support.jobs import until
from tests.support.limiters import Caller, open_limiter, per_second
from tests.support.topologies import open_cluster

TIMEOUT = 0.02
RATE = per_second(200, 100)


@pytest.fixture
def on_mortal(settings: Settings, mortal: EmbeddedRedis) -> Settings:
    """Settings for it."""
    return settings.model_copy(update={"redis_url": mortal.url()})


@dataclass
class Load:
    """Callers of one tenant who never rest, and what they saw."""

    caller: Caller
    admissions: list[Admission] = field(default_factory=list)
    latencies: list[tuple[float, float]] = field(default_factory=list)

    async def run(self, limiter: SharedLimiter, until_time: float) -> None:
        while time.monotonic() < until_time:
            ask, start = self.caller.ask(users={"alice": 1}), time.monotonic()
            verdict = limiter.decide_now(ask) or await limiter.decide(ask)
            now = time.monotonic()
            self.latencies.append((start, now - start))
            if verdict.allowed:
                self.admissions.append(Admission(int(now * 1e6), 1))
            await asyncio.sleep(0.004)

    def slowest(self, since: float, until_time: float) -> float:
        """The 99th percentile of the decisions that were asked for in this time, in seconds."""
        return percentile([took for start, took in self.latencies if since <= start < until_time], 99)


@pytest.mark.parametrize("how", ["kill", "hang"])
async def test_an_outage_lets_no_call_fail_and_at_most_one_burst_more_pass(
    how: str, mortal: EmbeddedRedis, on_mortal: Settings
) -> None:
    load, begin = Load(Caller(Limits(requests=RATE, user_requests=RATE))), time.monotonic()
    async with (
        open_limiter(on_mortal, timeout=TIMEOUT, servers=2) as one,
        open_limiter(on_mortal, timeout=TIMEOUT, servers=2) as two,
    ):
        calls = asyncio.gather(*(load.run(limiter, begin + 6) for limiter in (one, two) for _ in range(3)))
        await asyncio.sleep(2)
        gone = time.monotonic()
        assert mortal.pid is not None
        os.kill(mortal.pid, signal.SIGKILL if how == "kill" else signal.SIGSTOP)
        await asyncio.sleep(2)
        if how == "kill":
            await mortal.wait()
            await mortal.start()
        else:
            os.kill(mortal.pid, signal.SIGCONT)
        back = time.monotonic()
        await calls
        assert one.counts.local > 50
        assert two.counts.local > 50
        assert one.counts.outages >= 1
        shared = one.counts.shared
        await until(lambda: _asks_again(one, load, shared), seconds=5)
    lost = [(int(gone * 1e6), int((back + 1) * 1e6))]
    assert most_over(load.admissions, [InForce(0, RATE)], lost=lost) <= RATE.per_minute / 60 * 0.03
    # What is left of the rate while each decides alone; it passes evenly, but for the change-over.
    during = sum(gone + 0.5 <= one.at / 1e6 < back for one in load.admissions)
    assert during >= 0.5 * RATE.per_minute / 60 * (back - gone - 0.5)
    assert load.slowest(gone + 0.3, back) < 0.002


async def _asks_again(limiter: SharedLimiter, load: Load, before: int) -> bool:
    await limiter.decide(load.caller.ask(users={"alice": 1}))
    return limiter.counts.shared > before


async def test_a_redis_that_was_never_there_is_no_hindrance(settings: Settings) -> None:
    away = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    caller = Caller(Limits(requests=per_second(1, 40)))
    async with open_limiter(away, timeout=TIMEOUT, servers=2) as limiter:
        verdicts = [await limiter.decide(caller.ask()) for _ in range(30)]
        assert sum(verdict.allowed for verdict in verdicts) == 20
        refused = verdicts[-1]
        assert refused.refused_by == "requests"
        assert refused.retry_after == pytest.approx(2, abs=0.2)
        # Heavier than a share, a call takes all of it.
        heavy = Caller(Limits(requests=per_second(1, 20)))
        assert (await limiter.decide(heavy.ask(20))).allowed
        assert not (await limiter.decide(heavy.ask(1))).allowed


async def test_what_passed_meanwhile_counts_when_redis_is_back(mortal: EmbeddedRedis, on_mortal: Settings) -> None:
    caller = Caller(Limits(requests=per_second(1, 40)))
    async with open_limiter(on_mortal, timeout=0.2) as limiter:
        for _ in range(10):
            assert (await limiter.decide(caller.ask())).allowed
        assert mortal.pid is not None
        os.kill(mortal.pid, signal.SIGSTOP)
        try:
            for _ in range(15):
                assert (await limiter.decide(caller.ask())).allowed
        finally:
            os.kill(mortal.pid, signal.SIGCONT)

        async def asks_again() -> bool:
            before = limiter.counts.shared
            await limiter.decide(caller.ask(0))
            return limiter.counts.shared > before

        await until(asks_again, seconds=5)
        passed = 0
        while (await limiter.decide(caller.ask())).allowed:
            passed += 1
    # 40 less 25, and what has come in the meantime; what was leased and lost with Redis was taken as well.
    assert 3 <= passed <= 17


async def test_after_a_flush_at_most_one_burst_more_passes(settings: Settings, redis: Redis) -> None:
    load, begin = Load(Caller(Limits(requests=RATE))), time.monotonic()
    async with open_limiter(settings) as one, open_limiter(settings) as two:
        calls = asyncio.gather(*(load.run(limiter, begin + 3) for limiter in (one, two) for _ in range(3)))
        await asyncio.sleep(1.5)
        gone = time.monotonic()
        await redis.flushall()
        back = time.monotonic()
        await calls
    lost = [(int(gone * 1e6), int(back * 1e6))]
    assert most_over(load.admissions, [InForce(0, RATE)], lost=lost) <= RATE.per_minute / 60 * 0.03
    assert most_over(load.admissions, [InForce(0, RATE)]) > RATE.per_minute / 60 * 0.03


async def test_a_cluster_decides_and_a_dead_node_concerns_its_tenants_only(settings: Settings) -> None:
    callers = [Caller(Limits(requests=per_second(1, 40), user_requests=per_second(1, 40))) for _ in range(24)]
    async with open_cluster() as cluster:
        on_cluster = settings.model_copy(update={"redis_url": cluster.url})
        async with open_limiter(on_cluster, timeout=0.5) as limiter:

            async def decide(caller: Caller) -> bool:
                return (await limiter.decide(caller.ask(users={"alice": 1}))).allowed

            # The first calls learn which node has what.
            await asyncio.gather(*map(decide, callers))
            before = limiter.counts.shared
            assert all(await asyncio.gather(*(decide(caller) for caller in callers for _ in range(3))))
            assert limiter.counts.shared - before >= 60
            await cluster.nodes[1].kill()
            assert all([await decide(caller) for _ in range(2) for caller in callers])
            local = limiter.counts.local
            assert all([await decide(caller) for caller in callers])
            assert 1 <= limiter.counts.local - local <= 16
