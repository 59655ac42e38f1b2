"""Redis, or Valkey, run as a child process on a data directory of ours."""

from __future__ import annotations

import asyncio
import shutil
import signal
from asyncio.subprocess import Process
from pathlib import Path

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from memoro_core.embedded.binaries import redis_program
from memoro_core.embedded.errors import StartFailedError
from memoro_core.embedded.leftovers import REDIS_NAMES, end_leftovers, servers_in
from memoro_core.embedded.ports import LOOPBACK, free_port, remembered_port, wait_until_free
from memoro_core.embedded.private_file import kept_secret, write_private
from memoro_core.embedded.process import end, server_environment, spawn
from memoro_core.embedded.server_log import ServerLog

START_TIMEOUT = 30.0
POLL = 0.02
STOP = ((signal.SIGTERM, 10.0),)

# What Redis and Valkey say when the files cannot be read, whether broken or written by a later version.
UNREADABLE = ("FATAL AOF", "Bad file format", "Unrecoverable error", "RDB format version", "Fatal error loading")


class EmbeddedRedis:
    """One Redis server on 127.0.0.1, with its data, password, port and log in `home`.

    It writes an append-only file, synced every second, and never evicts. Its files are a convenience, for the truth is
    in PostgreSQL: files it cannot read are put aside as `data.broken`, and it starts empty. The port is chosen, and the
    data directory held, as with PostgreSQL.
    """

    def __init__(self, home: Path, *, mark: Path | None = None, port: int | None = None) -> None:
        self._home = home
        self._mark = mark or home
        self._data = home / "data"
        self._port_file = home / "port"
        self._log = ServerLog(home / "redis.log")
        self._fixed_port = port
        self._port: int | None = None
        self._process: Process | None = None

    @property
    def port(self) -> int:
        """The port it listens on; known from the first start on."""
        if self._port is None:
            raise StartFailedError("Redis was never started.")
        return self._port

    @property
    def pid(self) -> int | None:
        """The server's pid while it runs."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    def url(self, database: int = 0) -> str:
        """Where clients connect; holds the password."""
        return f"redis://:{self._password()}@{LOOPBACK}:{self.port}/{database}"

    async def start(self) -> None:
        """Start and return once commands are answered; what a killed run left is cleaned up first.

        Raises `EmbeddedError` with the end of the server's log.
        """
        if self.pid is not None:
            return
        program = redis_program()
        await asyncio.to_thread(self._prepare)
        while True:
            port = await self._choose_port()
            self._log.begin()
            if await self._launch(program, port):
                break
            words = self._log.tail()
            if any(phrase in words for phrase in UNREADABLE) and any(self._data.iterdir()):
                await asyncio.to_thread(self._put_aside)
            # Another program may have taken the port since it was found free.
            elif "Address already in use" not in words:
                raise StartFailedError(f"Redis's last words, in {self._log.file}:\n{words}")
        self._port = port
        write_private(self._port_file, f"{port}\n")

    async def stop(self) -> None:
        """Stop, with everything written; by force when that takes too long."""
        if self._process is not None:
            await end(self._process, STOP)

    async def wait(self) -> int:
        """Wait for the server to end, for whatever reason; its exit code, or minus the signal that killed it."""
        return await self._process.wait() if self._process is not None else 0

    def _password(self) -> str:
        return kept_secret(self._home / "password")

    def _prepare(self) -> None:
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._data.mkdir(mode=0o700, parents=True, exist_ok=True)
        end_leftovers(servers_in(self._data, REDIS_NAMES), STOP)

    def _put_aside(self) -> None:
        broken = self._home / "data.broken"
        shutil.rmtree(broken, ignore_errors=True)
        self._data.rename(broken)
        self._data.mkdir(mode=0o700)

    async def _choose_port(self) -> int:
        fixed = self._port or self._fixed_port
        if fixed is None:
            return free_port(remembered_port(self._port_file))
        return await wait_until_free(fixed)

    async def _launch(self, program: Path, port: int) -> bool:
        """Run the server; whether it came up. Should it end before, its log tells why."""
        configuration = self._home / "redis.conf"
        write_private(configuration, self._configuration(port))
        with self._log.open() as output:
            self._process = process = await spawn(
                [str(program), str(configuration)],
                mark=self._mark,
                environment=server_environment(),
                output=output,
                death_signal=signal.SIGTERM,
            )
        try:
            async with asyncio.timeout(START_TIMEOUT):
                while process.returncode is None and not await self._answers(port):
                    await asyncio.sleep(POLL)
        except BaseException as error:
            await end(process, STOP)
            if isinstance(error, TimeoutError):
                raise StartFailedError(f"Redis took more than {START_TIMEOUT:.0f} s:\n{self._log.tail()}") from error
            raise
        return process.returncode is None

    async def _answers(self, port: int) -> bool:
        """Whether the server on the port is ours, which its password shows, and has loaded its data."""
        client = Redis(host=LOOPBACK, port=port, password=self._password(), retry=Retry(NoBackoff(), 0))
        try:
            async with client:
                await client.ping()
        except (RedisError, OSError):
            return False
        return True

    def _configuration(self, port: int) -> str:
        """The configuration file: there, and not on the command line, because it holds the password."""
        directory = str(self._data).replace("\\", "\\\\").replace('"', '\\"')
        lines = (
            f"bind {LOOPBACK}",
            f"port {port}",
            f"requirepass {self._password()}",
            f'dir "{directory}"',
            "daemonize no",
            "appendonly yes",
            "appendfsync everysec",
            "aof-load-truncated yes",
            'save ""',
            "maxmemory-policy noeviction",
            "maxclients 4000",
            "tcp-backlog 511",
        )
        return "\n".join(lines) + "\n"
