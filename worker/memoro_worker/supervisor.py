"""Several worker processes under one."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from memoro_core.processes import keep_running
from memoro_core.settings import Settings

_MARGIN: Final = 5.0
"""Seconds beyond its own grace after which a child that was asked to end is killed."""


class Supervisor:
    """Keeps `worker_processes` children running until SIGTERM or SIGINT.

    Operations of child k are on `worker_ops_port` + k (0 stays any free port). A child ends when this process does: it
    reads the end of a pipe.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def run(self) -> int:
        """The exit code: 0."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for stop_signal in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(stop_signal, stop.set)
        grace = self._settings.drain_grace + _MARGIN
        async with asyncio.TaskGroup() as tasks:
            keepers = [
                tasks.create_task(keep_running(partial(self._start, number), grace=grace))
                for number in range(self._settings.worker_processes)
            ]
            await stop.wait()
            for keeper in keepers:
                keeper.cancel()
        return 0

    @asynccontextmanager
    async def _start(self, number: int) -> AsyncIterator[Process]:
        port = self._settings.worker_ops_port
        yield await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "memoro_worker", "--child"),
            env={
                **os.environ,
                "MEMORO_WORKER_PROCESSES": "1",
                "MEMORO_WORKER_OPS_PORT": str(port + number if port else 0),
            },
            stdin=PIPE,
            # Ctrl-C comes from here, in order, and not from the terminal as well.
            start_new_session=True,
        )
