"""Starting and ending a child process that must not outlive this one, nor be hit by the terminal's Ctrl-C before it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from memoro_core.embedded import guard
from memoro_core.embedded.account import Account

MARK = "MEMORO_EMBEDDED_IN"
"""The variable, in the environment of everything started here, that names the data directory it was started for."""

Steps = Sequence[tuple[signal.Signals, float]]
"""Signals to send one after the other, each with the seconds to wait for the end that it asks for."""


async def spawn(
    command: Sequence[str],
    *,
    mark: Path,
    environment: Mapping[str, str],
    output: int,
    death_signal: signal.Signals,
    account: Account | None = None,
) -> Process:
    """Start a command in a session of its own, its output going to the file descriptor `output`.

    When this process is gone, or the thread that called this, `death_signal` ends the child; where the kernel cannot
    do that (not Linux), the next start on the same data directory finds it by its mark.
    """
    user, group = (account.uid, account.gid) if account is not None else (-1, -1)
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-I", "-S", guard.__file__, str(os.getpid()), str(int(death_signal)), str(user), str(group)),
        *command,
        stdin=DEVNULL,
        stdout=output,
        stderr=output,
        env={**environment, MARK: str(mark)},
        start_new_session=True,
    )


async def end(process: Process, steps: Steps) -> None:
    """End the process: the steps in turn, then SIGKILL; whatever else is in its session goes with it."""
    if process.returncode is not None:
        return
    try:
        for number, patience in steps:
            with suppress(ProcessLookupError):
                process.send_signal(number)
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await process.wait()
                    return
    finally:
        kill_session(process)
        await process.wait()


def kill_session(process: Process) -> None:
    """SIGKILL to the process and to all that share its session and group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def server_environment() -> dict[str, str]:
    """The environment for PostgreSQL and Redis: nothing that would change what they do, or their logs' language."""
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "LD_LIBRARY_PATH", "TMPDIR"}}
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}
