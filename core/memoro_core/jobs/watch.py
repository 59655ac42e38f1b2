"""Following a job: every event once and in order, from the live tail when it is there, else from the database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import structlog

from memoro_core.errors import MemoroError
from memoro_core.ids import JobId, TenantId
from memoro_core.jobs.model import Job, JobEvent, JobRef
from memoro_core.jobs.ports import EventSubscription, EventTail, JobStore
from memoro_core.jobs.resume import resume_token, resume_token_expired, resumed_seq
from memoro_core.jobs.service import job_not_found
from memoro_core.tasks import end_task

_EVENTS_PER_READ: Final = 200
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class WatchMessage:
    """One message of a watch: a snapshot, a change, or None when nothing happened for a while.

    `token` stands behind the message; `sequence` is the number of the latest event that has been told.
    """

    event: Job | JobEvent | None
    token: str
    sequence: int


@dataclass(slots=True)
class _Watch:
    ref: JobRef
    inbox: EventSubscription
    position: int = 0


class JobWatcher:
    """Watches of this process. `heartbeat` and `poll` are in seconds.

    What the live tail loses shows as a gap in the numbers, which the database fills. One statement for all watches asks
    every `poll` seconds whether one has fallen behind, so that they also go on while Redis is away.
    """

    def __init__(self, store: JobStore, tail: EventTail, *, heartbeat: float, poll: float = 2.0) -> None:
        self._store = store
        self._tail = tail
        self._heartbeat = heartbeat
        self._poll = poll
        self._watches: set[_Watch] = set()
        self._poller: asyncio.Task[None] | None = None

    @property
    def open_watches(self) -> int:
        """How many watches are open."""
        return len(self._watches)

    async def close(self) -> None:
        """Ends what looks after the watches, which their callers have ended."""
        if self._poller is not None:
            await end_task(self._poller)

    async def watch(
        self, tenant_id: TenantId, job_id: JobId, resume_token: str | None = None
    ) -> AsyncGenerator[WatchMessage, None]:
        """Without a token a snapshot first, then each event in order; ends after the one with the final state.

        That one always comes, also for a job that has ended before. Raises JOB_NOT_FOUND, RESUME_TOKEN_INVALID,
        RESUME_TOKEN_EXPIRED, and UNAVAILABLE when the database is away.
        """
        resumed = resumed_seq(tenant_id, job_id, resume_token) if resume_token else None
        # The tail first and the row second: nothing can happen in between unseen.
        async with self._tail.subscribe(tenant_id, job_id) as inbox:
            job = await self._store.get(tenant_id, job_id)
            if job is None:
                raise job_not_found(job_id)
            watch = _Watch(JobRef(tenant_id, job_id), inbox, job.sequence if resumed is None else resumed)
            if resumed is None:
                yield _message(watch, job)
            behind = job.state.terminal or watch.position != job.sequence
            with self._watched(watch):
                while True:
                    for event in await self._read(watch, resumed=resumed) if behind else await self._next(watch):
                        watch.position = max(watch.position, event.seq)
                        yield _message(watch, event)
                        if event.state.terminal:
                            return
                    ...


def _message(watch: _Watch, event: Job | JobEvent | None) -> WatchMessage:
    return WatchMessage(event, resume_token(*watch.ref, watch.position), watch.position)
