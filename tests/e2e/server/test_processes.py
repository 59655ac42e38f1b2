"""`python -m memoro_server`, as an operator starts it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2

from memoro_core.embedded.ports import free_port
from memoro_core.settings import Settings
from tests.support.server_process import START, environment, running

pytestmark = pytest.mark.e2e


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
