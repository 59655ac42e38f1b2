"""`memoro dev` as a process of its own: started, stopped, and with anything in it killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import psutil
import pytest
from redis.asyncio import Redis

from memoro_core.embedded.leftovers import POSTGRES_NAMES, REDIS_NAMES, servers_in, services_of
from memoro_core.embedded.ports import free_port
from memoro_core.embedded.readiness import is_ready
from tests.support import run_stub_dev
from tests.support.stacks import temporary_data_dir

START = 30.0

pytestmark = pytest.mark.chaos


@dataclass(slots=True)
class Dev:
    """A running `memoro dev` with stubs, and what it announced."""

    folder: Path
    process: Process
    line: dict[str, str] = field(default_factory=dict)

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    def stub(self, name: str) -> list[int]:
        """The pids of a stub and its child, of its latest start."""
        return [int(pid) for pid in (self.folder / name).read_text().split()]

    async def announced(self) -> None:
        assert self.process.stdout is not None
        async with asyncio.timeout(START):
            text = await self.process.stdout.readline()
        assert text, await self.errors()
        self.line = json.loads(text)

    async def ended(self) -> int:
        async with asyncio.timeout(START):
            return await self.process.wait()

    async def errors(self) -> str:
        assert self.process.stderr is not None
        return (await self.process.stderr.read()).decode()

    def processes(self) -> list[psutil.Process]:
        """Everything that belongs to it but itself."""
        data = self.data_dir
        return [
            *services_of(data),
            *servers_in(data / "postgres" / "data", POSTGRES_NAMES),
            *servers_in(data / "redis" / "data", REDIS_NAMES),
        ]


@asynccontextmanager
async def dev(folder: Path, port: int = 0, ops_port: int = 0, server: tuple[str, ...] = ()) -> AsyncIterator[Dev]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, run_stub_dev.__file__, str(folder / "data"), str(port), str(ops_port), str(folder), *server),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        start_new_session=True,
    )
    running = Dev(folder, process)
    try:
        yield running
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await running.ended()
        await running.errors()


@pytest.fixture
def folder() -> Iterator[Path]:
    with temporary_data_dir() as path:
        yield path


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(START):
        while not await condition():
            await asyncio.sleep(0.05)


async def write_row(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE IF NOT EXISTS kept (id int); INSERT INTO kept VALUES (1)")
    await connection.close()


async def count_rows(url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval("SELECT count(*) FROM kept"))
    finally:
        await connection.close()


def owner_url(running: Dev) -> str:
    password = (running.data_dir / "postgres" / "owner_password").read_text()
    address = running.line["database_url"].rpartition("@")[2]
    return f"postgresql://postgres:{password}@{address}"


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2].partition("/")[0])


async def test_announces_on_one_line_stops_in_order_and_keeps_keys_and_data(folder: Path) -> None:
    async with dev(folder) as first:
        await first.announced()
        assert list(first.line) == ["endpoint", "ops", "database_url", "redis_url", "api_key", "admin_key"]
        assert await is_ready(port_of(first.line["ops"]))
        assert (first.data_dir / "keys.json").stat().st_mode & 0o777 == 0o600
        await write_row(owner_url(first))

        async def both_run() -> bool:
            return all((folder / name).exists() for name in ("server", "worker"))

        # The line says that the server is ready; the worker may still be starting.
        await until(both_run)
        stubs = first.stub("server") + first.stub("worker")
        first.process.send_signal(signal.SIGINT)
        assert await first.ended() == 0
        assert first.process.stdout is not None
        assert await first.process.stdout.read() == b""
        assert (folder / "server.stopped").exists()
        assert (folder / "worker.stopped").exists()
        assert not first.processes()
        assert not any(psutil.pid_exists(pid) for pid in stubs)
    async with dev(folder) as second:
        await second.announced()
        assert (second.line["api_key"], second.line["admin_key"]) == (first.line["api_key"], first.line["admin_key"])
        assert second.line["database_url"] == first.line["database_url"]
        assert await count_rows(owner_url(second)) == 1


async def test_two_run_side_by_side_on_one_wanted_ops_port(folder: Path) -> None:
    with temporary_data_dir() as other, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ops_port = taken.getsockname()[1]
        async with dev(folder, ops_port=ops_port) as one, dev(other, ops_port=ops_port) as two:
            await asyncio.gather(one.announced(), two.announced())
            ports = {port_of(running.line["ops"]) for running in (one, two)}
            assert len(ports | {ops_port}) == 3
            assert len({running.line["endpoint"] for running in (one, two)}) == 2


async def test_two_that_want_the_same_free_ops_port_at_once_each_get_one(folder: Path) -> None:
    with temporary_data_dir() as other:
        ops_port = free_port()
        async with dev(folder, ops_port=ops_port) as one, dev(other, ops_port=ops_port) as two:
            await asyncio.gather(one.announced(), two.announced())
            ports = [port_of(running.line["ops"]) for running in (one, two)]
            assert ports[0] != ports[1]
            assert [await is_ready(port) for port in ports] == [True, True]


async def test_a_second_on_the_same_data_is_told_who_holds_it(folder: Path) -> None:
    async with dev(folder) as first:
        await first.announced()
        async with dev(folder) as second:
            assert await second.ended() == 1
            assert f"process {first.process.pid}" in await second.errors()
        assert await is_ready(port_of(first.line["ops"]))


async def test_a_taken_port_is_told(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        async with dev(folder, port=taken.getsockname()[1]) as running:
            assert await running.ended() == 1
            assert f":{taken.getsockname()[1]}" in await running.errors()
            assert not running.processes()


async def test_a_server_that_cannot_start_is_given_up(folder: Path) -> None:
    async with dev(folder, server=(sys.executable, "-c", "raise SystemExit('no such setting')")) as running:
        assert await running.ended() == 1
        errors = await running.errors()
        assert "no such setting" in errors
        assert "again and again" in errors
        assert not running.processes()


@pytest.mark.parametrize("name", ["server", "worker"])
async def test_a_killed_service_comes_back_and_its_children_go(folder: Path, name: str) -> None:
    async with dev(folder) as running:
        await running.announced()
        await until(lambda: asyncio.to_thread((folder / name).exists))
        pid, child = running.stub(name)
        os.kill(pid, signal.SIGKILL)

        async def is_back() -> bool:
            return running.stub(name)[0] != pid and not is_alive(child)

        await until(is_back)
        assert await is_ready(port_of(running.line["ops"]))


async def test_killed_servers_come_back_on_the_same_ports_with_their_data(folder: Path) -> None:
    async with dev(folder) as running:
        await running.announced()
        await write_row(owner_url(running))
        async with Redis.from_url(running.line["redis_url"]) as client:
            await client.set("kept", "yes")
            await asyncio.sleep(1.5)  # the append-only file is synced every second
        killed = [process.pid for process in running.processes() if process.name() in POSTGRES_NAMES | REDIS_NAMES]
        for pid in killed:
            os.kill(pid, signal.SIGKILL)

        async def is_back() -> bool:
            try:
                async with Redis.from_url(running.line["redis_url"]) as client:
                    return await client.get("kept") == b"yes" and await count_rows(owner_url(running)) == 1
            except Exception:  # noqa: BLE001 - whatever it says, it is not back yet
                return False

        await until(is_back)


async def test_killed_itself_it_leaves_nothing_that_the_next_start_minds(folder: Path) -> None:
    async with dev(folder) as first:
        await first.announced()
        await write_row(owner_url(first))
        first.process.kill()
        await first.ended()
    async with dev(folder) as second:
        await second.announced()
        assert await count_rows(owner_url(second)) == 1
        assert second.line["api_key"] == first.line["api_key"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
async def test_killed_itself_everything_ends_without_another_start(folder: Path) -> None:
    async with dev(folder) as running:
        await running.announced()
        running.process.kill()
        await running.ended()

        async def is_gone() -> bool:
            return not [process for process in running.processes() if is_alive(process.pid)]

        await until(is_gone)
        assert (folder / "server.stopped").exists()


async def test_interrupted_at_any_moment_of_the_start_nothing_stays(folder: Path) -> None:
    for seconds in (0.2, 0.5, 0.8, 1.1):
        async with dev(folder) as running:
            await asyncio.sleep(seconds)
            running.process.send_signal(signal.SIGTERM)
            await running.ended()
            assert not running.processes()
    async with dev(folder) as running:
        await running.announced()


async def test_a_second_signal_ends_all_at_once(folder: Path) -> None:
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('here'); time.sleep(600)"
    async with dev(folder, server=(sys.executable, "-u", "-c", stubborn)) as running:
        assert running.process.stderr is not None
        async with asyncio.timeout(START):
            while b"here" not in await running.process.stderr.readline():
                continue
        running.process.send_signal(signal.SIGINT)
        await asyncio.sleep(0.5)
        assert running.process.returncode is None
        running.process.send_signal(signal.SIGINT)
        async with asyncio.timeout(5):
            assert await running.process.wait() == 130
        assert not running.processes()


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and that nobody reaps does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
