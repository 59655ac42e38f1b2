"""Keeping things running: a process or an embedded server that ends without being asked is started again."""

from __future__ import annotations

import asyncio
import logging
import signal
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from memoro_core.embedded.errors import EmbeddedError
from memoro_core.embedded.postgres import EmbeddedPostgres
from memoro_core.embedded.process import end, kill_session, spawn
from memoro_core.embedded.redis import EmbeddedRedis
from memoro_core.processes import Pause

logger = logging.getLogger(__name__)

STANDARD_ERROR = 2


class Service:
    """A child process that is to run until `keep_running` is cancelled, which ends it gracefully.

    Its output goes to standard error. `environment` is asked anew at each start.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Callable[[], Mapping[str, str]],
        *,
        mark: Path,
        grace: float,
    ) -> None:
        self._name = name
        self._command = command
        self._environment = environment
        self._mark = mark
        self._grace = grace
        self._process: Process | None = None
        self.crashes = 0
        """How often it ended without being asked."""

    async def keep_running(self) -> None:
        """Start it, again and again when it ends; on cancellation SIGTERM, and SIGKILL when the grace is over."""
        clock = asyncio.get_running_loop().time
        pause = Pause()
        while True:
            self._process = process = await spawn(
                self._command,
                mark=self._mark,
                environment=self._environment(),
                output=STANDARD_ERROR,
                death_signal=signal.SIGTERM,
            )
            started = clock()
            try:
                code = await process.wait()
            finally:
                await end(process, ((signal.SIGTERM, self._grace),))
            self.crashes += 1
            kill_session(process)
            seconds = pause.after(clock() - started)
            logger.warning("%s ended (%s); starting it again in %.1f s", self._name, _how(code), seconds)
            await asyncio.sleep(seconds)

    def listens_on(self, port: int) -> bool:
        """Whether the process, or a child of it, has the port, rather than another program."""
        if self._process is None or self._process.returncode is not None:
            return False
        try:
            leader = psutil.Process(self._process.pid)
            return any(
                connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
                for process in (leader, *leader.children(recursive=True))
                for connection in process.net_connections("tcp")
            )
        except psutil.Error:
            return False


async def keep_server_running(name: str, server: EmbeddedPostgres | EmbeddedRedis) -> None:
    """Start the embedded server again, on the same port and data, whenever it ends."""
    clock = asyncio.get_running_loop().time
    pause = Pause()
    while True:
        started = clock()
        code = await server.wait()
        while True:
            seconds = pause.after(clock() - started)
            logger.warning("%s ended (%s); starting it again in %.1f s", name, _how(code), seconds)
            await asyncio.sleep(seconds)
            started = clock()
            try:
                await server.start()
            except EmbeddedError as error:
                logger.error("%s", error)
            else:
                break


def _how(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
