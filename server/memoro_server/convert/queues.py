"""Workers and queues, and which jobs operators mean."""

from __future__ import annotations

from collections.abc import Sequence

from memoro.v1 import admin_pb2, admin_service_pb2
from memoro_core.ids import TenantId
from memoro_core.jobs.model import JobState
from memoro_core.jobs.operation_model import ClearFilter, QueueStatus, RequeueFilter, RunningJob, WorkerStatus
from memoro_core.tenancy.model import TierName
from memoro_server.convert.jobs import KINDS, to_kinds, to_states
from memoro_server.convert.scalars import from_time, from_time_or_none, to_id, to_time


def to_queue(name: str) -> TierName | None:
    """The queue of that name; None, which stands for all, for an empty one."""
    return TierName(name) if name else None


def to_tenant_or_none(text: str) -> TenantId | None:
    """The tenant with that id; None, which stands for all, for an empty one. Raises INVALID_FIELD."""
    return TenantId(to_id(text, "tenant_id")) if text else None


def to_requeue_filter(request: admin_service_pb2.RequeueJobsRequest) -> RequeueFilter:
    """Which ended jobs to do again: failed ones when no state is named."""
    return RequeueFilter(
        states=to_states(request.states) or (JobState.FAILED,),
        tenant_id=to_tenant_or_none(request.tenant_id),
        kinds=to_kinds(request.kinds),
        reason=request.reason or None,
        ended_from=to_time(request, "ended_from"),
        ended_until=to_time(request, "ended_until"),
    )


def to_clear_filter(request: admin_service_pb2.ClearQueueRequest) -> ClearFilter:
    """Which waiting jobs to cancel."""
    return ClearFilter(
        tier=to_queue(request.queue),
        tenant_id=to_tenant_or_none(request.tenant_id),
        kinds=to_kinds(request.kinds),
        deferred=request.deferred,
    )


def from_queues(queues: Sequence[QueueStatus]) -> Sequence[admin_pb2.Queue]:
    """Queues as operators see them."""
    return [
        admin_pb2.Queue(
            name=queue.tier,
            waiting=queue.waiting,
            active=queue.active,
            deferred=queue.deferred,
            succeeded_today=queue.succeeded_today,
            failed_today=queue.failed_today,
            rate=queue.rate,
            oldest_due_time=from_time_or_none(queue.oldest_due_at),
            pause_time=from_time_or_none(queue.paused_at),
        )
        for queue in queues
    ]


def from_worker(worker: WorkerStatus) -> admin_pb2.Worker:
    """A worker as operators see it."""
    return admin_pb2.Worker(
        id=worker.id,
        host=worker.host,
        process_id=worker.process_id,
        version=worker.version,
        concurrency=worker.concurrency,
        running=worker.running,
        jobs=[_from_running_job(job) for job in worker.jobs],
        start_time=from_time(worker.started_at),
        seen_time=from_time(worker.seen_at),
        stopping=worker.stopping,
    )


def _from_running_job(job: RunningJob) -> admin_pb2.RunningJob:
    return admin_pb2.RunningJob(
        job_id=str(job.ref.job_id),
        tenant_id=str(job.ref.tenant_id),
        kind=KINDS[job.kind],
        attempt=job.attempt,
        start_time=from_time(job.started_at),
    )
