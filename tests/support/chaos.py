"""A deployment to be mistreated: its own PostgreSQL and Redis, real server and worker processes, and their owner."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import asyncpg
import psutil

from memoro import AsyncClient, Health, MemoroError
from memoro_core.billing.model import Cause, Grant
from memoro_core.clock import SystemClock
from memoro_core.embedded.ports import free_port
from memoro_core.embedded.stack import Stack
from memoro_core.ids import GrantId, new_id
from memoro_core.postgres.credit_store import PostgresCreditStore
from memoro_core.postgres.database import open_database
from memoro_core.postgres.leader import SCHEDULER_LOCK
from memoro_core.postgres.tenancy_store import PostgresTenancyStore
from memoro_core.settings import Settings
from memoro_core.tenancy.bootstrap import Bootstrap
from memoro_core.tenancy.model import DEFAULT_SCOPES
from tests.support.chaos_load import Load
from tests.support.domain import fresh_name
from tests.support.jobs import until
from tests.support.processes import SERVER, WORKER, Processes, open_processes

COMES_BACK_WITHIN = 30.0
"""Seconds within which PostgreSQL answers again after any fault."""
STARTS_WITHIN = 90.0
"""Seconds within which a process of ours works, on a machine that has much else to do."""
LEASE = 2.0
WORKERS = 2
CREDITS = 10**12
"""What a tenant of a test has: plenty."""
_PRICES = """
    INSERT INTO prices (provider, model, operation, valid_from, input_price, output_price, fee)
    SELECT provider, model, operation, '2021-01-01Z', 100000, 100000, 100 FROM prices WHERE provider = 'local'
    """
"""Jobs cost something, so that there is money to go astray."""
_LAST_WORDS = 40
"""Lines of the processes' log."""


@dataclass
class Owner:
    """Sees all rows, whatever has happened to the connection before."""

    url: str
    connection: asyncpg.Connection[asyncpg.Record] | None = None

    async def fetch(self, query: str, *arguments: Any) -> Sequence[asyncpg.Record]:
        """The rows of a query that may be repeated."""
        async with asyncio.timeout(COMES_BACK_WITHIN):
            while True:
                try:
                    if self.connection is None or self.connection.is_closed():
                        self.connection = await asyncpg.connect(self.url)
                    return await self.connection.fetch(query, *arguments)
                except (asyncpg.PostgresConnectionError, asyncpg.OperatorInterventionError, OSError):
                    await self.close()
                    await asyncio.sleep(0.05)

    async def fetchval(self, query: str, *arguments: Any) -> Any:
        """The first column of the first row; None when there is none."""
        rows = await self.fetch(query, *arguments)
        return rows[0][0] if rows else None

    async def close(self) -> None:
        """Ends the connection, which the next query makes anew."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.terminate()


@dataclass
class Deployment:
    """All of a deployment's processes, to be found, hurt and replaced."""

    stack: Stack
    settings: Settings
    servers: Processes
    workers: Processes
    owner: Owner
    log: Path
    random: Random = field(default_factory=Random)

    @property
    def endpoint(self) -> str:
        """Where servers listen, whichever process it is."""
        return f"127.0.0.1:{self.settings.grpc_port}"

    @asynccontextmanager
    async def load(self) -> AsyncIterator[Load]:
        """Callers of a new tenant."""
        async with open_database(self.settings) as database:
            bootstrap = Bootstrap(PostgresTenancyStore(database), SystemClock())
            tenant = await bootstrap.tenant(fresh_name(), "A test's")
            now = SystemClock().now()
            grant = Grant(GrantId(new_id()), CREDITS, CREDITS, 0, None, "", now)
            await PostgresCreditStore(database).add_credits(tenant.id, grant, Cause(), None, now=now)
            key = await bootstrap.key(tenant, "A test's", DEFAULT_SCOPES)
        async with AsyncClient(self.endpoint, api_key=key) as client:
            load = Load(client, tenant.id, Random(self.random.getrandbits(64)))
            try:
                yield load
            finally:
                await load.close()

    async def restore(self, *, workers: int = WORKERS) -> None:
        """Everything runs again as usual: PostgreSQL, Redis, a server that answers, and so many workers."""
        for pid in (self.stack.postgres.pid, self.stack.redis.pid):
            if pid is not None:
                os.kill(pid, signal.SIGCONT)
        await self.stack.postgres.start()
        await self.stack.redis.start()
        for processes, wanted in ((self.servers, 1), (self.workers, workers)):
            for process in list(processes.alive):
                superfluous = process in processes.unusual or len(processes.alive) > wanted
                if superfluous or process.returncode is not None:
                    await processes.end(process, signal.SIGKILL)
                else:
                    process.send_signal(signal.SIGCONT)
            while len(processes.alive) < wanted:
                await processes.start()
        await self.wait_for_server()
        await self.wait_for_workers()

    async def wait_for_server(self) -> None:
        """Returns when calls are answered."""
        async with AsyncClient(self.endpoint) as client:
            await until(lambda: _serves(client), seconds=STARTS_WITHIN)

    async def wait_for_workers(self) -> None:
        """Returns when all workers work: each has a connection for the lead."""

        async def all_there() -> bool:
            there = await self.owner.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'memoro leader'"
            )
            return bool(there >= len(self.workers.alive))

        await until(all_there, seconds=STARTS_WITHIN)

    async def ended(self, load: Load) -> int:
        """How many of the tenant's jobs have ended."""
        count: int = await self.owner.fetchval(
            "SELECT count(*) FROM jobs WHERE tenant_id = $1 AND ended_at IS NOT NULL", load.tenant_id
        )
        return count

    async def _under_way(self, load: Load) -> bool:
        left = "SELECT EXISTS (SELECT FROM jobs WHERE tenant_id = $1 AND ended_at IS NULL)"
        return bool(await self.owner.fetchval(left, load.tenant_id))

    async def wait_until_ended(self, load: Load, count: int | None = None, *, seconds: float = 60.0) -> None:
        """Returns when so many of the tenant's jobs have ended; without a count, all that there are."""
        wanted = len(load.accepted) if count is None else count

        async def enough() -> bool:
            return await self.ended(load) >= wanted and (count is not None or not await self._under_way(load))

        try:
            await until(enough, seconds=seconds)
        except TimeoutError:
            raise AssertionError(f"{wanted} jobs have not ended within {seconds} s\n{await self.report()}") from None

    async def running_on(self, process: Process) -> int:
        """How many jobs that worker has claimed and not ended."""
        return len(await self.running_jobs(process))

    async def running_jobs(self, process: Process, *, attempt: int = 1, begun: bool = False) -> Sequence[UUID]:
        """The jobs, in this attempt or a later one, that a worker has claimed and not ended.

        `begun`: only those of which it has told more than that it has them.
        """
        rows = await self.owner.fetch(
            "SELECT job_id FROM jobs WHERE state = 'RUNNING' AND attempt >= $1 AND worker_id LIKE $2"
            " AND ($3 = false OR last_seq > 2)",
            attempt,
            f"%:{process.pid}:%",
            begun,
        )
        return [row["job_id"] for row in rows]

    async def freeze_with_jobs(
        self, process: Process, *, attempt: int = 1, at_least: int = 1, begun: bool = False
    ) -> None:
        """Stops a worker in the middle of so many jobs, in this attempt or a later one."""

        async def caught() -> bool:
            process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(0.05)  # what it has sent arrives
            if len(await self.running_jobs(process, attempt=attempt, begun=begun)) >= at_least:
                return True
            process.send_signal(signal.SIGCONT)
            return False

        await until(caught)

    async def leader(self) -> Process | None:
        """The worker whose scheduler leads: the one at the other end of the connection that holds the lock."""
        port = await self.owner.fetchval(
            """
            SELECT client_port FROM pg_locks JOIN pg_stat_activity USING (pid)
            WHERE locktype = 'advisory' AND granted AND objid = $1 AND application_name = 'memoro leader'
            """,
            SCHEDULER_LOCK,
        )
        return next((worker for worker in self.workers.alive if port in _ports_of(worker)), None)

    async def wait_for_leader(self, *, other_than: Process | None = None, seconds: float = 30.0) -> Process:
        """The leader, once there is one."""
        found: Process | None = None

        async def leads() -> bool:
            nonlocal found
            found = await self.leader()
            return found is not None and found is not other_than

        await until(leads, seconds=seconds)
        assert found is not None
        return found

    async def report(self) -> str:
        """What there is to see when something went wrong."""
        states = await self.owner.fetch("SELECT tenant_id, state, count(*) FROM jobs GROUP BY 1, 2")
        sessions = await self.owner.fetch(
            """
            SELECT pid, application_name, state, wait_event, query FROM pg_stat_activity
            WHERE datname IS NOT NULL AND state <> 'idle'
            """
        )
        lines = [str(tuple(row)) for row in (*states, *sessions)]
        said = [line for line in self.log.read_text(errors="replace").splitlines() if '"level":"info"' not in line]
        return "\n".join([*lines, *said[-_LAST_WORDS:]])


async def _serves(client: AsyncClient) -> bool:
    try:
        return await client.health(timeout=1) is Health.SERVING
    except MemoroError:
        return False


def _ports_of(process: Process) -> set[int]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return {connection.laddr.port for connection in psutil.Process(process.pid).net_connections("tcp")}
    return set()


@asynccontextmanager
async def open_deployment(stack: Stack, folder: Path) -> AsyncIterator[Deployment]:
    """A deployment on these servers, without processes yet; short leases, so that what is lost is soon found again.

    Attempts are many: what the workers of a test die of is not the jobs' fault.
    """
    settings = Settings.model_validate(
        {
            "database_url": stack.database_url,
            "redis_url": stack.redis_url,
            "grpc_port": free_port(),
            "server_ops_port": 0,
            "worker_ops_port": 0,
            "job_lease": LEASE,
            "job_heartbeat": 0.5,
            "job_max_attempts": 50,
            "job_retry_base": 0.2,
            "job_retry_max": 2.0,
            "hint_timeout": 2.0,
            "scheduler_interval": 0.25,
            "database_timeout": 3.0,
        }
    )
    log = folder / "processes.log"
    async with AsyncExitStack() as opened:
        servers = await opened.enter_async_context(open_processes(SERVER, settings, log))
        workers = await opened.enter_async_context(open_processes(WORKER, settings, log))
        owner = Owner(stack.owner_url)
        opened.push_async_callback(owner.close)
        await owner.fetch(_PRICES)
        yield Deployment(stack, settings, servers, workers, owner, log)
