"""Several worker processes under one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from typing import Final

import structlog

from memoro_core.settings import Settings

_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 15.0
_HEALTHY: Final = 30.0
"""A child that ran so long does not count as crashing at start."""
_MARGIN: Final = 5.0
"""Seconds beyond its own grace after which a child that was asked to end is killed."""


class Supervisor:
    """Keeps `worker_processes` children running until SIGTERM or SIGINT.

    Operations of child k are on `worker_ops_port` + k (0 stays any free port). A child ends when this process does: it
    reads the end of a pipe.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = asyncio.Event()
        self._logger = structlog.get_logger("memoro.worker.supervisor")

    async def run(self) -> int:
        """The exit code: 0."""
        loop = asyncio.get_running_loop()
        for stop_signal in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(stop_signal, self._stop.set)
        async with asyncio.TaskGroup() as tasks:
            for number in range(self._settings.worker_processes):
                tasks.create_task(self._keep_running(number))
        return 0

    async def _keep_running(self, number: int) -> None:
        port = self._settings.worker_ops_port
        environment = {
            **os.environ,
            "MEMORO_WORKER_PROCESSES": "1",
            "MEMORO_WORKER_OPS_PORT": str(port + number if port else 0),
        }
        pause = _FIRST_PAUSE
        while not self._stop.is_set():
            started = time.monotonic()
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "memoro_worker", "--child"),
                env=environment,
                stdin=asyncio.subprocess.PIPE,
                # Ctrl-C comes from here, in order, and not from the terminal as well.
                start_new_session=True,
            )
            ended = asyncio.create_task(child.wait())
            stopping = asyncio.create_task(self._stop.wait())
            await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if self._stop.is_set():
                await self._end(child)
                return
            pause = _FIRST_PAUSE if time.monotonic() - started > _HEALTHY else min(pause * 2, _LONGEST_PAUSE)
            self._logger.warning("worker_ended", child=number, code=child.returncode, restart_in=pause)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stop.wait()

    async def _end(self, child: asyncio.subprocess.Process) -> None:
        """Asks a child to end, and kills one that takes too long."""
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
            try:
                async with asyncio.timeout(self._settings.drain_grace + _MARGIN):
                    await child.wait()
            except TimeoutError:
                self._logger.warning("worker_killed", pid=child.pid)
                child.kill()
                await child.wait()
