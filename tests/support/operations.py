"""Operating queues over a test's own domain."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from string import ascii_uppercase

from memoro_core.clock import SystemClock
from memoro_core.ids import ApiKeyId, ConversationId, TenantId, UserId, new_id
from memoro_core.jobs.model import JobError, JobRef
from memoro_core.jobs.operations import OperationsService
from memoro_core.jobs.ports import EventTail
from memoro_core.jobs.states import failed
from memoro_core.limits.model import NO_LIMITS
from memoro_core.memory.model import NewConversation, NewMemory, NewMessage
from memoro_core.postgres.answer_store import PostgresAnswerStore
from memoro_core.postgres.deferral_store import PostgresDeferralStore
from memoro_core.postgres.queue_store import PostgresQueueStore
from memoro_core.postgres.retry_store import PostgresRetryStore
from memoro_core.tenancy.model import FREE_TIER, Principal, Scope
from tests.support.deferrals import deferrals_of, releaser_of
from tests.support.domain import Domain, fresh_name
from tests.support.jobs import claim, now

LONG = 60.0


def fresh_reason() -> str:
    """A reason that no other test's jobs fail for."""
    return "TEST_" + "".join(secrets.choice(ascii_uppercase) for _ in range(16))


@dataclass
class Operations:
    """What operators do, and who they are."""

    domain: Domain
    service: OperationsService
    deferrals: PostgresDeferralStore
    retries: PostgresRetryStore
    queues: PostgresQueueStore
    principal: Principal

    async def job(self, tenant_id: TenantId | None = None, *, messages: int = 0) -> JobRef:
        """A job that waits, with one memory or those of a conversation."""
        tenant_id, user_id = tenant_id or self.domain.tenant, UserId("alice")
        if messages:
            accepted = await self.domain.memories.add_conversation(
                tenant_id,
                NewConversation(
                    user_id, ConversationId(fresh_name()), [NewMessage(f"message {n}") for n in range(messages)]
                ),
            )
        else:
            accepted = await self.domain.memories.create(tenant_id, NewMemory(user_id, "I moved to Lyon."))
        assert accepted.job is not None
        return JobRef(tenant_id, accepted.job.id)

    async def failed_job(
        self, tenant_id: TenantId | None = None, *, reason: str = "INTERNAL", messages: int = 0
    ) -> JobRef:
        """A job that has failed for a reason, with its memories."""
        ref = await self.job(tenant_id, messages=messages)
        await self.fail(ref, reason)
        return ref

    async def fail(self, ref: JobRef, reason: str = "INTERNAL") -> None:
        """Runs a job that waits, to its bad end."""
        held = await claim(self.domain.run_store, ref)
        error = JobError(reason, "no use", retryable=False)
        end = failed(held.job, error, stages=held.job.stages, usage=held.job.usage, retry_at=now())
        await self.domain.run_store.finish(held, end, now=now())


def operations_of(domain: Domain, tail: EventTail) -> Operations:
    """The service over the domain's database."""
    database = domain.database
    queues, retries = (
        PostgresQueueStore(database, domain.money.holds),
        PostgresRetryStore(database, domain.money.holds, domain.money.bounds),
    )
    deferrals = deferrals_of(database)
    service = OperationsService(
        queues,
        retries,
        releaser_of(database, tail),
        PostgresAnswerStore(database),
        tail,
        SystemClock(),
        max_attempts=5,
    )
    principal = Principal(TenantId(new_id()), ApiKeyId(new_id()), frozenset({Scope.ADMIN}), FREE_TIER, NO_LIMITS)
    return Operations(domain, service, deferrals, retries, queues, principal)
