"""`memoro dev`: PostgreSQL, Redis, a server and a worker on one data directory, kept running until Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from memoro_core.embedded.data_dir import held_data_dir
from memoro_core.embedded.errors import EmbeddedError, PortTakenError, StartFailedError
from memoro_core.embedded.ports import LOOPBACK, free_port, is_free
from memoro_core.embedded.private_file import write_private
from memoro_core.embedded.readiness import is_ready
from memoro_core.embedded.stack import Stack, kill_all_in, stack_in
from memoro_core.embedded.supervision import Service, keep_server_running
from memoro_core.errors import MemoroError
from memoro_core.postgres.migration_errors import MigrationError
from memoro_core.settings import Settings

logger = logging.getLogger(__name__)

READY_TIMEOUT = 60.0
READY_POLL = 0.05
CRASHES_BEFORE_READY = 3
# Above what a server itself allows calls under way, so that it is not killed while it drains.
GRACE_MARGIN = 5.0

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
EXPECTED = (EmbeddedError, MigrationError, MemoroError)
FAILED = 1
FORCED = 130


@dataclass(frozen=True, slots=True)
class DevKeys:
    """The keys of the tenant `dev`: one to use the service, one to administer it."""

    api_key: str
    admin_key: str


Provision = Callable[[Settings, DevKeys | None], Awaitable[DevKeys]]
"""Sees to the tenant `dev` in a migrated database, and to its keys: those given, from last time, or new ones."""


@dataclass(frozen=True, slots=True)
class DevOptions:
    """What `memoro dev` was asked for. Port 0 is any free port; a taken operations port gives way to a free one."""

    data_dir: Path
    port: int = 50051
    ops_port: int = 8081
    worker_ops_port: int = 8082
    processes: int = 1
    workers: int = 1
    server_command: tuple[str, ...] = (sys.executable, "-m", "memoro_server")
    worker_command: tuple[str, ...] = (sys.executable, "-m", "memoro_worker")


async def run_dev(options: DevOptions, provision: Provision, *, out: TextIO | None = None) -> int:
    """Run everything until SIGINT, SIGTERM or SIGHUP; the exit code.

    Once the server is ready, one line of JSON goes to `out` (standard output): `endpoint`, `ops`, `database_url`,
    `redis_url`, `api_key`, `admin_key`. Everything else goes to the log and to standard error. The first signal stops
    all in order (0), a second one at once (130). Whatever is killed meanwhile is started again. 1 when the start fails.
    """
    session = _Session(options, provision, out or sys.stdout)
    running = asyncio.create_task(session.run())
    signals = 0

    def on_signal() -> None:
        nonlocal signals
        signals += 1
        if signals == 1:
            logger.info("stopping; once more to stop at once")
            running.cancel()
        else:
            session.kill()

    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, on_signal)
    try:
        await running
    except asyncio.CancelledError:
        if signals == 0:
            raise
    except EXPECTED as error:
        logger.error("%s", error)
        return FAILED
    except BaseExceptionGroup as group:
        expected, others = group.split(EXPECTED)
        if expected is None or others is not None:
            raise
        logger.error("%s", "\n".join(str(error) for error in expected.exceptions))
        return FAILED
    finally:
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)
    return FORCED if signals > 1 else 0


class _Session:
    """One run of `memoro dev`."""

    def __init__(self, options: DevOptions, provision: Provision, out: TextIO) -> None:
        self._options = options
        self._provision = provision
        self._out = out
        self._ops_port = options.ops_port
        self._announced = False
        self._directory: Path | None = None

    async def run(self) -> None:
        """Start everything in order, announce it, and keep it running until cancelled."""
        with held_data_dir(self._options.data_dir) as directory:
            self._directory = directory
            async with stack_in(directory) as stack:
                await self._run_on(stack)

    async def _run_on(self, stack: Stack) -> None:
        if self._options.port and not is_free(self._options.port):
            raise PortTakenError(f"({LOOPBACK}:{self._options.port}; choose another with --port.)")
        port = self._options.port or free_port()
        settings = Settings.model_validate(
            {
                "database_url": stack.database_url,
                "migration_database_url": stack.owner_url,
                "redis_url": stack.redis_url,
            }
        )
        keys = await self._keys(settings, stack.data_dir / "keys.json")
        grace = settings.drain_grace + GRACE_MARGIN
        server = Service(
            "server",
            self._options.server_command,
            lambda: self._server_environment(stack, port),
            mark=stack.data_dir,
            grace=grace,
        )
        worker = Service(
            "worker",
            self._options.worker_command,
            lambda: self._worker_environment(stack),
            mark=stack.data_dir,
            grace=grace,
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(keep_server_running("PostgreSQL", stack.postgres))
            tasks.create_task(keep_server_running("Redis", stack.redis))
            tasks.create_task(server.keep_running())
            await self._until_ready(server)
            self._announce(stack, port, keys)
            # Only now, so that the loading of its models does not hold the server up. Jobs wait for it meanwhile.
            tasks.create_task(worker.keep_running())

    def kill(self) -> None:
        """End all that runs at once; PostgreSQL and Redis recover at the next start."""
        if self._directory is not None:
            kill_all_in(self._directory)

    async def _keys(self, settings: Settings, file: Path) -> DevKeys:
        stored = _stored_keys(file)
        keys = await self._provision(settings, stored)
        if keys != stored:
            write_private(file, json.dumps(asdict(keys)))
        return keys

    def _environment(self, stack: Stack) -> dict[str, str]:
        """This environment, and where things are; how the owner enters the database is not for services to know."""
        kept = {name: value for name, value in os.environ.items() if name != "MEMORO_MIGRATION_DATABASE_URL"}
        return {
            **kept,
            "MEMORO_DATABASE_URL": stack.database_url,
            "MEMORO_REDIS_URL": stack.redis_url,
            "MEMORO_GRPC_HOST": LOOPBACK,
            "MEMORO_OPS_HOST": LOOPBACK,
        }

    def _server_environment(self, stack: Stack, port: int) -> dict[str, str]:
        # Once announced the port stays; before, another program, perhaps a second `memoro dev`, may have been quicker.
        if not self._announced:
            self._ops_port = free_port(self._ops_port)
        return {
            **self._environment(stack),
            "MEMORO_GRPC_PORT": str(port),
            "MEMORO_SERVER_OPS_PORT": str(self._ops_port),
            "MEMORO_PROCESSES": str(self._options.processes),
        }

    def _worker_environment(self, stack: Stack) -> dict[str, str]:
        return {
            **self._environment(stack),
            "MEMORO_WORKER_OPS_PORT": str(free_port(self._options.worker_ops_port)),
            "MEMORO_WORKER_PROCESSES": str(self._options.workers),
        }

    async def _until_ready(self, server: Service) -> None:
        try:
            async with asyncio.timeout(READY_TIMEOUT):
                while not (await is_ready(self._ops_port) and server.listens_on(self._ops_port)):
                    if server.crashes >= CRASHES_BEFORE_READY:
                        raise StartFailedError("The server ended again and again; what it said is above.")
                    await asyncio.sleep(READY_POLL)
        except TimeoutError:
            raise StartFailedError(f"The server was not ready after {READY_TIMEOUT:.0f} s.") from None

    def _announce(self, stack: Stack, port: int, keys: DevKeys) -> None:
        self._announced = True
        line = {
            "endpoint": f"{LOOPBACK}:{port}",
            "ops": f"http://{LOOPBACK}:{self._ops_port}",
            "database_url": stack.database_url,
            "redis_url": stack.redis_url,
            **asdict(keys),
        }
        print(json.dumps(line), file=self._out, flush=True)


def _stored_keys(file: Path) -> DevKeys | None:
    return DevKeys(**json.loads(file.read_text())) if file.exists() else None
