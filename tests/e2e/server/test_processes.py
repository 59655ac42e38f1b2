"""`python -m memoro_server`, as an operator starts it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import urllib.error
import urllib.request
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from prometheus_client.parser import text_string_to_metric_families

from memoro_core.embedded.ports import free_port
from memoro_core.settings import Settings

pytestmark = pytest.mark.e2e
START = 60.0


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
        try:
            async with asyncio.timeout(START):
                while not await holds():
                    assert self.process.returncode is None, f"the server ended before: {what}"
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"not within {START} s: {what}") from None

    async def ready(self) -> bool:
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


async def test_one_process_serves_and_stops_when_told(settings: Settings) -> None:
    async with running(settings) as server:
        assert await server.probe() == health_pb2.HealthCheckResponse.SERVING
        assert (await server.ops("/healthz"))[0] == 200
        assert await server.total("memoro_server_calls_total", code="OK") == 1
        assert server.children() == []
        server.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        assert await server.probe() == health_pb2.HealthCheckResponse.NOT_SERVING
        assert (await server.ops("/readyz"))[0] == 503
        async with asyncio.timeout(20):
            assert await server.process.wait() == 0


async def test_several_processes_share_the_port_and_speak_as_one(settings: Settings) -> None:
    async with running(settings, "--processes", "2") as server:
        for _ in range(20):
            assert await server.probe() == health_pb2.HealthCheckResponse.SERVING
        assert await server.total("memoro_server_calls_total", code="OK") == 20
        assert await server.total("memoro_server_serving") == 2
        first, second = server.children()

        os.kill(first, signal.SIGKILL)
        await server.until(lambda: _not(server.ready()), "the loss is noticed")
        await server.until(server.ready, "ready again")
        assert second in server.children()
        assert first not in server.children()
        assert await server.total("memoro_server_serving") == 2
        assert await server.total("memoro_server_calls_total", code="OK") == 20

        children = server.children()
        server.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            assert await server.process.wait() == 0
        assert not any(Path(f"/proc/{pid}").exists() for pid in children)


async def _not(holds: Any) -> bool:
    return not await holds


async def test_processes_whose_supervisor_is_killed_end_by_themselves(settings: Settings) -> None:
    async with running(settings, "--processes", "2", MEMORO_DRAIN_NOTICE="0") as server:
        children = server.children()
        server.process.kill()
        async with asyncio.timeout(20):
            while any(Path(f"/proc/{pid}").exists() for pid in children):
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("processes", ["1", "2"])
async def test_a_taken_port_is_said(settings: Settings, processes: str) -> None:
    async with running(settings) as server:
        code, said = await _fails(settings, "--processes", processes, MEMORO_GRPC_PORT=str(server.port))
    assert code == 1
    assert str(server.port) in said


async def test_a_bad_setting_is_said_without_its_value(settings: Settings) -> None:
    code, said = await _fails(settings, MEMORO_DATABASE_URL="mysql://someone:hunter2@localhost/memoro")
    assert code == 2
    assert "database_url" in said.lower()
    assert "hunter2" not in said


async def test_a_database_that_is_away_is_said(settings: Settings) -> None:
    code, said = await _fails(settings, MEMORO_DATABASE_URL=f"postgresql://nobody@127.0.0.1:{free_port()}/memoro")
    assert code == 1
    assert "can't be reached" in said
    assert "Traceback" not in said


async def _fails(settings: Settings, *arguments: str, **changes: str) -> tuple[int, str]:
    command = (sys.executable, "-m", "memoro_server", *arguments)
    variables = dict(environment(settings, **changes))
    process = await asyncio.create_subprocess_exec(*command, env=variables, stderr=PIPE)
    async with asyncio.timeout(START):
        _, said = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()
