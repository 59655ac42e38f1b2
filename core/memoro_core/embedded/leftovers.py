"""What an earlier run left behind when it was killed: found by what it is, not by remembered pids, and ended.

A pid file can be missing (killed before it was written) or lie (the pid is another program's by now). The mark in a
process's environment cannot, nor can the working directory of PostgreSQL and Redis, which rewrite their environment.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

import psutil

from memoro_core.embedded.process import MARK, Steps

POSTGRES_NAMES = frozenset({"postgres"})
REDIS_NAMES = frozenset({"redis-server", "valkey-server"})
KILL_PATIENCE = 5.0
POLL = 0.02


def servers_in(directory: Path, names: Collection[str]) -> list[psutil.Process]:
    """The processes of these names whose working directory this is."""
    return _matching(lambda process: process.name() in names and Path(process.cwd()) == directory)


def services_of(data_dir: Path) -> list[psutil.Process]:
    """All that was started for this data directory, with all descendants, but for PostgreSQL and Redis."""
    servers = POSTGRES_NAMES | REDIS_NAMES
    return _matching(lambda process: process.environ().get(MARK) == str(data_dir) and process.name() not in servers)


def end_leftovers(processes: list[psutil.Process], steps: Steps) -> None:
    """End the processes: the steps in turn, then SIGKILL. Blocks until they are gone."""
    for number, patience in (*steps, (signal.SIGKILL, KILL_PATIENCE)):
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        processes = _still_alive(processes, patience)
        if not processes:
            return


def _still_alive(processes: list[psutil.Process], patience: float) -> list[psutil.Process]:
    """Those that live on after so many seconds. Orphans that nobody reaps, as in many containers, count as gone."""
    deadline = time.monotonic() + patience
    while processes and time.monotonic() < deadline:
        time.sleep(POLL)
        processes = [process for process in processes if _is_alive(process)]
    return processes


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _matching(wanted: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        # Processes end while one looks, and other users' do not show themselves.
        with suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and wanted(process):
                found.append(process)
    return found
