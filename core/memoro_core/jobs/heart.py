"""Heartbeats: keep the leases of runs, from a thread of their own, so that a blocked event loop costs no job."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog

from memoro_core.clock import Clock
from memoro_core.errors import MemoroError
from memoro_core.jobs.model import Claim, JobRef
from memoro_core.jobs.run import Run

_log = structlog.get_logger(__name__)
_LOOKS_PER_BEAT: Final = 4
"""How often, between two heartbeats, cancelled jobs are looked for: within a second by default."""
_MISSED_BEATS: Final = 2
"""A run that has just written its end holds its job no longer either: it is given until the next beat."""


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """A process that runs jobs, as it shows itself. `concurrency` is how many jobs it may run at once."""

    id: str
    host: str
    process_id: int
    version: str
    concurrency: int
    started_at: datetime


class LeaseStore(Protocol):
    """Leases and signs of life in the database."""

    async def extend(self, claims: Sequence[Claim], *, lease_until: datetime) -> Mapping[JobRef, bool]:
        """Heartbeat: the claims that still hold, and whether their lease is extended: not while the run writes."""
        ...

    async def cancel_requests(self, claims: Sequence[Claim]) -> Sequence[JobRef]:
        """Which of these running jobs are asked to cancel."""
        ...

    async def seen(self, worker: WorkerIdentity, *, stopping: bool, now: datetime) -> None:
        """Shows that a worker lives."""
        ...

    async def gone(self, worker_id: str) -> None:
        """Takes a worker off the list."""
        ...


OpenLeaseStore = Callable[[], AbstractAsyncContextManager[LeaseStore]]
"""Opens a store on connections of its own, in the event loop that it is called in."""


class Heart:
    """Extends the leases of all runs that are added; tells a run when it has lost its job, or is to be cancelled.

    With `worker`, the process is on the list of those that take jobs. Times are in seconds. Works in a thread with an
    event loop and a connection of its own, opened when there is first something to do; the runs are told in the loop
    that entered the block.
    """

    def __init__(
        self, open_store: OpenLeaseStore, clock: Clock, *, lease: float, interval: float, worker: WorkerIdentity | None
    ) -> None:
        self._open_store = open_store
        self._clock = clock
        self._lease = timedelta(seconds=lease)
        self._interval = interval
        self._worker = worker
        self._runs: dict[JobRef, Run] = {}
        self._missed: dict[Run, int] = {}
        self._stopping = False
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._alarm: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        """What ends the thread's pauses."""

    async def __aenter__(self) -> Heart:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._live, name="memoro-heart", daemon=True)
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ended.set()
        if self._alarm is not None:
            _call(self._alarm[0], self._alarm[1].set)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def add(self, run: Run) -> None:
        """Keeps a run's lease from now on."""
        self._runs[run.claim.ref] = run

    def remove(self, run: Run) -> None:
        """Keeps it no longer."""
        if self._runs.get(run.claim.ref) is run:
            del self._runs[run.claim.ref]

    def stop_taking(self) -> None:
        """Shows from now on that the process takes no more jobs."""
        self._stopping = True

    def _live(self) -> None:
        asyncio.run(self._beat_for_ever())

    async def _beat_for_ever(self) -> None:
        alarm = asyncio.Event()
        self._alarm = asyncio.get_running_loop(), alarm
        pause = self._interval / _LOOKS_PER_BEAT
        next_beat = time.monotonic()
        async with AsyncExitStack() as opened:
            store: LeaseStore | None = None
            while not self._ended.is_set():
                beating = time.monotonic() >= next_beat
                if self._runs or (beating and self._worker):
                    try:
                        # Rather once more, soon, than to wait for a database that hangs.
                        async with asyncio.timeout(self._interval):
                            if store is None:
                                store = await opened.enter_async_context(self._open_store())
                            whole = await self._beat(store) if beating else await self._look(store)
                    except (MemoroError, TimeoutError) as error:
                        _log.warning("heartbeat_failed", reason=str(error) or "timeout")
                    except Exception:  # noqa: BLE001 - a heartbeat that fails must not be the last
                        _log.exception("heartbeat_failed")
                    else:
                        if beating and whole:
                            next_beat = time.monotonic() + self._interval
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await alarm.wait()
            if store is not None and self._worker is not None:
                with contextlib.suppress(MemoroError, TimeoutError):
                    async with asyncio.timeout(self._interval):
                        await store.gone(self._worker.id)

    async def _beat(self, store: LeaseStore) -> bool:
        """Whether all leases are extended; else it should soon be tried again."""
        now = self._clock.now()
        runs = self._runs.copy()
        kept: Mapping[JobRef, bool] = {}
        if runs:
            kept = await store.extend([run.claim for run in runs.values()], lease_until=now + self._lease)
            lost = [runs[ref] for ref in runs.keys() - kept.keys()]
            self._missed = {run: self._missed.get(run, 0) + 1 for run in lost}
            for run, missed in self._missed.items():
                if missed >= _MISSED_BEATS:
                    self._tell(run.lose)
            await self._look(store)
        if self._worker is not None:
            await store.seen(self._worker, stopping=self._stopping, now=now)
        return all(kept.values())

    async def _look(self, store: LeaseStore) -> bool:
        runs = self._runs.copy()
        for ref in await store.cancel_requests([run.claim for run in runs.values()]):
            self._tell(runs[ref].cancel)
        return True

    def _tell(self, what: Callable[[], None]) -> None:
        if self._loop is not None:
            _call(self._loop, what)


def _call(loop: asyncio.AbstractEventLoop, what: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended, and all that was in it
        loop.call_soon_threadsafe(what)
