"""Several server processes on one port: started, watched, started again, and stopped together.

Nothing of gRPC is loaded here: its threads do not survive a fork, and each process needs its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import tempfile
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import partial
from typing import Final

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from memoro_core.errors import unavailable
from memoro_core.ops.http import OpsServer
from memoro_core.processes import keep_running
from memoro_core.settings import Settings
from memoro_core.tasks import end_task

_MARGIN: Final = 5.0
"""What a process gets beyond its own grace before it is killed."""


class Supervisor:
    """Keeps `settings.processes` servers running on `grpc_port`; operations over HTTP speak for all of them.

    Each has its own event loop and its own share of the connections (`SO_REUSEPORT`). Metrics are added up over all;
    `/readyz` wants every one of them to serve. A process that crashes is started again, after a pause that grows while
    it keeps crashing. When the supervisor itself is killed, the processes drain and end.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._serving = [False] * settings.processes
        self._logger = structlog.get_logger("memoro.server")

    async def run(self) -> int:
        """Runs until SIGTERM or SIGINT. The exit code: 1 when a port is taken."""
        try:
            await self._run()
        except OSError as error:
            self._logger.error("the server can't run", reason=str(error))
            return 1
        return 0

    async def _run(self) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        with tempfile.TemporaryDirectory(prefix="memoro-metrics-") as metrics, self._reserved_port() as reserved:
            registry = CollectorRegistry()
            MultiProcessCollector(registry, path=metrics)  # type: ignore[no-untyped-call]
            port = reserved.getsockname()[1]
            ops = OpsServer(self._settings.ops_host, self._settings.server_ops_port, {"serving": self._check}, registry)
            async with ops:
                environment = {
                    **os.environ,
                    "MEMORO_GRPC_PORT": str(port),
                    "PROMETHEUS_MULTIPROC_DIR": metrics,
                }
                grace = self._settings.drain_notice + self._settings.drain_grace + _MARGIN
                async with asyncio.TaskGroup() as tasks:
                    keepers = [
                        tasks.create_task(keep_running(partial(self._start, index, environment, metrics), grace=grace))
                        for index in range(self._settings.processes)
                    ]
                    self._logger.info(
                        "supervising", processes=len(keepers), port=port, ops_port=ops.port, pid=os.getpid()
                    )
                    await stop.wait()
                    for keeper in keepers:
                        keeper.cancel()

    async def _check(self) -> None:
        if not all(self._serving):
            raise unavailable("server")

    @contextlib.contextmanager
    def _reserved_port(self) -> Iterator[socket.socket]:
        """Holds the port, without listening, for as long as the processes come and go."""
        host, port = self._settings.grpc_host, self._settings.grpc_port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            # Fails, as it should, where others share the port already.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise OSError(f"can't listen on {host}:{port}: {error.strerror}") from error
        with socket.socket(family) as reserved:
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            reserved.bind((host, port))
            yield reserved

    @contextlib.asynccontextmanager
    async def _start(self, index: int, environment: Mapping[str, str], metrics: str) -> AsyncIterator[Process]:
        """A server process, followed for as long as it runs."""
        process, line = await _spawn(environment)
        with line:
            follower = asyncio.create_task(self._follow(index, line))
            try:
                yield process
            finally:
                await end_task(follower)
                self._serving[index] = False
                mark_process_dead(process.pid, path=metrics)  # type: ignore[no-untyped-call]

    async def _follow(self, index: int, line: socket.socket) -> None:
        """Notes what the process tells of itself, until it is gone."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError):
            while said := await loop.sock_recv(line, 64):
                self._serving[index] = said.endswith(b"1")
        self._serving[index] = False


async def _spawn(environment: Mapping[str, str]) -> tuple[Process, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "memoro_server",
            "--child",
            str(theirs.fileno()),
            env=dict(environment),
            pass_fds=(theirs.fileno(),),
            start_new_session=True,  # so that Ctrl-C reaches the supervisor alone, which stops them in order
        )
    return process, ours
