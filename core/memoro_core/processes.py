"""Keeping child processes running: one that ends without being asked is started again."""

from __future__ import annotations

import asyncio
import contextlib
from asyncio.subprocess import Process
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

import structlog

FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 10.0
STEADY: Final = 30.0
"""After so many seconds a process counts as sound, and a crash is followed by a short pause again."""

_log = structlog.get_logger(__name__)


class Pause:
    """How long to wait before the next start: from 0.2 s doubling to 10 s, and from 0.2 s again after a run of 30 s."""

    def __init__(self) -> None:
        self._next = FIRST_PAUSE

    def after(self, ran_for: float) -> float:
        """The pause in seconds after a run of so many seconds."""
        if ran_for >= STEADY:
            self._next = FIRST_PAUSE
        pause, self._next = self._next, min(self._next * 2, LONGEST_PAUSE)
        return pause


async def keep_running(start: Callable[[], AbstractAsyncContextManager[Process]], *, grace: float) -> None:
    """Runs what `start` starts, and again whenever it ends, until cancelled: then it has `grace` seconds to end.

    What `start` gives is left when the process has ended.
    """
    clock = asyncio.get_running_loop().time
    pause = Pause()
    while True:
        started = clock()
        async with start() as process:
            try:
                code = await process.wait()
            finally:
                await end(process, grace=grace)
        wait = pause.after(clock() - started)
        _log.warning("process_ended", pid=process.pid, code=code, restart_in=wait)
        await asyncio.sleep(wait)


async def end(process: Process, *, grace: float) -> None:
    """Asks a process to end, by SIGTERM, and kills it when the grace, in seconds, is over."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(grace):
            await process.wait()
    except TimeoutError:
        _log.error("process_killed", pid=process.pid, grace=grace)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
