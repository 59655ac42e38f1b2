"""A server process that decides about calls of one hot tenant, and logs what it admits.

A line of standard input is a policy to follow from then on, as JSON. A line of the log is a time in microseconds (that
of Redis where Redis decided), the weight admitted, and 1 where the process decided alone.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from datetime import UTC
from pathlib import Path
from uuid import UUID

import uvloop

from memoro_core.billing.calendar import Calendar
from memoro_core.clock import SystemClock
from memoro_core.ids import TenantId
from memoro_core.limits.known import KnownTenant
from memoro_core.limits.limiter import SharedLimiter
from memoro_core.limits.model import Ask, Limits, MethodClass, Rate, TenantLimits, Verdict
from memoro_core.limits.ports import Taken, Taking
from memoro_core.limits.units import DailyUnits
from memoro_core.postgres.database import open_database
from memoro_core.postgres.unit_store import PostgresUnitStore
from memoro_core.redis.client import open_redis
from memoro_core.redis.limit_buckets import RedisBuckets
from memoro_core.redis.servers import RedisServerRegister
from memoro_core.settings import Settings

Log = list[tuple[int, int, int]]


class _LoggedBuckets(RedisBuckets):
    """Logs what Redis admits at once, at Redis' time."""

    log: Log

    async def take(self, takings: Sequence[Taking]) -> Sequence[Taken | None]:
        takens = await super().take(takings)
        for taking, taken in zip(takings, takens, strict=True):
            if taken is not None and taken.passed and taking.groups[0].take:
                self.log.append((taken.at, taking.groups[0].take, 0))
        return takens


class _LoggedLimiter(SharedLimiter):
    """Logs what is paid from leases, and what is decided alone."""

    log: Log

    def decide_now(self, ask: Ask) -> Verdict | None:
        verdict = super().decide_now(ask)
        if verdict is not None and verdict.allowed:
            self.log.append((time.time_ns() // 1000, ask.weight, 0))
        return verdict

    def _alone(self, tenant: KnownTenant, ask: Ask, *, pays_units: bool) -> Verdict:
        verdict = super()._alone(tenant, ask, pays_units=pays_units)
        if verdict.allowed:
            self.log.append((time.time_ns() // 1000, ask.weight, 1))
        return verdict


class _Callers:
    def __init__(self, limiter: SharedLimiter, tenant_id: TenantId, calls: int, pause: float) -> None:
        self.limiter = limiter
        self.tenant_id = tenant_id
        self.left = calls
        self.pause = pause
        self.failures = 0
        self.followed: list[int] = []
        self.policy: TenantLimits | None = None

    def follow(self, line: bytes) -> None:
        said = json.loads(line)
        self.policy = TenantLimits(Limits(requests=Rate(said["per_minute"], said["burst"])), str(len(self.followed)))
        self.followed.append(time.time_ns() // 1000)

    async def call(self) -> None:
        while self.left > 0:
            self.left -= 1
            assert self.policy is not None
            ask = Ask(self.tenant_id, self.policy, MethodClass.READ, 1 + self.left % 3)
            try:
                if self.limiter.decide_now(ask) is None:
                    await self.limiter.decide(ask)
            except Exception as error:  # noqa: BLE001 - whatever it is, it must not happen
                self.failures += 1
                sys.stderr.write(f"{error!r}\n")
            await asyncio.sleep(self.pause)


async def _main(tenant: str, calls: int, servers: int, pause: float, path: Path) -> None:
    settings, lines, log = Settings(), asyncio.StreamReader(), Log()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with (
        open_database(settings) as database,
        open_redis(settings, command_timeout=None, health_check_interval=0) as redis,
    ):
        buckets, register = _LoggedBuckets(redis), RedisServerRegister(redis)
        units = DailyUnits(PostgresUnitStore(database), Calendar(UTC), SystemClock())
        limiter = _LoggedLimiter(buckets, units, register, timeout=settings.limit_timeout, servers=servers)
        buckets.log = limiter.log = log
        async with limiter:
            callers = _Callers(limiter, TenantId(UUID(tenant)), calls, pause)
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            callers.follow(await lines.readline())

            async def listen() -> None:
                while line := await lines.readline():
                    callers.follow(line)

            listening = asyncio.create_task(listen())
            await asyncio.gather(*(callers.call() for _ in range(8)))
            listening.cancel()
    path.write_text("".join(f"{at} {weight} {alone}\n" for at, weight, alone in log), "utf-8")
    counts = limiter.counts
    report = {
        "failures": callers.failures,
        "followed": callers.followed,
        "leased": counts.leased,
        "shared": counts.shared,
        "local": counts.local,
    }
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    _, tenant, calls, servers, pause, path = sys.argv
    uvloop.run(_main(tenant, int(calls), int(servers), float(pause), Path(path)))
