"""What a benchmark measures: embedded servers, and our processes on them as an operator would start them."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import psutil

from memoro_core.billing.model import Cause, Grant
from memoro_core.billing.money import MAX_MICRO_CREDITS
from memoro_core.clock import SystemClock
from memoro_core.embedded.ports import free_port
from memoro_core.embedded.provision import provision_dev
from memoro_core.embedded.stack import Stack, open_stack
from memoro_core.ids import GrantId, TenantId, new_id
from memoro_core.postgres.credit_store import PostgresCreditStore
from memoro_core.postgres.database import open_database
from memoro_core.postgres.tenancy_store import PostgresTenancyStore
from memoro_core.settings import Settings
from memoro_core.tenancy.model import DEFAULT_SCOPES, ENTERPRISE_TIER, TierName
from memoro_core.tenancy.service import TenancyService

READY_WITHIN: Final = 60.0


@dataclass(frozen=True, slots=True)
class Account:
    """A tenant and a key of its own."""

    tenant_id: TenantId
    api_key: str


@dataclass(frozen=True, slots=True)
class Deployment:
    """PostgreSQL and Redis, running and durable, with a key of the tenant `dev`."""

    stack: Stack
    api_key: str

    @property
    def settings(self) -> Settings:
        """The settings of this process on these servers."""
        return Settings.model_validate({"database_url": self.stack.database_url, "redis_url": self.stack.redis_url})

    @property
    def environment(self) -> Mapping[str, str]:
        """The settings of a process on these servers."""
        return {
            **os.environ,
            "MEMORO_DATABASE_URL": self.stack.database_url,
            "MEMORO_REDIS_URL": self.stack.redis_url,
            "MEMORO_LOG_LEVEL": "warning",
        }


@asynccontextmanager
async def open_deployment() -> AsyncIterator[Deployment]:
    """Servers in a folder of their own, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="memoro-bench-") as folder:
        async with open_stack(Path(folder)) as stack:
            settings = Settings.model_validate({"database_url": stack.database_url, "redis_url": stack.redis_url})
            yield Deployment(stack, (await provision_dev(settings, None)).api_key)


async def add_account(deployment: Deployment, name: str, tier: TierName = ENTERPRISE_TIER) -> Account:
    """One more tenant."""
    async with open_database(deployment.settings) as database:
        tenancy = TenancyService(PostgresTenancyStore(database), SystemClock())
        tenant = await tenancy.create_tenant(None, name, name, tier)
        _, secret = await tenancy.create_api_key(None, tenant.id, name, DEFAULT_SCOPES, None)
    return Account(tenant.id, secret)


async def give_credits(deployment: Deployment, tenant_id: TenantId) -> None:
    """All the credits that a tenant can have."""
    now = datetime.now(UTC)
    grant = Grant(GrantId(new_id()), MAX_MICRO_CREDITS, MAX_MICRO_CREDITS, 0, None, "", now)
    async with open_database(deployment.settings) as database:
        await PostgresCreditStore(database).add_credits(tenant_id, grant, Cause(), None, now=now)


@asynccontextmanager
async def running(*arguments: str, environment: Mapping[str, str] | None = None) -> AsyncIterator[psutil.Process]:
    """A Python module as a process of its own, ended at the end."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", *arguments, env=environment)
    try:
        yield psutil.Process(process.pid)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@asynccontextmanager
async def running_server(
    deployment: Deployment, *, module: Sequence[str] = ("memoro_server",), **settings: str
) -> AsyncIterator[tuple[psutil.Process, str]]:
    """A server process that is ready, and its endpoint: `module` with its arguments."""
    port, ops_port = free_port(), free_port()
    environment = {
        **deployment.environment,
        "MEMORO_GRPC_PORT": str(port),
        "MEMORO_SERVER_OPS_PORT": str(ops_port),
        **settings,
    }
    async with running(*module, environment=environment) as process:
        await _ready(process, f"http://127.0.0.1:{ops_port}/readyz")
        yield process, f"127.0.0.1:{port}"


@asynccontextmanager
async def running_worker(
    deployment: Deployment, *, module: Sequence[str] = ("memoro_worker",), **settings: str
) -> AsyncIterator[psutil.Process]:
    """A worker process that is ready: `module` with its arguments."""
    ops_port = free_port()
    environment = {**deployment.environment, "MEMORO_WORKER_OPS_PORT": str(ops_port), **settings}
    async with running(*module, environment=environment) as process:
        await _ready(process, f"http://127.0.0.1:{ops_port}/readyz")
        yield process


async def _ready(process: psutil.Process, url: str) -> None:
    async with asyncio.timeout(READY_WITHIN):
        while not await asyncio.to_thread(_answers, url):
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                raise RuntimeError("a process has ended before it was ready; its last words are above")
            await asyncio.sleep(0.1)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
