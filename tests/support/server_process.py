"""`python -m memoro_server` in processes of its own, as an operator starts it."""

from __future__ import annotations

import asyncio
import os
import sys
import urllib.error
import urllib.request
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from prometheus_client.parser import text_string_to_metric_families

from memoro_core.embedded.ports import free_port
from memoro_core.settings import Settings

START = 60.0
"""Seconds within which a server serves."""


@dataclass
class Running:
    """A server in processes of its own."""

    process: Process
    port: int
    ops_port: int

    async def ops(self, path: str) -> tuple[int, str]:
        """What operations over HTTP answer; 0 while nobody does."""
        return await asyncio.to_thread(_get, f"http://127.0.0.1:{self.ops_port}{path}")

    async def until(self, holds: Callable[[], Any], what: str) -> None:
        """Waits, as long as the server lives."""
        try:
            async with asyncio.timeout(START):
                while not await holds():
                    assert self.process.returncode is None, f"the server ended before: {what}"
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"not within {START} s: {what}") from None

    async def ready(self) -> bool:
        """Whether calls are welcome."""
        return (await self.ops("/readyz"))[0] == 200

    async def total(self, name: str, **labels: str) -> float:
        """A metric, added up over its other labels."""
        _, text = await self.ops("/metrics")
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return sum(it.value for it in samples if it.name == name and labels.items() <= it.labels.items())

    async def probe(self) -> int:
        """A health check over a connection of its own."""
        options = (("grpc.use_local_subchannel_pool", 1),)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.port}", options=options) as channel:
            stub: Any = HealthStub(channel)
            return int((await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)).status)

    def children(self) -> list[int]:
        """The processes that it has started."""
        text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text("ascii")
        return [int(pid) for pid in text.split()]


def _get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


def environment(settings: Settings, **changes: str) -> Mapping[str, str]:
    """Of a server on free ports."""
    return {
        **os.environ,
        "MEMORO_DATABASE_URL": str(settings.database_url),
        "MEMORO_REDIS_URL": settings.redis_url,
        "MEMORO_GRPC_PORT": str(free_port()),
        "MEMORO_SERVER_OPS_PORT": str(free_port()),
        "MEMORO_DRAIN_NOTICE": "1",
        **changes,
    }


@asynccontextmanager
async def running(settings: Settings, *arguments: str, **changes: str) -> AsyncIterator[Running]:
    """A server that is ready; it is killed at the end, if it has not ended before."""
    variables = environment(settings, **changes)
    command = (sys.executable, "-W", "error", "-m", "memoro_server", *arguments)
    process = await asyncio.create_subprocess_exec(*command, env=dict(variables), stderr=DEVNULL)
    try:
        server = Running(process, int(variables["MEMORO_GRPC_PORT"]), int(variables["MEMORO_SERVER_OPS_PORT"]))
        await server.until(server.ready, "ready")
        yield server
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
