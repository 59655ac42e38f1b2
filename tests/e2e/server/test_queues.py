"""Retrying a job, and what operators see of workers and queues and do to them, over the wire."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from memoro.v1 import admin_service_pb2 as pb
from memoro.v1 import jobs_pb2, jobs_service_pb2, memory_pb2
from memoro.v1 import memory_service_pb2 as memory
from memoro_core.ids import JobId
from memoro_core.jobs.model import JobError, JobRef
from memoro_core.jobs.states import failed
from memoro_core.tenancy.model import BUILT_IN_TIERS, Scope
from tests.support.deployment import Caller, Deployment
from tests.support.jobs import LIMITS, claim, now
from tests.support.operations import fresh_reason

ADD = memory.CreateMemoryRequest(user_id="alice", text="I moved to Lyon.")


async def waiting_job(caller: Caller) -> Any:
    return (await caller.ask("MemoryService/CreateMemory", ADD)).job


async def failed_job(deployment: Deployment, caller: Caller, reason: str = "INTERNAL") -> Any:
    """A job that has failed for a reason, as a worker ends it."""
    job, store = await waiting_job(caller), deployment.container.run_store
    held = await claim(store, JobRef(caller.tenant_id, JobId(UUID(job.id))))
    error = JobError(reason, "no use", retryable=False)
    await store.finish(
        held, failed(held.job, error, stages=held.job.stages, usage=held.job.usage, retry_at=now()), now=now()
    )
    return job


async def job_of(caller: Caller, job_id: str) -> Any:
    return (await caller.ask("JobsService/GetJob", jobs_service_pb2.GetJobRequest(job_id=job_id))).job


async def test_a_failed_job_is_retried_once_whatever_the_caller_repeats(deployment: Deployment) -> None:
    caller = await deployment.caller()
    job = await failed_job(deployment, caller)
    retry = jobs_service_pb2.RetryJobRequest(request_id="r", job_id=job.id)
    made = (await caller.ask("JobsService/RetryJob", retry)).job
    assert (made.state, made.retry_of, made.attempt) == (jobs_pb2.JOB_STATE_QUEUED, job.id, 0)
    assert (await job_of(caller, made.id)).retry_of == job.id
    assert list(made.memory_ids) == list(job.memory_ids)
    assert (await caller.ask("JobsService/RetryJob", retry)).job == made
    stored = await caller.ask("MemoryService/GetMemory", memory.GetMemoryRequest(memory_id=job.memory_ids[0]))
    assert stored.memory.status == memory_pb2.MEMORY_STATUS_PENDING

    outcome = await caller.call("JobsService/RetryJob", jobs_service_pb2.RetryJobRequest(job_id=job.id))
    assert (outcome.code, outcome.info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "JOB_NOT_RETRYABLE")
    assert dict(outcome.info.metadata) == {"state": "FAILED", "retried_by": made.id}
    other = jobs_service_pb2.RetryJobRequest(request_id="r", job_id=made.id)
    assert (await caller.call("JobsService/RetryJob", other)).info.reason == "REQUEST_ID_REUSED"


async def test_a_job_under_way_is_not_retried_nor_without_the_scope(deployment: Deployment) -> None:
    caller = await deployment.caller()
    retry = jobs_service_pb2.RetryJobRequest(job_id=(await waiting_job(caller)).id)
    outcome = await caller.call("JobsService/RetryJob", retry)
    assert (outcome.info.reason, dict(outcome.info.metadata)) == ("JOB_NOT_RETRYABLE", {"state": "QUEUED"})
    writer = await deployment.caller((Scope.READ, Scope.WRITE))
    assert (await writer.call("JobsService/RetryJob", retry)).info.reason == "SCOPE_MISSING"


async def test_jobs_of_many_tenants_are_requeued(deployment: Deployment) -> None:
    operator, reason = await deployment.operator(), fresh_reason()
    callers = [await deployment.caller() for _ in range(2)]
    for caller in callers:
        await failed_job(deployment, caller, reason)
    requeue = pb.RequeueJobsRequest(request_id=reason, reason=reason, limit=1)
    first = await operator.ask("AdminService/RequeueJobs", requeue)
    assert (first.requeued, first.skipped, first.more) == (1, 0, True)
    assert await operator.ask("AdminService/RequeueJobs", requeue) == first
    none = pb.RequeueJobsRequest(reason=reason, ended_until=Timestamp(seconds=1))
    assert (await operator.ask("AdminService/RequeueJobs", none)).requeued == 0
    mine = pb.RequeueJobsRequest(reason=reason, tenant_id=str(callers[1].tenant_id))
    assert (await operator.ask("AdminService/RequeueJobs", mine)).requeued == 1
    rest = await operator.ask("AdminService/RequeueJobs", pb.RequeueJobsRequest(reason=reason))
    assert (rest.requeued, rest.skipped, rest.more) == (0, 0, False)
    for caller in callers:
        listed = await caller.ask("JobsService/ListJobs", jobs_service_pb2.ListJobsRequest())
        assert [job.state for job in listed.jobs] == [jobs_pb2.JOB_STATE_QUEUED, jobs_pb2.JOB_STATE_FAILED]


async def test_a_queue_is_cleared_of_what_waits(deployment: Deployment) -> None:
    operator, caller = await deployment.operator(), await deployment.caller()
    jobs = [await waiting_job(caller) for _ in range(3)]
    container = deployment.container
    later = now() + timedelta(hours=1)
    await container.deferrals.defer(caller.tenant_id, [JobId(UUID(jobs[2].id))], until=later, now=now())
    clear = pb.ClearQueueRequest(request_id=str(caller.tenant_id), tenant_id=str(caller.tenant_id), limit=1)
    first = await operator.ask("AdminService/ClearQueue", clear)
    assert (first.cancelled, first.more) == (1, True)
    assert await operator.ask("AdminService/ClearQueue", clear) == first
    both = pb.ClearQueueRequest(tenant_id=str(caller.tenant_id), deferred=True)
    assert (await operator.ask("AdminService/ClearQueue", both)).cancelled == 2
    for job in jobs:
        assert (await job_of(caller, job.id)).state == jobs_pb2.JOB_STATE_CANCELLED


async def test_everything_is_never_cleared_by_mistake(deployment: Deployment) -> None:
    operator, caller = await deployment.operator(), await deployment.caller()
    job = await waiting_job(caller)
    outcome = await operator.call("AdminService/ClearQueue", pb.ClearQueueRequest(deferred=True))
    assert (outcome.code, outcome.info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert (await job_of(caller, job.id)).state == jobs_pb2.JOB_STATE_QUEUED
    everything = pb.ClearQueueRequest(all_tenants=True, limit=10_000)
    assert (await operator.ask("AdminService/ClearQueue", everything)).cancelled >= 1
    assert (await job_of(caller, job.id)).state == jobs_pb2.JOB_STATE_CANCELLED


async def test_what_is_put_off_is_triggered(deployment: Deployment) -> None:
    operator, caller = await deployment.operator(), await deployment.caller()
    job, container = await waiting_job(caller), deployment.container
    later = now() + timedelta(hours=1)
    await container.deferrals.defer(caller.tenant_id, [JobId(UUID(job.id))], until=later, now=now())
    assert (await job_of(caller, job.id)).state == jobs_pb2.JOB_STATE_DEFERRED
    trigger = pb.TriggerProcessingRequest(request_id=job.id, tenant_id=str(caller.tenant_id))
    done = await operator.ask("AdminService/TriggerProcessing", trigger)
    assert (done.released, done.due) == (1, 0)
    assert await operator.ask("AdminService/TriggerProcessing", trigger) == done
    assert (await job_of(caller, job.id)).state == jobs_pb2.JOB_STATE_QUEUED


async def test_workers_and_queues_are_told_of(deployment: Deployment) -> None:
    operator, caller = await deployment.operator(), await deployment.caller()
    job, container = await waiting_job(caller), deployment.container
    started = now() - timedelta(minutes=1)
    worker_id = f"worker-{job.id}"
    async with container.database.system_tx() as connection:
        await connection.execute(
            "INSERT INTO workers (worker_id, host, process_id, version, concurrency, started_at, seen_at)"
            " VALUES ($1, 'here', 7, '1.0', 16, $2, $3)",
            worker_id,
            started,
            now(),
        )
    ref = JobRef(caller.tenant_id, JobId(UUID(job.id)))
    await container.run_store.claim(
        [ref], worker_id=worker_id, now=now(), lease_until=now() + timedelta(seconds=30), limits=LIMITS
    )
    told = await operator.ask("AdminService/GetWorkers", pb.GetWorkersRequest())
    (worker,) = [worker for worker in told.workers if worker.id == worker_id]
    assert (worker.host, worker.process_id, worker.version) == ("here", 7, "1.0")
    assert (worker.concurrency, worker.running, worker.stopping) == (16, 1, False)
    assert worker.start_time.ToDatetime(tzinfo=started.tzinfo) == started
    (running,) = worker.jobs
    assert (running.job_id, running.tenant_id, running.attempt) == (job.id, str(caller.tenant_id), 1)
    assert running.kind == jobs_pb2.JOB_KIND_MEMORY_ENRICH
    # Other tests make tiers, which are queues too.
    assert [queue.name for queue in told.queues if queue.name in BUILT_IN_TIERS] == list(BUILT_IN_TIERS)
    assert sum(queue.active for queue in told.queues) >= 1


async def test_queues_are_paused_and_resumed(deployment: Deployment) -> None:
    operator = await deployment.operator()
    try:
        paused = await operator.ask("AdminService/PauseQueue", pb.PauseQueueRequest(queue="enterprise"))
        assert [queue.name for queue in paused.queues if queue.HasField("pause_time")] == ["enterprise"]
        again = await operator.ask("AdminService/PauseQueue", pb.PauseQueueRequest())
        assert all(queue.HasField("pause_time") for queue in again.queues)
        first, second = (next(queue for queue in told.queues if queue.name == "enterprise") for told in (paused, again))
        assert first.pause_time == second.pause_time
    finally:
        resumed = await operator.ask("AdminService/ResumeQueue", pb.ResumeQueueRequest())
    assert not any(queue.HasField("pause_time") for queue in resumed.queues)


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("PauseQueue", pb.PauseQueueRequest(queue="Gold")),
        ("ClearQueue", pb.ClearQueueRequest(queue="free", limit=10_001)),
        ("RequeueJobs", pb.RequeueJobsRequest(limit=-1)),
        ("RequeueJobs", pb.RequeueJobsRequest(states=[jobs_pb2.JOB_STATE_SUCCEEDED])),
        ("RequeueJobs", pb.RequeueJobsRequest(reason="'; --")),
        ("TriggerProcessing", pb.TriggerProcessingRequest(tenant_id="x")),
    ],
)
async def test_bad_fields_are_refused(deployment: Deployment, method: str, request_: Any) -> None:
    outcome = await (await deployment.operator()).call(f"AdminService/{method}", request_)
    assert (outcome.code, outcome.info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
