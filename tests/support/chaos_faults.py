"""What can go wrong with a deployment. Each fault strikes, and then does what a supervisor or an operator would do.

`strike` returns what it hit, for the record, once servers are there again; a worker that takes another's place may
still be starting then.
"""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol
from uuid import UUID

from redis.asyncio import Redis

from tests.support.chaos import LEASE, Deployment
from tests.support.jobs import until

STALLING_WORKER: Final = str(Path(__file__).with_name("run_stalling_worker.py"))
PAST_THE_LEASE: Final = LEASE * 2
SMALLEST_POOL: Final = {"MEMORO_DATABASE_POOL_SIZE": "2", "MEMORO_WORKER_CONCURRENCY": "16"}
_BUSY: Final = """
    FROM pg_stat_activity
    WHERE usename = 'memoro_service' AND state = 'active' AND (query LIKE 'COMMIT%' OR query ~ '(INSERT|UPDATE)')
    """


class Fault(Protocol):
    """Something that goes wrong."""

    async def strike(self, deployment: Deployment) -> str:
        """Goes wrong now; what it hit."""
        ...


@dataclass(frozen=True, slots=True)
class KillWorker:
    """SIGKILL to a worker, in the middle of jobs if it has any; another takes its place."""

    async def strike(self, deployment: Deployment) -> str:
        victim = deployment.random.choice(deployment.workers.alive)
        running = await deployment.running_on(victim)
        await deployment.workers.end(victim, signal.SIGKILL)
        await deployment.workers.start()
        return f"worker {victim.pid} with {running} jobs"


@dataclass(frozen=True, slots=True)
class FreezeWorker:
    """A worker is stopped for longer than its leases last, and then goes on as if nothing had happened."""

    seconds: float = PAST_THE_LEASE

    async def strike(self, deployment: Deployment) -> str:
        victim = deployment.random.choice(deployment.workers.alive)
        return f"worker {victim.pid} with {await frozen(deployment, victim, self.seconds)} jobs"


@dataclass(frozen=True, slots=True)
class KillLeader:
    """SIGKILL to the worker that schedules; another takes its place."""

    async def strike(self, deployment: Deployment) -> str:
        leader = await deployment.wait_for_leader()
        await deployment.workers.end(leader, signal.SIGKILL)
        await deployment.workers.start()
        return f"worker {leader.pid}"


@dataclass(frozen=True, slots=True)
class FreezeLeader:
    """The worker that schedules is stopped, until long after another has taken over."""

    seconds: float = 8.0

    async def strike(self, deployment: Deployment) -> str:
        leader = await deployment.wait_for_leader()
        return f"worker {leader.pid} with {await frozen(deployment, leader, self.seconds)} jobs"


@dataclass(frozen=True, slots=True)
class StallWorker:
    """The event loop of a worker is blocked, while its threads go on."""

    seconds: float = 10.0

    async def strike(self, deployment: Deployment) -> str:
        async with stalling_worker(deployment, self.seconds) as worker:
            running = await stall_with_jobs(deployment, worker)
            await asyncio.sleep(self.seconds)
        return f"worker {worker.pid} with {len(running)} jobs"


@dataclass(frozen=True, slots=True)
class StarveWorker:
    """A worker gives way to one that has far fewer connections than jobs, for a while."""

    seconds: float = 5.0

    async def strike(self, deployment: Deployment) -> str:
        victim = deployment.random.choice(deployment.workers.alive)
        await deployment.workers.end(victim)
        starved = await deployment.workers.start(**SMALLEST_POOL)
        await asyncio.sleep(self.seconds)
        await deployment.workers.end(starved)
        await deployment.workers.start()
        return f"worker {starved.pid}"


@dataclass(frozen=True, slots=True)
class KillServer:
    """SIGKILL to a server in the middle of its calls; it comes back on the same port."""

    async def strike(self, deployment: Deployment) -> str:
        return await back(deployment, await end_server(deployment))


@dataclass(frozen=True, slots=True)
class KillServerBeforeHints:
    """SIGKILL to a server whose calls commit and whose hints hang, because Redis stands still."""

    seconds: float = 0.5

    async def strike(self, deployment: Deployment) -> str:
        async with redis_frozen(deployment):
            await asyncio.sleep(self.seconds)
            victim = await end_server(deployment)
        return await back(deployment, victim)


@dataclass(frozen=True, slots=True)
class EndBackends:
    """`pg_terminate_backend` for every session that is seen to write or commit, again and again for a while.

    Commits are made to wait for the disk a little longer, so that many are caught in the middle.
    """

    seconds: float = 2.0
    pause: float = 0.02

    async def strike(self, deployment: Deployment) -> str:
        ended = 0
        async with slow_commits(deployment), asyncio.timeout(self.seconds + 30):
            end = asyncio.get_running_loop().time() + self.seconds
            # It is no fault until it has hit somebody.
            while not ended or asyncio.get_running_loop().time() < end:
                ended += len(await deployment.owner.fetch(f"SELECT pg_terminate_backend(pid) {_BUSY}"))
                await asyncio.sleep(self.pause)
        return f"{ended} sessions"


@dataclass(frozen=True, slots=True)
class CrashBackend:
    """SIGKILL to a session in the middle of a commit, upon which PostgreSQL throws all out and recovers."""

    async def strike(self, deployment: Deployment) -> str:
        pid: int | None = None

        async def caught() -> bool:
            nonlocal pid
            pid = await deployment.owner.fetchval(f"SELECT pid {_BUSY} AND query LIKE 'COMMIT%' LIMIT 1")
            return pid is not None

        async with slow_commits(deployment):
            await until(caught, seconds=30)
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
        return f"session {pid}"


@dataclass(frozen=True, slots=True)
class RestartPostgres:
    """PostgreSQL ends and starts again: SIGINT ends it fast but in order, SIGQUIT at once, SIGKILL without a word."""

    number: signal.Signals = signal.SIGINT
    away: float = 0.5

    async def strike(self, deployment: Deployment) -> str:
        postgres = deployment.stack.postgres
        pid = postgres.pid
        assert pid is not None
        os.kill(pid, self.number)
        await postgres.wait()
        await asyncio.sleep(self.away)
        await postgres.start()
        return self.number.name


@dataclass(frozen=True, slots=True)
class RestartRedis:
    """Redis ends and starts again; after SIGKILL it has forgotten the last second."""

    number: signal.Signals = signal.SIGKILL
    away: float = 0.5

    async def strike(self, deployment: Deployment) -> str:
        redis = deployment.stack.redis
        pid = redis.pid
        assert pid is not None
        os.kill(pid, self.number)
        await redis.wait()
        await asyncio.sleep(self.away)
        await redis.start()
        return self.number.name


@dataclass(frozen=True, slots=True)
class FreezeRedis:
    """Redis hears and says nothing for a while, its connections open."""

    seconds: float = 3.0

    async def strike(self, deployment: Deployment) -> str:
        async with redis_frozen(deployment):
            await asyncio.sleep(self.seconds)
        return f"for {self.seconds} s"


@dataclass(frozen=True, slots=True)
class FlushRedis:
    """Redis forgets everything."""

    async def strike(self, deployment: Deployment) -> str:
        async with Redis.from_url(deployment.stack.redis_url) as redis:
            keys = await redis.dbsize()
            await redis.flushall()
        return f"{keys} keys"


FAULTS: Final[Sequence[Fault]] = (
    KillWorker(),
    FreezeWorker(),
    KillLeader(),
    FreezeLeader(),
    StallWorker(),
    StarveWorker(),
    KillServer(),
    KillServerBeforeHints(),
    EndBackends(),
    CrashBackend(),
    RestartPostgres(signal.SIGINT),
    RestartPostgres(signal.SIGQUIT),
    RestartPostgres(signal.SIGKILL),
    RestartRedis(signal.SIGTERM),
    RestartRedis(signal.SIGKILL),
    FreezeRedis(),
    FlushRedis(),
)
"""One of each, for drawing lots."""


async def end_server(deployment: Deployment) -> Process:
    """SIGKILL to a server, and which it was."""
    victim = deployment.random.choice(deployment.servers.alive)
    await deployment.servers.end(victim, signal.SIGKILL)
    return victim


async def back(deployment: Deployment, victim: Process) -> str:
    """A server takes the place of the one that was killed."""
    await deployment.servers.start()
    await deployment.wait_for_server()
    return f"server {victim.pid}"


async def frozen(deployment: Deployment, victim: Process, seconds: float) -> int:
    """Stops a process for a while; how many jobs it had."""
    victim.send_signal(signal.SIGSTOP)
    try:
        running = await deployment.running_on(victim)
        await asyncio.sleep(seconds)
    finally:
        victim.send_signal(signal.SIGCONT)
    return running


@asynccontextmanager
async def redis_frozen(deployment: Deployment) -> AsyncIterator[None]:
    """Redis stands still within the block."""
    pid = deployment.stack.redis.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@asynccontextmanager
async def slow_commits(deployment: Deployment) -> AsyncIterator[None]:
    """Each commit that waits for the disk takes 20 ms longer within the block."""
    await _set(deployment, "ALTER SYSTEM SET commit_delay = 20000", "ALTER SYSTEM SET commit_siblings = 0")
    try:
        yield
    finally:
        await _set(deployment, "ALTER SYSTEM RESET commit_delay", "ALTER SYSTEM RESET commit_siblings")


async def _set(deployment: Deployment, *statements: str) -> None:
    for statement in (*statements, "SELECT pg_reload_conf()"):
        await deployment.owner.fetch(statement)


@asynccontextmanager
async def stalling_worker(deployment: Deployment, seconds: float, **settings: str) -> AsyncIterator[Process]:
    """One more worker, whose loop SIGUSR1 blocks for so many seconds."""
    worker = await deployment.workers.start(STALLING_WORKER, STALL_SECONDS=str(seconds), **settings)
    await deployment.wait_for_workers()
    yield worker
    await deployment.workers.end(worker)


async def stall_with_jobs(deployment: Deployment, worker: Process) -> Sequence[UUID]:
    """Blocks the loop of a stalling worker in the middle of these jobs.

    A claim that is on its way when the loop is blocked is nobody's until its lease ends: what counts has begun.
    """
    await deployment.freeze_with_jobs(worker, begun=True)
    running = await deployment.running_jobs(worker, begun=True)
    worker.send_signal(signal.SIGUSR1)
    worker.send_signal(signal.SIGCONT)
    return running
