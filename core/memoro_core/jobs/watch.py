"""Following a job: a snapshot, then its events in order, to the last one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import structlog

from memoro_core.errors import MemoroError
from memoro_core.ids import JobId, TenantId
from memoro_core.jobs import resume
from memoro_core.jobs.feed_order import without_overtaken_progress
from memoro_core.jobs.model import Job, JobEvent, JobRef
from memoro_core.jobs.ports import EventSubscription, EventTail, JobStore
from memoro_core.jobs.service import job_not_found
from memoro_core.tasks import end_task

_EVENTS_PER_READ: Final = 200
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class WatchMessage:
    """A snapshot, an event, or None while nothing happens; with the token to go on after it.

    `sequence` is the event's number; of a snapshot or of nothing, that of the latest event told.
    """

    event: Job | JobEvent | None
    token: str
    sequence: int


class JobWatcher:
    """Lets any number of callers follow jobs, while its block is entered. Times are in seconds.

    A reader who is so far behind that a read of the database does not bring him all is not told of progress of a stage
    that a later event of that read has overtaken; of what moves a job he is.

    Events come from the live tail; what it loses shows as a gap in their numbers, and the database fills it. Every
    `poll` seconds one statement for all watches asks whether any has fallen behind, so that they go on while the tail
    is away.
    """

    def __init__(self, store: JobStore, tail: EventTail, *, heartbeat: float, poll: float = 2.0) -> None:
        self._store = store
        self._tail = tail
        self._heartbeat = heartbeat
        self._poll = poll
        self._watches: set[_Watch] = set()
        self._poller: asyncio.Task[None] | None = None

    async def __aenter__(self) -> JobWatcher:
        self._poller = asyncio.create_task(self._look_after())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._poller is not None:
            await end_task(self._poller)

    @property
    def open_watches(self) -> int:
        """How many watches are under way."""
        return len(self._watches)

    async def watch(
        self, tenant_id: TenantId, job_id: JobId, resume_token: str | None = None
    ) -> AsyncGenerator[WatchMessage, None]:
        """The job's messages after `resume_token`, or from a snapshot on; the last is its terminal event, always.

        Raises JOB_NOT_FOUND, RESUME_TOKEN_INVALID, RESUME_TOKEN_EXPIRED, UNAVAILABLE.
        """
        ref = JobRef(tenant_id, job_id)
        told = resume.sequence_of(ref, resume_token) if resume_token else None
        # The tail first, the row second: nothing can happen unseen in between.
        async with self._tail.subscribe(tenant_id, job_id) as inbox:
            job = await self._store.get(tenant_id, job_id)
            if job is None:
                raise job_not_found(job_id)
            watch = _Watch(ref, inbox, job.sequence if told is None else told)
            with self._looked_after(watch):
                if told is None:
                    yield watch.message(job)
                # Also to who comes after it, the terminal event is told.
                events = await self._read(watch) if job.state.terminal or watch.seq != job.sequence else ()
                while True:
                    for event in events:
                        watch.seq = event.seq
                        yield watch.message(event)
                        if event.state.terminal:
                            return
                    try:
                        events = await self._arrive(watch)
                    except TimeoutError:
                        events = ()
                        yield watch.message(None)

    async def _arrive(self, watch: _Watch) -> Sequence[JobEvent]:
        """What comes next, if it is new. Raises TimeoutError when nothing has come for as long as a heartbeat takes."""
        async with asyncio.timeout(self._heartbeat):
            arrived = await watch.inbox.next()
        if arrived is None or arrived.seq > watch.seq + 1:
            return await self._read(watch)
        return (arrived,) if arrived.seq == watch.seq + 1 or arrived.state.terminal else ()

    async def _read(self, watch: _Watch) -> Sequence[JobEvent]:
        """What the database has after the last event told; for an ended job at least its last event."""
        tenant_id, job_id = watch.ref.tenant_id, watch.ref.job_id
        events = await self._store.events_after(tenant_id, job_id, watch.seq, limit=_EVENTS_PER_READ)
        if events and events[0].seq != watch.seq + 1:
            raise resume.token_expired()
        if len(events) == _EVENTS_PER_READ:
            watch.inbox.missed()
            return without_overtaken_progress(events)
        if not events:
            job = await self._store.get(tenant_id, job_id)
            if job is None:
                raise job_not_found(job_id)
            if job.state.terminal:
                # Told before, or numbered lower than what was told: a crash of PostgreSQL takes progress back.
                events = await self._store.events_after(tenant_id, job_id, job.sequence - 1, limit=1)
                if not events:
                    raise resume.token_expired()
        return events

    @contextmanager
    def _looked_after(self, watch: _Watch) -> Iterator[None]:
        self._watches.add(watch)
        try:
            yield
        finally:
            self._watches.discard(watch)

    async def _look_after(self) -> None:
        """Sends watches that have fallen behind to the database."""
        while True:
            await asyncio.sleep(self._poll)
            watches = list(self._watches)
            if not watches:
                continue
            try:
                latest = await self._store.sequences(list({watch.ref for watch in watches}))
            except MemoroError as error:
                _log.warning("watches_not_looked_after", reason=str(error))
                continue
            for watch in watches:
                if latest.get(watch.ref) != watch.seq:
                    watch.inbox.missed()


@dataclass(slots=True, eq=False)
class _Watch:
    """One watch under way; `seq` is the number of the last event told."""

    ref: JobRef
    inbox: EventSubscription
    seq: int

    def message(self, event: Job | JobEvent | None) -> WatchMessage:
        return WatchMessage(event, resume.token(self.ref, self.seq), self.seq)
