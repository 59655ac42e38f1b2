"""Workers that are killed while a provider is at work for them, and replaced in no time."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from memoro_core.settings import Settings
from tests.fakes.openai_server import Moment, Request
from tests.support.processes import ENDS_WITHIN, environment_of
from tests.support.run_forked_workers import FORKED_WORKERS

CALLS_BETWEEN = 12
"""Moments of calls between two deaths, at most."""
ANSWERS_WITHIN = 0.01
"""Seconds that the provider takes from one moment of a call to the next, at most."""
STRIKES_WITHIN = 0.02
"""Seconds from the moment that is chosen to the death: the call may be anywhere from the fence to the settlement."""


@dataclass
class DoomedWorkers:
    """Real processes, known to the provider by their keys. As its `watch`, this kills until `left` is none."""

    parent: Process
    random: Random
    left: int
    doomed: set[int] = field(default_factory=set)
    killed: int = 0
    _countdown: int = 1
    _starting: asyncio.Lock = field(default_factory=asyncio.Lock)
    _heirs: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self, **variables: str) -> int:
        """One that is spared, with settings of its own; its process id."""
        assert self.parent.stdin is not None
        assert self.parent.stdout is not None
        line = " ".join(f"{name}={value}" for name, value in variables.items())
        async with self._starting:
            self.parent.stdin.write(f"{line}\n".encode())
            await self.parent.stdin.drain()
            return int(await self.parent.stdout.readline())

    async def start_doomed(self) -> None:
        """One that is to be killed."""
        self.doomed.add(await self.start())

    async def watch(self, moment: Moment, request: Request) -> None:
        """Draws how long the provider takes, and whether who asks is to die meanwhile."""
        del moment
        worker = int(request.headers["authorization"].rsplit("-", 1)[-1])
        if worker in self.doomed and self.left:
            self._countdown -= 1
            if self._countdown <= 0:
                self._countdown = self.random.randint(1, CALLS_BETWEEN)
                self.left -= 1
                asyncio.get_running_loop().call_later(self.random.uniform(0, STRIKES_WITHIN), self._kill, worker)
        await asyncio.sleep(self.random.uniform(0, ANSWERS_WITHIN))

    async def settle(self) -> None:
        """Returns when every worker that was killed has an heir."""
        while self._heirs:
            await asyncio.gather(*self._heirs)

    def _kill(self, worker: int) -> None:
        if worker not in self.doomed:
            self.left += 1  # it was chosen twice
            return
        self.doomed.remove(worker)
        os.kill(worker, signal.SIGKILL)
        self.killed += 1
        heir = asyncio.create_task(self.start_doomed())
        self._heirs.add(heir)
        heir.add_done_callback(self._heirs.discard)


@asynccontextmanager
async def open_doomed_workers(
    settings: Settings, log: Path, *, kills: int, lots: Random
) -> AsyncIterator[DoomedWorkers]:
    """No worker yet; all that are left at the end are killed."""
    with log.open("ab") as output:
        parent = await asyncio.create_subprocess_exec(
            sys.executable, FORKED_WORKERS, env=environment_of(settings), stdin=PIPE, stdout=PIPE, stderr=output
        )
        workers = DoomedWorkers(parent, lots, kills)
        try:
            yield workers
        finally:
            workers.left = 0
            await workers.settle()
            assert parent.stdin is not None
            parent.stdin.close()
            try:
                await asyncio.wait_for(parent.wait(), ENDS_WITHIN)
            except TimeoutError:
                parent.kill()
                await parent.wait()
