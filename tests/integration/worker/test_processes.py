"""Worker processes as their operator has them."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psutil

from memoro_core.settings import Settings
from tests.support.jobs import until

ROOT = Path(__file__).resolve().parents[3]


def free_ports(count: int) -> int:
    """The first of so many ports in a row that are free."""
    for first in range(20_000 + os.getpid() % 10_000, 60_000, count):
        sockets = []
        try:
            sockets = [socket.create_server(("127.0.0.1", first + number)) for number in range(count)]
        except OSError:
            continue
        finally:
            for one in sockets:
                one.close()
        if len(sockets) == count:
            return first
    raise AssertionError("no free ports")


@asynccontextmanager
async def worker(settings: Settings, port: int, *arguments: str) -> AsyncIterator[Process]:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("MEMORO_")},
        "MEMORO_DATABASE_URL": str(settings.database_url),
        "MEMORO_REDIS_URL": settings.redis_url,
        "MEMORO_WORKER_OPS_PORT": str(port),
        # Nobody reads what it says until it ends.
        "MEMORO_LOG_LEVEL": "error",
        "MEMORO_EXTRACTION_PROVIDER": "none",
        "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("core", "worker")),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "memoro_worker", *arguments, env=environment, stdout=PIPE, stderr=PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def is_ready(port: int) -> bool:
    async with httpx.AsyncClient() as client:
        try:
            return (await client.get(f"http://127.0.0.1:{port}/readyz", timeout=5)).status_code == 200
        except httpx.TransportError:
            return False


def children_of(process: Process) -> list[psutil.Process]:
    return psutil.Process(process.pid).children()


async def test_a_worker_becomes_ready_and_stops_when_it_is_asked_to(settings: Settings) -> None:
    port = free_ports(1)
    async with worker(settings, port) as process:
        await until(lambda: is_ready(port))
        async with httpx.AsyncClient() as client:
            metrics = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
        assert "memoro_jobs_running 0.0" in metrics
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 45) == 0


async def test_a_killed_child_is_replaced_and_all_stop_together(settings: Settings) -> None:
    port = free_ports(2)
    async with worker(settings, port, "--processes", "2") as process:
        for number in range(2):
            await until(functools.partial(is_ready, port + number))
        children = children_of(process)
        assert len(children) == 2
        children[0].kill()

        async def replaced() -> bool:
            alive = {child.pid for child in children_of(process)}
            return len(alive - {children[0].pid}) == 2

        await until(replaced)
        for number in range(2):
            await until(functools.partial(is_ready, port + number))
        children = children_of(process)
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 45) == 0
        assert not any(child.is_running() for child in children)


async def test_children_end_with_a_parent_that_is_killed(settings: Settings) -> None:
    port = free_ports(2)
    async with worker(settings, port, "--processes", "2") as process:
        await until(lambda: is_ready(port))
        children = children_of(process)
        process.send_signal(signal.SIGKILL)
        await process.wait()

        async def gone() -> bool:
            return not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)

        await until(gone)


async def test_bad_settings_are_told_in_words(settings: Settings) -> None:
    async with worker(settings, 70_000) as process:
        _, said = await asyncio.wait_for(process.communicate(), 20)
        assert process.returncode == 2
        assert b"worker_ops_port" in said
        assert b"Traceback" not in said


async def test_a_database_that_is_away_ends_the_worker_with_a_reason(settings: Settings) -> None:
    away = settings.model_copy(update={"database_url": "postgresql://nobody@127.0.0.1:1/memoro"})
    async with worker(away, 0) as process:
        _, said = await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode == 1
        assert b"can't be reached" in said
