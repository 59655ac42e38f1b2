"""Real processes of ours, to be signalled and killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from memoro_core.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
SERVER = ("-m", "memoro_server")
WORKER = ("-m", "memoro_worker")
ENDS_WITHIN = 30.0


@dataclass
class Processes:
    """Processes of one kind on one deployment; their output goes to one file."""

    command: Sequence[str]
    settings: Settings
    log: IO[bytes]
    alive: list[Process] = field(default_factory=list)
    unusual: list[Process] = field(default_factory=list)
    """Those that were started with a command or with settings of their own."""

    async def start(self, *command: str, **changes: str) -> Process:
        """One more; with a command of its own, or with other settings (`MEMORO_…`)."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *(command or self.command)),
            env={**environment_of(self.settings), **changes},
            stdout=self.log,
            stderr=self.log,
        )
        self.alive.append(process)
        if command or changes:
            self.unusual.append(process)
        return process

    async def end(self, process: Process, number: signal.Signals = signal.SIGTERM) -> int:
        """Signals a process, and waits for its exit code."""
        self.alive.remove(process)
        if process.returncode is None:
            process.send_signal(number)
        try:
            return await asyncio.wait_for(process.wait(), ENDS_WITHIN)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise


@asynccontextmanager
async def open_processes(command: Sequence[str], settings: Settings, log: Path) -> AsyncIterator[Processes]:
    """No process yet; those that are left at the end are killed."""
    with log.open("ab") as output:
        processes = Processes(command, settings, output)
        try:
            yield processes
        finally:
            for process in list(processes.alive):
                await processes.end(process, signal.SIGKILL)


def environment_of(settings: Settings) -> dict[str, str]:
    """The environment of a process that is to have these settings, as far as they were given, and no others."""
    given = settings.model_dump(mode="json", exclude_unset=True)
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("MEMORO_")},
        **{f"MEMORO_{name.upper()}": str(value) for name, value in given.items()},
        "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("core", "server", "worker", "client", ".")),
    }


@asynccontextmanager
async def running(module: str, settings: Settings, log: Path, **variables: str) -> AsyncIterator[None]:
    """One process, without a model that finds entities, with its lines in a file."""
    environment = {**environment_of(settings), "MEMORO_EXTRACTION_PROVIDER": "none", **variables}
    with log.open("wb") as lines:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, env=environment, stdout=DEVNULL, stderr=lines
        )
    try:
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def lines_of(log: Path, **fields: Any) -> list[dict[str, Any]]:
    """The log lines that have these fields."""
    lines = [json.loads(line) for line in log.read_bytes().splitlines() if line.startswith(b"{")]
    return [line for line in lines if fields.items() <= line.items()]
