"""What storing memories needs from the outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from memoro_core.idempotency import Idempotency
from memoro_core.ids import JobId, MemoryId, TenantId, UserId
from memoro_core.jobs.model import Job, JobRef
from memoro_core.limits.model import Quota
from memoro_core.memory.model import Memory, MemoryFilter


@dataclass(frozen=True, slots=True)
class Draft:
    """Memories and their job, whole, ready to be stored in one go."""

    memories: Sequence[Memory]
    job: Job
    idempotency: Idempotency | None
    run_by_caller: bool = False
    """Whether this call runs the job itself: then it is nobody else's to choose."""
    quota: Quota | None = None
    """How much its tenant may have stored."""


@dataclass(frozen=True, slots=True)
class Stored:
    """Memories as they were stored, with their job if there is one."""

    memories: Sequence[Memory]
    job: Job | None
    in_flight: bool = False
    """Whether the job had room under the caps of its tier: then workers are to be told of it now, unless the caller
    runs it. If not, the scheduler chooses it in its turn."""


@dataclass(frozen=True, slots=True)
class Replay:
    """The request id was used before with the same payload: what it made then."""

    memory_ids: Sequence[MemoryId]
    job_id: JobId | None


class MemoryStore(Protocol):
    """Memories in the database. A known request id with another payload is REQUEST_ID_REUSED everywhere.

    What would be beyond a tenant's quota is refused with QUOTA_EXCEEDED, and nothing of it is stored. What is accepted
    at the same time elsewhere is not seen: so much a quota may be exceeded by.
    """

    async def accept(self, tenant_id: TenantId, drafts: Sequence[Draft]) -> Sequence[Stored | Replay | Exception]:
        """Stores drafts of one text each, in one transaction; a verdict per draft: stored, a replay, or refused."""
        ...

    async def accept_conversation(self, tenant_id: TenantId, draft: Draft) -> Stored | Replay:
        """Stores messages at the end of their conversation; as stored, with the positions they got."""
        ...

    async def get(self, tenant_id: TenantId, memory_ids: Sequence[MemoryId]) -> Sequence[Memory]:
        """Those of them that are there, in the order asked for."""
        ...

    async def list_memories(
        self,
        tenant_id: TenantId,
        user_id: UserId | None,
        memory_filter: MemoryFilter,
        *,
        limit: int,
        before: MemoryId | None,
    ) -> Sequence[Memory]:
        """Memories newest first, at most `limit`, older than `before`."""
        ...

    async def update(
        self,
        tenant_id: TenantId,
        draft: Draft | Memory,
        *,
        expected_version: int,
        idempotency: Idempotency | None,
        quota: Quota | None = None,
    ) -> Stored | Replay | None:
        """Writes one changed memory, with a job (Draft) or without; None when its version is not the expected one."""
        ...

    async def delete(
        self,
        tenant_id: TenantId,
        memory_id: MemoryId,
        *,
        version: int | None,
        idempotency: Idempotency | None,
        now: datetime,
    ) -> Replay | Memory | None:
        """Deletes a memory and what it alone stated; the memory as it was, None when there is none.

        Raises ETAG_MISMATCH.
        """
        ...

    async def find_request(self, tenant_id: TenantId, idempotency: Idempotency) -> Replay | None:
        """What the request id did before, None when it is new."""
        ...


class Hinter(Protocol):
    """Tells workers of new jobs, in the background."""

    def hint(self, ref: JobRef) -> None:
        """Sends a hint soon; a lost one is made good by the scheduler."""
        ...


class JobExecutor(Protocol):
    """Runs a job in this very process."""

    async def execute(self, ref: JobRef) -> Job:
        """Runs its attempts until it has ended; the job as it then is."""
        ...
