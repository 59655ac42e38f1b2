"""The work of an ended job is done again once, for what it left unready, whoever asks and how often."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from memoro_core.errors import MemoroError, Reason
from memoro_core.idempotency import Idempotency
from memoro_core.ids import JobId, new_id
from memoro_core.jobs.model import JobRef, JobState, StageStatus
from memoro_core.jobs.service import JobsService
from memoro_core.memory.model import MemoryPatch, MemoryStatus
from memoro_core.redis.events import RedisEventTail
from tests.support.domain import Domain
from tests.support.jobs import claim, events_of, job_of, jobs_service, new_job, now, succeeded
from tests.support.operations import Operations


@pytest.fixture
def service(domain: Domain, tail: RedisEventTail) -> JobsService:
    return jobs_service(domain, tail)


async def refusal(service: JobsService, ref: JobRef) -> MemoroError:
    with pytest.raises(MemoroError) as refused:
        await service.retry(ref.tenant_id, ref.job_id)
    return refused.value


async def test_a_failed_job_gets_a_successor_with_attempts_of_its_own(
    domain: Domain, service: JobsService, operations: Operations
) -> None:
    ref = await operations.failed_job()
    old = await job_of(domain, ref)
    made = await service.retry(ref.tenant_id, ref.job_id)
    assert (made.state, made.attempt, made.sequence, made.retry_of) == (JobState.QUEUED, 0, 1, old.id)
    assert (made.kind, made.user_id, made.priority) == (old.kind, old.user_id, old.priority)
    assert list(made.memory_ids) == list(old.memory_ids)
    assert [stage.stage for stage in made.stages] == [stage.stage for stage in old.stages]
    assert {stage.status for stage in made.stages} == {StageStatus.PENDING}
    assert made.error is None
    (memory,) = await domain.memory_store.get(domain.tenant, made.memory_ids)
    assert (memory.status, memory.job_id) == (MemoryStatus.PENDING, made.id)
    assert await job_of(domain, ref) == old

    again = JobRef(ref.tenant_id, made.id)
    assert [event.state for event in await events_of(domain, again)] == [JobState.QUEUED]
    held = await claim(domain.run_store, again)
    await domain.run_store.finish(held, succeeded(held), now=now())
    await events_of(domain, again)


async def test_a_cancelled_job_is_retried_too(domain: Domain, service: JobsService) -> None:
    ref = await new_job(domain)
    await service.cancel(ref.tenant_id, ref.job_id)
    made = await service.retry(ref.tenant_id, ref.job_id)
    assert (made.state, made.cancel_requested) == (JobState.QUEUED, False)


async def test_a_successor_takes_only_what_is_still_unready_and_the_old_jobs(
    domain: Domain, service: JobsService, operations: Operations
) -> None:
    ref = await operations.failed_job(messages=5)
    ids = (await job_of(domain, ref)).memory_ids
    await domain.memories.delete(domain.tenant, ids[0])
    await domain.memories.update(domain.tenant, ids[2], MemoryPatch(text="Another text."))
    async with domain.database.tenant_tx(domain.tenant) as connection:
        await connection.execute("UPDATE memories SET status = 'READY' WHERE memory_id = $1", ids[3])
    made = await service.retry(ref.tenant_id, ref.job_id)
    assert list(made.memory_ids) == [ids[1], ids[4]]
    found = {memory.id: memory for memory in await domain.memory_store.get(domain.tenant, ids)}
    assert [memory_id for memory_id, memory in found.items() if memory.job_id == made.id] == [ids[1], ids[4]]
    assert found[ids[3]].status is MemoryStatus.READY


async def test_a_job_is_retried_once(service: JobsService, operations: Operations) -> None:
    ref = await operations.failed_job()
    made = await service.retry(ref.tenant_id, ref.job_id)
    error = await refusal(service, ref)
    assert error.reason is Reason.JOB_NOT_RETRYABLE
    assert error.metadata == {"state": "FAILED", "retried_by": str(made.id)}


async def test_a_successor_that_failed_is_retried_in_its_turn(
    domain: Domain, service: JobsService, operations: Operations
) -> None:
    ref = await operations.failed_job()
    for _ in range(3):
        made = await service.retry(ref.tenant_id, ref.job_id)
        assert made.retry_of == ref.job_id
        ref = JobRef(ref.tenant_id, made.id)
        await operations.fail(ref)
    assert await domain.count("jobs") == 4


async def test_what_has_not_ended_badly_is_not_retried(domain: Domain, service: JobsService) -> None:
    ref = await new_job(domain)
    assert (await refusal(service, ref)).metadata == {"state": "QUEUED"}
    held = await claim(domain.run_store, ref)
    assert (await refusal(service, ref)).metadata == {"state": "RUNNING"}
    await domain.run_store.finish(held, succeeded(held), now=now())
    error = await refusal(service, ref)
    assert (error.reason, error.metadata) == (Reason.JOB_NOT_RETRYABLE, {"state": "SUCCEEDED"})
    assert await domain.count("jobs") == 1


async def test_nothing_is_made_when_no_work_is_left(
    domain: Domain, service: JobsService, operations: Operations
) -> None:
    ref = await operations.failed_job()
    (memory_id,) = (await job_of(domain, ref)).memory_ids
    await domain.memories.delete(domain.tenant, memory_id)
    idempotency = Idempotency("a", b"f" * 32)
    with pytest.raises(MemoroError, match="nothing of the work") as refused:
        await service.retry(ref.tenant_id, ref.job_id, idempotency=idempotency)
    assert refused.value.reason is Reason.JOB_NOT_RETRYABLE
    assert (await domain.count("jobs"), await domain.count("idempotency_records")) == (1, 0)


async def test_the_job_of_another_tenant_is_not_there(
    domain: Domain, service: JobsService, operations: Operations
) -> None:
    ref = await operations.failed_job()
    stranger = JobRef(await domain.new_tenant(), ref.job_id)
    assert (await refusal(service, stranger)).reason is Reason.JOB_NOT_FOUND
    assert (await refusal(service, JobRef(domain.tenant, JobId(new_id())))).reason is Reason.JOB_NOT_FOUND


async def test_a_repeated_request_gets_the_job_that_it_made(service: JobsService, operations: Operations) -> None:
    ref = await operations.failed_job()
    same = Idempotency("a", b"f" * 32)
    answers = await asyncio.gather(
        *(service.retry(ref.tenant_id, ref.job_id, idempotency=same) for _ in range(10)), return_exceptions=True
    )
    assert len({job.id for job in answers if not isinstance(job, BaseException)}) == 1
    assert not [job for job in answers if isinstance(job, BaseException)]
    with pytest.raises(MemoroError) as refused:
        await service.retry(ref.tenant_id, ref.job_id, idempotency=Idempotency("a", b"g" * 32))
    assert refused.value.reason is Reason.REQUEST_ID_REUSED


async def test_of_twenty_callers_one_retries_the_job(
    domain: Domain, service: JobsService, operations: Operations
) -> None:
    ref = await operations.failed_job()
    answers = await asyncio.gather(
        *(service.retry(ref.tenant_id, ref.job_id) for _ in range(20)), return_exceptions=True
    )
    verdicts = Counter(answer.reason if isinstance(answer, MemoroError) else "made" for answer in answers)
    assert verdicts == {"made": 1, Reason.JOB_NOT_RETRYABLE: 19}
    assert await domain.count("jobs") == 2


async def test_watchers_of_the_tenant_are_told_of_the_new_job(
    domain: Domain, tail: RedisEventTail, service: JobsService, operations: Operations
) -> None:
    ref = await operations.failed_job()
    made = await service.retry(ref.tenant_id, ref.job_id)
    async with tail.subscribe(ref.tenant_id, made.id) as inbox:
        await service.cancel(ref.tenant_id, made.id)
        async with asyncio.timeout(10):
            event = await inbox.next()
            while event is not None and event.state is JobState.QUEUED:
                event = await inbox.next()
    assert event is not None
    assert (event.seq, event.state) == (2, JobState.CANCELLED)
