"""Adding, reading, changing and deleting memories."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import structlog

from memoro_core.batching import Coalescer
from memoro_core.billing.bounds import CostBounds
from memoro_core.clock import Clock
from memoro_core.errors import Reason, etag_mismatch, not_found
from memoro_core.idempotency import Idempotency
from memoro_core.ids import JobId, MemoryId, TenantId, UserId, new_id
from memoro_core.jobs.model import Job, JobRef, JobState, Priority
from memoro_core.jobs.ports import JobStore
from memoro_core.limits.model import Quota
from memoro_core.memory.drafting import draft_job, draft_messages, draft_text
from memoro_core.memory.model import (
    Accepted,
    Memory,
    MemoryFilter,
    MemoryPatch,
    MemoryStatus,
    NewConversation,
    NewMemory,
    ProcessingMode,
)
from memoro_core.memory.ports import Draft, Hinter, JobExecutor, MemoryStore, Replay, Stored
from memoro_core.memory.priority import PriorityRule
from memoro_core.paging import Page, cut, identifier

ACCEPT_BATCH: Final = 128
"""How many concurrent adds of a tenant are stored in one transaction at most; the next gathers while it commits."""
ACCEPT_LINGER: Final = 0.008
"""Seconds that a transaction waits for more adds of a tenant whose last one held several."""
_log: Final = structlog.get_logger(__name__)


class MemoryService:
    """The life of memories, from the call that adds one to the call that deletes it.

    What makes a job is accepted only if the most that it may cost can be set aside: else the call raises
    INSUFFICIENT_CREDITS, or PRICE_UNKNOWN. While a daily budget is used up, the job is DEFERRED instead. What would be
    beyond the tenant's `quota` raises QUOTA_EXCEEDED. Every method raises UNAVAILABLE when the database is away. A call
    that raises has stored nothing.
    """

    def __init__(
        self,
        store: MemoryStore,
        jobs: JobStore,
        hinter: Hinter,
        executor: JobExecutor,
        clock: Clock,
        bounds: CostBounds,
        *,
        priorities: PriorityRule,
        max_attempts: int,
    ) -> None:
        self._store = store
        self._jobs = jobs
        self._hinter = hinter
        self._executor = executor
        self._clock = clock
        self._bounds = bounds
        self._priorities = priorities
        self._max_attempts = max_attempts
        self._accepting: Coalescer[TenantId, Draft, Stored | Replay] = Coalescer(
            store.accept, max_items=ACCEPT_BATCH, linger=ACCEPT_LINGER
        )

    async def create(
        self,
        tenant_id: TenantId,
        new: NewMemory,
        *,
        idempotency: Idempotency | None = None,
        processing: ProcessingMode = ProcessingMode.ASYNC,
        quota: Quota | None = None,
    ) -> Accepted:
        """Stores a text with its job; with SYNC also runs that job, unless it is put off. Raises REQUEST_ID_REUSED."""
        now = self._clock.now()
        job_id = JobId(new_id())
        memory = draft_text(new, job_id, now)
        priority = new.priority or self._priorities.for_text(new.text)
        run_by_caller = processing is ProcessingMode.SYNC
        draft = Draft([memory], self._job(job_id, [memory], priority, now), idempotency, run_by_caller, quota)
        verdict = await self._accepting.submit(tenant_id, draft)
        if isinstance(verdict, Replay):
            return await self._replayed(tenant_id, verdict)
        if run_by_caller and not _put_off(verdict.job):
            job = await self._executor.execute(JobRef(tenant_id, job_id))
            return Accepted(await self._store.get(tenant_id, [memory.id]) or [memory], job)
        return self._queued(tenant_id, verdict)

    async def add_conversation(
        self,
        tenant_id: TenantId,
        new: NewConversation,
        *,
        idempotency: Idempotency | None = None,
        quota: Quota | None = None,
    ) -> Accepted:
        """Stores messages at the end of their conversation, with one job for all. Raises REQUEST_ID_REUSED."""
        now = self._clock.now()
        job_id = JobId(new_id())
        memories = draft_messages(new, job_id, now)
        priority = new.priority or self._priorities.for_conversation(len(memories))
        draft = Draft(memories, self._job(job_id, memories, priority, now), idempotency, quota=quota)
        verdict = await self._store.accept_conversation(tenant_id, draft)
        if isinstance(verdict, Replay):
            return await self._replayed(tenant_id, verdict)
        return self._queued(tenant_id, verdict)

    async def get(self, tenant_id: TenantId, memory_id: MemoryId) -> Memory:
        """One memory. Raises MEMORY_NOT_FOUND."""
        found = await self._store.get(tenant_id, [memory_id])
        if not found:
            raise not_found(Reason.MEMORY_NOT_FOUND, "memory", memory_id)
        return found[0]

    async def list_memories(
        self,
        tenant_id: TenantId,
        user_id: UserId | None,
        memory_filter: MemoryFilter,
        *,
        size: int,
        position: tuple[str, ...] | None,
    ) -> Page[Memory]:
        """Memories that fit, newest first."""
        rows = await self._store.list_memories(
            tenant_id,
            user_id,
            memory_filter,
            limit=size + 1,
            before=MemoryId(identifier(position)) if position else None,
        )
        return cut(rows, size, (str(rows[size - 1].id),) if len(rows) > size else None)

    async def update(
        self,
        tenant_id: TenantId,
        memory_id: MemoryId,
        patch: MemoryPatch,
        *,
        idempotency: Idempotency | None = None,
        quota: Quota | None = None,
    ) -> Accepted:
        """Changes a memory; a new text or time queues a job.

        Raises MEMORY_NOT_FOUND, ETAG_MISMATCH, REQUEST_ID_REUSED.
        """
        if idempotency and (replay := await self._store.find_request(tenant_id, idempotency)):
            return await self._replayed(tenant_id, replay)
        while True:
            old = await self.get(tenant_id, memory_id)
            if patch.version is not None and patch.version != old.version:
                # It may have been this very request, sent twice, that changed it meanwhile.
                if idempotency and (replay := await self._store.find_request(tenant_id, idempotency)):
                    return await self._replayed(tenant_id, replay)
                raise etag_mismatch("memory", patch.version, old.version)
            now = self._clock.now()
            memory = dataclasses.replace(
                old,
                text=old.text if patch.text is None else patch.text,
                metadata=old.metadata if patch.metadata is None else patch.metadata,
                occurred_at=patch.occurred_at or old.occurred_at,
                version=old.version + 1,
                updated_at=now,
            )
            draft: Draft | Memory = memory
            if memory.text != old.text or memory.occurred_at != old.occurred_at:
                job_id = JobId(new_id())
                memory = dataclasses.replace(memory, status=MemoryStatus.PENDING, job_id=job_id)
                draft = Draft([memory], self._job(job_id, [memory], Priority.NORMAL, now), idempotency)
            written = await self._store.update(
                tenant_id, draft, expected_version=old.version, idempotency=idempotency, quota=quota
            )
            if isinstance(written, Replay):
                return await self._replayed(tenant_id, written)
            if written is not None:
                return self._queued(tenant_id, written)
            # Another call changed it in between: decide again on what it now is.

    async def delete(
        self,
        tenant_id: TenantId,
        memory_id: MemoryId,
        *,
        version: int | None = None,
        idempotency: Idempotency | None = None,
    ) -> None:
        """Deletes a memory and what it alone stated. Raises MEMORY_NOT_FOUND, ETAG_MISMATCH, REQUEST_ID_REUSED."""
        deleted = await self._store.delete(
            tenant_id, memory_id, version=version, idempotency=idempotency, now=self._clock.now()
        )
        if deleted is None:
            raise not_found(Reason.MEMORY_NOT_FOUND, "memory", memory_id)
        if isinstance(deleted, Memory) and deleted.status is MemoryStatus.PENDING:
            job = await self._jobs.get(tenant_id, deleted.job_id)
            if job is not None and list(job.memory_ids) == [memory_id]:
                await self._jobs.cancel(tenant_id, job.id, now=self._clock.now())

    async def close(self) -> None:
        """Waits for what is being stored."""
        await self._accepting.close()

    def _queued(self, tenant_id: TenantId, stored: Stored) -> Accepted:
        if stored.job is not None:
            if stored.in_flight:
                self._hinter.hint(JobRef(tenant_id, stored.job.id))
            _log.debug("job_hinted" if stored.in_flight else "job_waits", job_id=str(stored.job.id))
        return Accepted(stored.memories, stored.job)

    async def _replayed(self, tenant_id: TenantId, replay: Replay) -> Accepted:
        memories = await self._store.get(tenant_id, replay.memory_ids)
        if not memories:
            raise not_found(Reason.MEMORY_NOT_FOUND, "memory", replay.memory_ids[0])
        job = await self._jobs.get(tenant_id, replay.job_id) if replay.job_id else None
        return Accepted(memories, job)

    def _job(self, job_id: JobId, memories: Sequence[Memory], priority: Priority, now: datetime) -> Job:
        bound = self._bounds.bound(memories, at=now)
        return draft_job(job_id, memories, priority, now, max_attempts=self._max_attempts, cost_bound=bound)


def _put_off(job: Job | None) -> bool:
    return job is not None and job.state is JobState.DEFERRED


def content_hash(text: str) -> bytes:
    """SHA-256 of the text (32 bytes): the same text again is the same hash."""
    return hashlib.sha256(text.encode()).digest()
